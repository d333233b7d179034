"""The log of a run, also of one that was killed while it wrote, and the same numbers for TensorBoard."""

import json
import struct
from contextlib import contextmanager
from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from tensorboardX.proto.event_pb2 import Event

from aer_jax.errors import UserError
from aer_jax.training.hooks.metrics_log import MetricsLog

COUNTS = {"utterances": 8, "frames": 4000, "tokens": 900, "padded_tokens": 1000}


@contextmanager
def open_log(folder, step=0):
    """A log and the run that it is told of."""

    def rates(counts, seconds):
        assert counts == COUNTS and seconds > 0
        return {"utterances_per_second": 3.0}

    def contents(step):
        return [{"utterance": f"{step}-{i}"} for i in range(5)]

    log = MetricsLog(folder, rates, contents)
    training = SimpleNamespace(step=step, total_steps=9, steps_per_epoch=2, saved_at=0.0)
    log.on_start(training)
    try:
        yield log, training
    finally:
        log.on_end(training)


def take_step(log, training, loss, input_seconds=0.0, saving=False):
    training.step += 1
    training.metrics, training.input_seconds, training.saving = measured(loss), input_seconds, saving
    training.epoch_ends = False
    log.on_step(training)


def measured(loss):
    return {"loss": jnp.float32(loss), "grad_norm": jnp.float32(1.0), **{k: jnp.int32(v) for k, v in COUNTS.items()}}


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder):
    """All events, each file's in order: length, its checksum, content, its checksum (TensorFlow's record format)."""
    found = []
    for file in sorted((folder / "tensorboard").iterdir(), key=lambda file: file.stat().st_mtime_ns):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += length + 16
    return found


def scalars(folder):
    return [(event.step, value.tag, value.simple_value) for event in events(folder) for value in event.summary.value]


def test_steps_and_epochs(tmp_path):
    with open_log(tmp_path) as (log, training):
        take_step(log, training, 0.5)
        take_step(log, training, 1.0)
        assert [line["step"] for line in lines(tmp_path)] == [1], "one step behind"
        take_step(log, training, 1.5, saving=True)
    found = lines(tmp_path)
    assert [(line["step"], line["epoch"], line["loss"]) for line in found] == [(1, 1, 0.5), (2, 1, 1.0), (3, 2, 1.5)]
    for line in found:
        assert line["seconds"] > 0 and line["input_seconds"] == 0 and line["utterances_per_second"] == 3
        assert not line.keys() & COUNTS


def test_a_resumed_run_forgets_what_was_not_saved(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with open_log(tmp_path) as (log, training):
        for _ in range(3):
            take_step(log, training, 0.5, saving=True)
    with path.open("a") as file:
        file.write('{"step": 4, "epo')
    with open_log(tmp_path, step=2) as (log, training):
        take_step(log, training, 0.25, saving=True)
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 0.5), (2, 0.5), (3, 0.25)]


def test_tensorboard_shows_the_same(tmp_path):
    with open_log(tmp_path) as (log, training):
        take_step(log, training, 0.5, input_seconds=0.25, saving=True)
        assert (1, "train/loss", 0.5) in scalars(tmp_path), "on disk where a save follows"
        log.on_epoch(training, {"val_js": 0.125})
    (line, _), found = lines(tmp_path), scalars(tmp_path)
    assert {tag for _, tag, _ in found} == {
        "train/loss", "train/grad_norm", "speed/seconds", "speed/input_seconds", "speed/utterances_per_second",
        "validation/js",
    }  # fmt: skip
    assert (1, "validation/js", 0.125) in found
    assert dict((tag, value) for _, tag, value in found)["speed/seconds"] == pytest.approx(line["seconds"])


def test_tensorboard_hides_what_was_not_saved(tmp_path):
    """TensorBoard drops what lies at or after the step of a START that comes later."""
    for step, count in ((0, 3), (2, 1)):
        with open_log(tmp_path, step) as (log, training):
            for _ in range(count):
                take_step(log, training, 0.1, saving=True)
    starts = [event.step for event in events(tmp_path) if event.session_log.status == event.session_log.START]
    assert starts == [1, 3]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, loss):
    """The sentence names the step and some clips of its batch, the file all of them."""
    with open_log(tmp_path) as (log, training):
        take_step(log, training, 0.5)
        take_step(log, training, 0.5)
        with pytest.raises(UserError, match=r"not finite at step 3 \(epoch 2; clips 3-0, 3-1, 3-2 and 2 more, see "):
            take_step(log, training, loss, saving=True)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    said = json.loads((tmp_path / "not_finite.json").read_text())
    assert said["step"] == 3 and said["epoch"] == 2 and said["measured"]["loss"] == str(loss)
    assert [clip["utterance"] for clip in said["batch"]] == [f"3-{i}" for i in range(5)]
