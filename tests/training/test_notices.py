"""A machine's notice that it will be taken away stops a run between two steps, after a save."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import toy_runs

from aer_jax.training.hooks import maintenance_notice as notices
from aer_jax.training.hooks.metrics_log import MetricsLog
from aer_jax.training.hooks.preemption import Stopped
from aer_jax.training.trainer import train


@pytest.fixture
def server(monkeypatch):
    """A metadata server as Google documents it; `says` is what it answers."""

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self):
            said = self.server.says.get(self.path.removeprefix("/computeMetadata/v1/instance/"))
            known = said is not None and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if known else 403)
            self.end_headers()
            self.wfile.write(said.encode() if known else b"no")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        server.says = {"preempted": "FALSE", "maintenance-event": "NONE"}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(notices.HOST, f"127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "said"), [("preempted", "TRUE"), ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")]
)
def test_a_notice_stops(server, name, said, capsys):
    stop = threading.Event()
    with notices.heed_notices(stop, seconds=0.02):
        time.sleep(0.2)
        assert not stop.is_set()
        server.says["maintenance-event"] = "MIGRATE_ON_HOST_MAINTENANCE"
        time.sleep(0.2)
        assert not stop.is_set()
        server.says[name] = said
        assert stop.wait(10)
    assert f"about to be taken away ({name})" in capsys.readouterr().err


def test_a_notice_from_before_stops_nothing(server):
    server.says["maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
    stop = threading.Event()
    with notices.heed_notices(stop, seconds=0.02):
        time.sleep(0.3)
        assert not stop.is_set()
        server.says["preempted"] = "TRUE"
        assert stop.wait(10)


def test_no_server_no_notice(monkeypatch):
    monkeypatch.setenv(notices.HOST, "127.0.0.1:9")
    stop = threading.Event()
    with notices.heed_notices(stop, seconds=0.02):
        time.sleep(0.2)
    assert not stop.is_set()
    monkeypatch.delenv(notices.HOST)
    monkeypatch.setattr(notices, "_said", lambda host: pytest.fail("there is nobody to ask"))
    if notices._host() is None:
        with notices.heed_notices(stop, seconds=0.02):
            time.sleep(0.1)


def test_a_run_saves_and_can_go_on(server, tmp_path, monkeypatch):
    """The notice comes while step 3 is logged; the run ends as after SIGTERM, and goes on to the usual end."""
    original = MetricsLog.step

    def log_step(self, number, *args):
        original(self, number, *args)
        if number == 3:
            server.says["preempted"] = "TRUE"
            time.sleep(1)

    config = toy_runs.config(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(notices, "LOOK_SECONDS", 0.05)
        patch.setattr(MetricsLog, "step", log_step)
        with pytest.raises(Stopped, match="stopped at step 3 of 15 as asked"):
            train(config)
    assert (tmp_path / "run" / "checkpoints" / "3").is_dir()
    server.says["preempted"] = "FALSE"
    run = train(config, resume=True)
    assert toy_runs.log_lines(run.path) == toy_runs.log_lines(toy_runs.trained_run())
