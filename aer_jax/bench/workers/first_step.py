"""A training run up to its first step, for `bench_start`; its answer to the job is where the time went."""

from __future__ import annotations

import time
from typing import Any

from aer_jax.config import load_config
from aer_jax.jax_setup import start_jax
from aer_jax.worker_process import serve

COMPILES = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    seconds = {"python": time.time() - job["started"], "compile": 0.0}
    config = load_config(None, job["settings"])
    start_jax()
    import jax

    from aer_jax.training.hooks.hook import Hook
    from aer_jax.training.trainer import Training, train

    imported = time.time()
    seconds["import"] = imported - job["started"] - seconds["python"]

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith(COMPILES):
            seconds["compile"] += duration_secs

    class FirstStep(Hook):
        """Times the run's start and first step, which it makes the last."""

        def on_start(self, training: Training) -> None:
            seconds["setup"] = time.time() - imported - seconds["compile"]
            self._begin = time.time()

        def on_epoch(self, training: Training, losses: Any) -> None:
            self._begin = time.time()

        def on_step(self, training: Training) -> None:
            jax.block_until_ready(training.metrics)
            seconds["step"] = time.time() - self._begin
            seconds["all"] = time.time() - job["started"]
            training.converged = True

    jax.monitoring.register_event_duration_secs_listener(listen)
    train(config, hooks=[FirstStep()])
    return seconds, lambda _: {}


if __name__ == "__main__":
    serve(start)
