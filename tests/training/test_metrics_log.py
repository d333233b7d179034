"""The log of a run, also of one that was killed while it wrote."""

import json

import jax.numpy as jnp
import pytest
from tqdm import tqdm

from aer_jax.errors import UserError
from aer_jax.training.metrics_log import MetricsLog


def open_log(path, step=0):
    return MetricsLog(path, step, 2, tqdm(disable=True))


def measured(loss):
    return {"loss": jnp.float32(loss), "grad_norm": jnp.float32(1.0)}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_steps_and_epochs(tmp_path):
    with open_log(tmp_path / "log") as log:
        for step in (1, 2, 3):
            log.step(step, measured(0.5 * step), 0.0)
        assert [line["step"] for line in lines(tmp_path / "log")] == [1, 2], "one step behind"
        log.flush()
        log.flush()
    found = lines(tmp_path / "log")
    assert [(line["step"], line["epoch"], line["loss"]) for line in found] == [(1, 1, 0.5), (2, 1, 1.0), (3, 2, 1.5)]
    assert all(line["seconds"] >= 0 and line["input_seconds"] == 0 for line in found)


def test_a_resumed_run_forgets_what_was_not_saved(tmp_path):
    path = tmp_path / "log"
    with open_log(path) as log:
        for step in (1, 2, 3):
            log.write(step, loss=0.1)
    with path.open("a") as file:
        file.write('{"step": 4, "epo')
    with open_log(path, step=2) as log:
        log.write(3, loss=0.2)
    assert [(line["step"], line["loss"]) for line in lines(path)] == [(1, 0.1), (2, 0.1), (3, 0.2)]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, loss):
    with open_log(tmp_path / "log") as log:
        log.step(1, measured(0.5), 0.0)
        log.step(2, measured(loss), 0.0)
        with pytest.raises(UserError, match="not finite at step 2"):
            log.flush()
    assert [line["step"] for line in lines(tmp_path / "log")] == [1]
