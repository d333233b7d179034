"""A Google Cloud machine that is about to be taken away says so on its metadata server, before any SIGTERM."""

from __future__ import annotations

import os
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What the server says under `instance/` once this machine has to go: a spot machine's preemption, and maintenance that
# ends machines with accelerators, for they cannot be moved while they run.
NOTICES = {"preempted": "TRUE", "maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE"}
HOST = "GCE_METADATA_HOST"  # Google's own libraries know this variable too
LOOK_SECONDS = 5.0
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def heed_notices(stop: threading.Event, seconds: float | None = None) -> Iterator[None]:
    """Set `stop` when this machine is announced to be taken away; elsewhere than on Google Cloud nothing happens.

    A notice that was there before the block stops nothing: the run was started in spite of it, and would else be
    started again and again.

    Args:
        stop: what the run looks at between two steps.
        seconds: between two looks (LOOK_SECONDS).
    """
    host = _host()
    if host is None:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        before = _said(host)
        while not ended.wait(LOOK_SECONDS if seconds is None else seconds):
            new = [name for name in _said(host) if name not in before]
            if new:
                print(f"\nthis machine is about to be taken away ({new[0]}); saving", file=sys.stderr, flush=True)
                stop.set()
                return

    thread = threading.Thread(target=watch, name="notices", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _host() -> str | None:
    """Where the metadata server is; None on machines that have none."""
    product = Path("/sys/class/dmi/id/product_name")
    google = product.is_file() and product.read_text(errors="replace").startswith("Google")
    return os.environ.get(HOST) or ("metadata.google.internal" if google else None)


def _said(host: str) -> list[str]:
    """The notices that the server gives now; none where it does not answer, which is no reason to stop."""
    found = []
    for name, means in NOTICES.items():
        ask = urllib.request.Request(f"http://{host}/computeMetadata/v1/instance/{name}")
        ask.add_header("Metadata-Flavor", "Google")
        try:
            with _NO_PROXY.open(ask, timeout=2) as answer:
                if answer.read(100).decode(errors="replace").strip() == means:
                    found.append(name)
        except OSError:
            continue
    return found
