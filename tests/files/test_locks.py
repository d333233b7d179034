"""Lock files: a living holder is named, a dead one is taken over, whichever machine it was on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from aer_jax.errors import UserError
from aer_jax.files import locks
from aer_jax.files.locks import locked

HOLD = """
import sys, time, pathlib
from aer_jax.files.locks import locked
from aer_jax.errors import UserError
try:
    with locked(pathlib.Path(sys.argv[1]), "x is being written"):
        print("held", flush=True)
        time.sleep(float(sys.argv[2]))
except UserError as error:
    print(error, flush=True)
"""


def hold(file, seconds=60.0):
    """A process that holds the lock, or says why not."""
    command = [sys.executable, "-c", HOLD, str(file), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def holder(tmp_path):
    process = hold(tmp_path / "lock")
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def elsewhere(file, **changed):
    """Make the lock one of another machine."""
    file.write_text(json.dumps(json.loads(file.read_text()) | {"machine": "other", "host": "other-host"} | changed))


def test_a_living_holder_is_named(tmp_path, holder):
    with pytest.raises(UserError) as error, locked(tmp_path / "lock", "x is being written"):
        raise AssertionError("must not be entered")
    assert f"x is being written by process {holder.pid} on {os.uname().nodename} since 20" in str(error.value)
    assert "wait for its end" in str(error.value)
    assert holder.poll() is None and (tmp_path / "lock").exists()


def test_a_killed_holder_is_taken_over_at_once(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    began = time.monotonic()
    with locked(tmp_path / "lock", "x"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == str(os.getpid())
    assert time.monotonic() - began < 2 and list(tmp_path.iterdir()) == []


def test_a_number_given_again_is_another_process(tmp_path, holder):
    """The holder is dead, and its process number belongs to someone else now."""
    file = tmp_path / "lock"
    holder.kill()
    holder.wait()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pid": str(os.getppid())}))
    with locked(file, "x"):
        pass


def test_of_many_that_see_a_dead_holder_one_takes_over(tmp_path, holder):
    holder.kill()
    holder.wait()
    started = [hold(tmp_path / "lock", 3.0) for _ in range(6)]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert sorted(said)[0].startswith("held") and sum(text.startswith("held") for text in said) == 1, said


def test_a_holder_elsewhere_lives_while_it_beats(tmp_path, capsys):
    file = tmp_path / "lock"
    with locked(file, "x", beat=0.05):
        elsewhere(file)
        stop = threading.Event()

        def beat():
            while not stop.wait(0.1):
                os.utime(file)

        thread = threading.Thread(target=beat)
        thread.start()
        with pytest.raises(UserError, match="on other-host since"), locked(file, "x", silent=20):
            raise AssertionError("must not be entered")
        stop.set()
        thread.join()
    assert "waiting up to 20 s" in capsys.readouterr().err


@pytest.mark.parametrize("age", [0, 1000, -1_000_000])
def test_a_holder_elsewhere_that_is_silent_is_taken_over(tmp_path, holder, age):
    """At once where its last beat is old, else after watching it, also where its clock was ahead."""
    holder.kill()
    holder.wait()
    file = tmp_path / "lock"
    elsewhere(file)
    os.utime(file, (time.time() - age,) * 2)
    began = time.monotonic()
    with locked(file, "x", silent=1.0):
        pass
    assert (time.monotonic() - began < 0.5) == (age > 0)


@pytest.mark.parametrize("content", ["", "[]", '{"pid": 3}', '{"host": "a", "pid'])
def test_a_lock_cut_short_counts_by_its_age(tmp_path, content):
    file = tmp_path / "lock"
    file.write_text(content)
    with locked(file, "x", silent=0.2):
        pass
    assert not file.exists()


def test_a_holder_whose_lock_was_taken_leaves(tmp_path, capsys):
    """After a machine had been asleep, say."""
    codes, file = [], tmp_path / "lock"
    with locked(file, "x is being written", beat=0.02, leave=codes.append):
        elsewhere(file, token="another")
        while not codes:
            time.sleep(0.01)
    assert codes == [2] and "x is being written by process" in capsys.readouterr().err
    assert file.exists(), "it is the other's"


def test_the_block_may_fail(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", "x"):
        raise ZeroDivisionError
    assert not (tmp_path / "lock").exists()


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*nowhere/lock"), locked(tmp_path / "nowhere" / "lock", "x"):
        pass


def test_one_process_cannot_hold_it_twice(tmp_path):
    file = tmp_path / "lock"
    with locked(file, "x"), pytest.raises(UserError, match="this process itself"), locked(file, "x"):
        pass


def test_zombies_have_ended():
    process = subprocess.Popen([sys.executable, "-c", ""])
    while locks._start_of(process.pid):
        time.sleep(0.01)
    process.wait()
