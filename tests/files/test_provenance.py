"""Date, version, commit and command of what is made."""

import datetime
import re
import shutil
import subprocess
import sys
from pathlib import Path

import aer_jax
from aer_jax.files.provenance import provenance


def test_what_is_written_down(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/lib/aer_jax/__main__.py", "train", "out=a b"])
    found = provenance()
    assert found["version"] == aer_jax.__version__ and found["command"] == "aer-jax train 'out=a b'"
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(found["date"])
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)
    assert found["commit"] is None or re.fullmatch(r"[0-9a-f]{12}\+?", found["commit"])


def test_the_commit_is_that_of_the_package_alone(tmp_path):
    """A copy that lies in somebody else's repository has none until it is committed there; a change is marked."""
    here = Path(aer_jax.__file__).parent
    (tmp_path / "aer_jax" / "files").mkdir(parents=True)
    for name in ("__init__.py", "files/__init__.py", "files/provenance.py"):
        shutil.copy(here / name, tmp_path / "aer_jax" / name)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)

    def commit():
        code = "from aer_jax.files.provenance import commit; print(commit())"
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    assert commit() == "None"
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    found = commit()
    assert re.fullmatch("[0-9a-f]{12}", found)
    (tmp_path / "aer_jax" / "__init__.py").open("a").write("# changed\n")
    assert commit() == found + "+"
