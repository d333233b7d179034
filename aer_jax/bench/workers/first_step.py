"""A training run up to its first step, in a process of its own that `bench_start` starts, and where its time went.

python -m aer_jax.bench.workers.first_step BEGUN key=value ...: BEGUN is the time at which the process was started.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

COMPILES = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")


class FirstStep(Exception):
    """It is done."""


def main() -> None:
    begun, settings = float(sys.argv[1]), sys.argv[2:]
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    seconds: dict[str, float] = defaultdict(float)
    seconds["python"] = time.time() - begun

    from aer_jax.config import load_config
    from aer_jax.jax_setup import start_jax

    config = load_config(None, settings)
    start_jax()
    import jax

    from aer_jax.training import setup
    from aer_jax.training import trainer as loop

    seconds["import"] = time.time() - begun - seconds["python"]

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith(COMPILES):
            seconds["compile"] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)

    def timed(function: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            compiled, start = seconds["compile"], time.time()
            result = function(*args, **kwargs)
            seconds["load"] += time.time() - start - (seconds["compile"] - compiled)
            return result

        return call

    def stopping(make: Callable) -> Callable:
        def make_and_stop(*args: Any, **kwargs: Any) -> Callable:
            step = make(*args, **kwargs)

            def first(*inputs: Any) -> Any:
                compiled, start = seconds["compile"], time.time()
                jax.block_until_ready(step(*inputs))
                seconds["step"] = time.time() - start - (seconds["compile"] - compiled)
                raise FirstStep

            return first

        return make_and_stop

    setup.load_model, loop.compile_ahead = timed(setup.load_model), stopping(loop.compile_ahead)
    try:
        loop.train(config)
    except FirstStep:
        seconds["all"] = time.time() - begun
        pipe.write(json.dumps(seconds) + "\n")
        pipe.flush()
        os._exit(0)  # threads of a run that was torn away


if __name__ == "__main__":
    main()
