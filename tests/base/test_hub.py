"""Checkpoints by directory and by hub id: from the cache, from a hub on this machine, and from nowhere."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import aer_jax
from aer_jax.base.hub import find_checkpoint, pin, split_revision
from aer_jax.errors import UserError

TOY = Path(aer_jax.__file__).parent / "demo" / "checkpoint"
FIRST, SECOND = "1" * 40, "2" * 40  # commits; the second has another config.json
COMMITS = {"main": SECOND, "v1": FIRST, FIRST: FIRST, SECOND: SECOND}
PROGRAM = """
import sys
from aer_jax.errors import UserError
from aer_jax.base.hub import find_checkpoint, pin
try:
    print(find_checkpoint(sys.argv[1]), pin(sys.argv[1]))
except UserError as error:
    print("refused:", error)
"""


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that fetching needs: what a revision holds, and its files."""

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, body: bool):
        self.server.asked.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:4] == ["api", "models", "us", "toy"]:
            commit = COMMITS.get(parts[5])
            if commit is None:
                return self.send({"X-Error-Code": "RevisionNotFound"}, b"", body, 404)
            files = self.server.files[commit]
            answer = {"id": "us/toy", "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            if parts[4] == "tree":
                answer = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
            return self.send({"Content-Type": "application/json"}, json.dumps(answer).encode(), body)
        if parts[:3] == ["us", "toy", "resolve"]:
            commit = COMMITS[parts[3]]
            content = self.server.files[commit][parts[4]]
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
            return self.send(headers, content, body)
        return self.send({"X-Error-Code": "RepoNotFound"}, b"", body, 404)

    def send(self, headers, content, body, code=200):
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub():
    files = {file.name: file.read_bytes() for file in TOY.iterdir()} | {"pytorch_model.bin": b"\x80\x04"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files = {FIRST: files, SECOND: files | {"config.json": files["config.json"] + b"\n"}}
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def find(name, cache, **environment) -> str:
    """What a process of its own finds: huggingface_hub reads its environment once."""
    environment = {**os.environ, "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    command = [sys.executable, "-c", PROGRAM, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def test_fetched_once_then_found_without_a_network(hub, tmp_path):
    online = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}"}
    newest, pinned = find("us/toy", tmp_path, **online).split()
    assert pinned == f"us/toy@{SECOND}" and Path(newest, "model.safetensors").stat().st_size > 10**6
    assert (Path(newest) / "config.json").read_bytes() == hub.files[SECOND]["config.json"]
    assert not list(Path(newest).glob("*.bin")), "pickles are not even fetched"
    older, pinned = find("us/toy@v1", tmp_path, **online).split()
    assert pinned == f"us/toy@{FIRST}" and older != newest
    assert (Path(older) / "config.json").read_bytes() == hub.files[FIRST]["config.json"]

    hub.asked.clear()
    assert find(f"us/toy@{SECOND}", tmp_path, **online).split()[0] == newest
    assert not hub.asked, "a commit that is in the cache cannot have changed"
    for name, path in (("us/toy", newest), ("us/toy@v1", older), (f"us/toy@{FIRST}", older)):
        assert find(name, tmp_path, HF_HUB_OFFLINE="1", **online).split()[0] == path
    assert not hub.asked, "HF_HUB_OFFLINE is respected"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("us/none", "the hub has no such model, or it is private"),
        ("us/toy@v9", "the hub has this model but no such revision"),
    ],
)
def test_what_the_hub_does_not_have(hub, tmp_path, name, why):
    said = find(name, tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}")
    assert said.startswith(f"refused: there is no checkpoint directory {name}") and why in said


def test_offline_and_not_in_the_cache(tmp_path):
    said = find("us/toy", tmp_path, HF_HUB_OFFLINE="1")
    assert (
        "the local Hugging Face cache lacks it and the hub cannot be reached" in said and "`hf download us/toy`" in said
    )


@pytest.mark.parametrize("name", ["/nowhere/at/all", "no such name", "nowhere", "a/b/c", ""])
def test_neither_directory_nor_hub_id(name):
    with pytest.raises(UserError, match=r"no checkpoint directory .*, and it is no hub id"):
        find_checkpoint(name)


def test_a_directory_is_what_it_is(tmp_path):
    odd = tmp_path / "we@v2"
    shutil.copytree(TOY, odd)
    assert find_checkpoint(odd) == odd and pin(str(odd)) == str(odd) and split_revision(str(odd)) == (str(odd), None)
    assert split_revision("us/toy@v1") == ("us/toy", "v1") and split_revision("us/toy") == ("us/toy", None)


def test_directories_without_readable_weights(tmp_path):
    with pytest.raises(UserError, match=r"holds no config.json; copy the whole of it"):
        find_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds no \*.safetensors weights; copy the whole of it"):
        find_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match=r"pickled weights are not read, convert them to safetensors"):
        find_checkpoint(tmp_path)
