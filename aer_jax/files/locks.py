"""Lock files: one process at a time writes a run, an evaluation, an export or a part of a journal.

Not flock, which some network file systems lack or keep to one machine. A lock is a file that names its holder: the
machine, the process and when that started. On the same machine a dead holder is known at once. For another machine the
file's time of change counts, which the holder renews; all times are those of the file system, so clocks may differ.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from aer_jax.errors import UserError

BEAT_SECONDS = 5.0
SILENT_SECONDS = 120.0  # a holder elsewhere is dead after so long without a beat; network file systems may stall


class _Holder(NamedTuple):
    """Content of a lock file, and its time of change; `about` is empty where the file is cut short."""

    about: dict[str, str]
    beat: float

    def __str__(self) -> str:
        if not self.about:
            return "another process"
        who = f"process {self.about['pid']} on {self.about['host']} since {self.about['since']}"
        return f"this process itself ({who})" if self._is_here() and self.about["pid"] == str(os.getpid()) else who

    def is_dead(self) -> bool:
        """Whether the holder is known to have ended: its process was on this machine and is not there any more."""
        return self._is_here() and _start_of(int(self.about["pid"])) != self.about["start"]

    def _is_here(self) -> bool:
        return self.about.get("machine") == _machine()


@contextmanager
def locked(
    file: Path,
    what: str,
    *,
    beat: float = BEAT_SECONDS,
    silent: float = SILENT_SECONDS,
    leave: Callable[[int], None] = os._exit,
) -> Iterator[None]:
    """Hold the lock `file` while the block runs; its folder must exist.

    Where the holder is on another machine, this waits until its next beat, or until it has been silent for too long.

    Args:
        file: the lock.
        what: the beginning of the sentence, for instance "runs/a is being trained".
        beat, silent: seconds between two signs of life, and without one until a holder elsewhere counts as dead.
        leave: ends this process, given an exit code, where the lock was lost: two would write to one place.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    token = uuid.uuid4().hex
    own = {
        "host": platform.node(),
        "pid": str(os.getpid()),
        "start": _start_of(os.getpid()),
        "machine": _machine(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "token": token,
    }
    try:
        _take(file, what, own, silent)
    except OSError as error:
        raise UserError(f"cannot write {file} ({error.strerror}); choose a place that can be written.") from None
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(beat):
            with suppress(OSError):  # the folder may be out of reach for a moment
                holder = _read(file)
                if holder is not None and holder.about.get("token", token) != token and not ended.is_set():
                    print(f"\naer-jax: {what} by {holder} now, so this process ends.", file=sys.stderr, flush=True)
                    leave(UserError.exit_code)
                    return
                os.utime(file)

    thread = threading.Thread(target=keep, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):
            if (holder := _read(file)) is not None and holder.about.get("token") == token:
                file.unlink()


def _take(file: Path, what: str, own: dict[str, str], silent: float) -> None:
    while not _create(file, own):
        holder = _read(file)
        if holder is None:  # just released
            continue
        if not holder.is_dead():
            _wait_for_death(file, what, holder, silent)
        # Of several that see the same dead holder one may remove its lock, and only while it is still that one's.
        guard = file.with_name(f"{file.name}.takeover")
        if _create(guard, own):
            try:
                if (now := _read(file)) is not None and now.about == holder.about:
                    file.unlink()
            finally:
                guard.unlink()
        elif (other := _read(guard)) is not None and (other.is_dead() or abs(_age(guard, other)) > silent):
            guard.unlink(missing_ok=True)
        else:
            time.sleep(0.05)


def _wait_for_death(file: Path, what: str, holder: _Holder, silent: float) -> None:
    """Return when the holder, elsewhere, has been silent for long enough.

    Raises:
        UserError: it lives.
    """
    refused = UserError(f"{what} by {holder}; wait for its end, or stop it there, then give this command again.")
    if holder._is_here():
        raise refused
    notified = False
    # A beat in the future, of a clock that was wrong, is no reason to wait for that day.
    end = time.monotonic() + silent - max(0.0, _age(file, holder))
    while (left := end - time.monotonic()) >= 0:
        if not notified:
            print(
                f"{what} by {holder}; waiting up to {left:.0f} s for a sign that it still runs",
                file=sys.stderr,
                flush=True,
            )
            notified = True
        time.sleep(min(1.0, silent / 10))
        now = _read(file)
        if now is None:
            return
        if now != holder:
            raise refused


def _create(file: Path, about: dict[str, str]) -> bool:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, json.dumps(about).encode())
    finally:
        os.close(descriptor)
    return True


def _read(file: Path) -> _Holder | None:
    try:
        with file.open("rb") as stream:
            content, beat = stream.read(10_000), os.fstat(stream.fileno()).st_mtime
    except FileNotFoundError:
        return None
    try:
        about = json.loads(content)
        known = all(isinstance(about[name], str) for name in ("host", "pid", "start", "machine", "since", "token"))
        return _Holder(about if known and about["pid"].isdecimal() else {}, beat)
    except (ValueError, KeyError, TypeError):
        return _Holder({}, beat)


def _age(file: Path, holder: _Holder) -> float:
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f"{file.name}.") as new:
        return os.fstat(new.fileno()).st_mtime - holder.beat


def _machine() -> str:
    """Within which a process number means one process: this boot of this host, and in it this container."""
    boot, container = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    with suppress(OSError):
        return f"{platform.node()} {boot.read_text().strip()} {os.readlink(container)}"
    return platform.node()


def _start_of(pid: int) -> str:
    """When a process started, in the kernel's ticks, so that a number given again is another process; "" if it ended.

    A process that has ended but was not waited for, a zombie, has ended.
    """
    try:
        # The name, in brackets, may hold anything: the fields that follow it are the 3rd, the state, and so on.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    except (OSError, IndexError):
        return ""
    try:  # no Linux: the number alone has to do
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "unknown"
