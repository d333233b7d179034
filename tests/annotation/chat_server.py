"""A chat server of the OpenAI kind on this machine, that behaves as it is told: stdlib alone."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import soundfile


def completion(content, **message):
    """A reply as the protocol has it."""
    return {
        "id": "1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": content} | message}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 103},
    }  # fmt: skip


class Server:
    """Answers POST /v1/chat/completions by `behave(server, number of the request, its JSON)`.

    `behave` returns (status, headers, body): a dict is sent as JSON, bytes as they are, None cuts the connection in the
    middle of the reply, and a function writes what comes after the headers itself, to the connection that it is given.

    Attributes:
        requests: bodies so far, with "heard": samples and rate of the clip; `keys`: what came as authorization;
            `paths`: what was asked for, the whole address where it is asked as a proxy.
        most: how many requests were under way at a time.
    """

    def __init__(self, behave):
        self.behave, self.requests, self.keys, self.most, self._now = behave, [], set(), 0, 0
        self.paths = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    number = len(outer.requests)
                    outer.requests.append(request)
                    outer.paths.append(self.path)
                    outer.keys.add(self.headers["Authorization"])
                    outer._now += 1
                    outer.most = max(outer.most, outer._now)
                try:
                    self.reply(*outer.behave(outer, number, request))
                finally:
                    with outer._lock:
                        outer._now -= 1

            def reply(self, status, headers, body):
                content = json.dumps(body).encode() if isinstance(body, dict) else body
                self.send_response(status)
                for name, value in ({"Content-Type": "application/json"} | headers).items():
                    self.send_header(name, value)
                if callable(body):
                    self.end_headers()
                    self.close_connection = True
                    with suppress(OSError):
                        body(self.connection)
                    return
                self.send_header("Content-Length", str(1000 if content is None else len(content)))
                self.end_headers()
                self.wfile.write(b'{"id": "1", "cho' if content is None else content)
                if content is None:
                    self.close_connection = True

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._http.serve_forever, args=[0.01], daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()


def heard(request):
    """The clip in a request: samples and rate."""
    [audio] = [part for part in request["messages"][1]["content"] if part["type"] == "input_audio"]
    assert audio["input_audio"]["format"] == "wav"
    return soundfile.read(io.BytesIO(base64.b64decode(audio["input_audio"]["data"])), dtype="float32")


def slowly(seconds, answer):
    """A behaviour that takes its time."""
    time.sleep(seconds)
    return answer
