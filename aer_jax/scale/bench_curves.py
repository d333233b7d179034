"""How cost grows: programs of ever larger work, compiled and never run, and the exponents that their costs follow.

What a program costs is what the compiler made of it: the operations of its matrix products, loops included, and the
bytes of its memory, both of one device. So the figures are the same on any machine and however busy it is. They are of
a CPU's program in float32, without the adapters' dropout; times and traffic of an accelerator they do not say.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from aer_jax.config import Config, to_yaml
from aer_jax.errors import UserError
from aer_jax.proxies.prompts import load_prompt
from aer_jax.scale.side import Side
from aer_jax.scale.tables import markdown

DEVICES = 8
COSTS = {"flops": "operations", "held": "held memory", "working": "working memory"}  # of one device
STEP = {"seconds": 5.0, "rows": 8, "data": 1, "fsdp": 1}
PROXIES = {"seconds": 5.0, "rows": 8, "labels": 8, "listeners": 5}


class Curve(NamedTuple):
    """What is made larger, and how quickly costs may follow.

    Attributes:
        axis: in words.
        work: every other size.
        points: what it takes the place of -> the sizes that it has.
        most: cost -> what its exponent must at most be.
        why: it must.
    """

    axis: str
    work: Mapping[str, float]
    name: str
    points: Sequence[float]
    most: Mapping[str, float]
    why: str


CURVES = {
    "seconds": Curve(
        "seconds of a clip", STEP, "seconds", (2.5, 5, 10, 20, 30), {"flops": 1.4, "working": 1.8},
        "a prompt is read however short the clip, so short ones grow by less than 1; attention, quadratic, bends the "
        "end upwards, and its scores are the working memory of long clips",
    ),
    "rows": Curve(
        "clips a microbatch", STEP, "rows", (4, 8, 16, 32), {"flops": 1.0, "working": 1.0},
        "each clip costs the same, and what all prompts begin with is read once",
    ),
    "labels": Curve(
        "labels", PROXIES, "labels", (4, 8, 16, 32), {"flops": 0.5, "working": 0.5},
        "one pass scores all of them: a label costs its own few tokens, not a prompt",
    ),
    "listeners": Curve(
        "listeners", PROXIES, "listeners", (1, 2, 5, 10, 20), {"flops": 0.9, "working": 0.1},
        "a clip is heard once, a persona is a prompt, and listeners that differ in temperature alone cost nothing",
    ),
    "data": Curve(
        "devices along data", STEP | {"rows": 32}, "data", (1, 2, 4, 8), {"flops": -0.9, "working": -0.6},
        "a device has its share of the clips, but reads the common beginning itself and holds all weights and the "
        "adapters' gradients",
    ),
    "fsdp": Curve(
        "devices along fsdp", STEP | {"rows": 32}, "fsdp", (1, 2, 4, 8), {"flops": -0.9, "held": -0.8},
        "as along data, and a device holds its share of the weights; one layer at a time is gathered, which is its "
        "working memory",
    ),
}  # fmt: skip


class TooSteep(UserError):
    """Costs grow more quickly than they may."""

    exit_code = 1


def bench_curves(config: Config, points: Mapping[str, Sequence[float]] | None = None) -> dict[str, Any]:
    """Compile the points of every curve and fit how costs grow.

    Args:
        config: model.checkpoint says the shapes, the published 7B's where it is empty; weights are not read.
        points: curve -> sizes, of CURVES by default.

    Returns:
        curves: name -> {axis, sizes, flops, held, working (of one device, bytes; one a size), exponent {cost: fitted
            by least squares between logarithms}, end {cost: between the last two sizes}, most, why}; and what they were
            compiled with.

    Raises:
        UserError: the checkpoint cannot be read.
    """
    lora = dataclasses.replace(config.model.lora, dropout=0.0)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="float32", lora=lora))
    points = points or {name: curve.points for name, curve in CURVES.items()}
    known: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(prefix="aer_jax_bench_") as folder:
        settings = Path(folder) / "config.yaml"
        settings.write_text(to_yaml(config))
        with Side("jax_curves", {"config": str(settings)}, _environment()) as side:
            bar = tqdm([(name, size) for name in points for size in points[name]], "bench curves", unit="program")
            for name, size in bar:
                work = request(name, size)
                if work not in known:
                    known[work] = side.ask(json.loads(work))
            versions = side.about["versions"]
    curves = {}
    for name, sizes in points.items():
        costs = {cost: [known[request(name, size)][cost] for size in sizes] for cost in COSTS}
        curves[name] = {
            "axis": CURVES[name].axis,
            "sizes": list(sizes),
            **costs,
            "exponent": {cost: exponent(sizes, values) for cost, values in costs.items()},
            "end": {cost: exponent(sizes[-2:], values[-2:]) for cost, values in costs.items()},
            "most": dict(CURVES[name].most),
            "why": CURVES[name].why,
        }
    checkpoint = config.model.checkpoint or "Qwen2-Audio-7B, its published shapes"
    return {"bench": "curves", "checkpoint": checkpoint, "versions": versions, "curves": curves}


def request(name: str, size: float) -> str:
    """What `jax_curves` is asked for one point, as JSON; listeners of one persona share their prompt."""
    curve = CURVES[name]
    work = {**curve.work, curve.name: size}
    if "listeners" in work:
        work["personas"] = min(work.pop("listeners"), len(load_prompt(["a label"]).personas))
    return json.dumps(work)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Of the power law that fits best: 1 is linear, 2 quadratic, 0 no growth."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def refuse_steep(result: dict[str, Any]) -> None:
    """Say which cost outgrows its bound.

    Raises:
        TooSteep: some does.
    """
    steep = [
        f"{COSTS[cost]} with {curve['axis']} by {curve['exponent'][cost]:.2f} (at most {most:g})"
        for curve in result["curves"].values()
        for cost, most in curve["most"].items()
        if not curve["exponent"][cost] <= most
    ]
    if steep:
        raise TooSteep(f"costs grow too quickly: {'; '.join(steep)}.")


def table(result: dict[str, Any]) -> str:
    """What `bench_curves` returned, as a table in Markdown, and in words."""
    rows = []
    for curve in result["curves"].values():
        sizes, costs = curve["sizes"], {}
        for cost, name in COSTS.items():
            most = f" (at most {curve['most'][cost]:g})" if cost in curve["most"] else ""
            costs[name] = f"{rounded(curve['exponent'][cost])}{most}"
        rows.append({"exponent along": f"{curve['axis']}, {sizes[0]:g} to {sizes[-1]:g}"} | costs)
    about = f"{result['checkpoint']}, compiled for a CPU and not run; costs of one device"
    return "\n".join([markdown(rows), "", about, "", *map(sentence, result["curves"].values())])


def sentence(curve: dict[str, Any]) -> str:
    """One curve in words."""
    flops, sizes = curve["flops"], curve["sizes"]
    said = ", ".join(
        f"{COSTS[cost]} {rounded(curve['exponent'][cost])} (at the end {rounded(curve['end'][cost])}, at most {most:g})"
        for cost, most in curve["most"].items()
    )
    times = f"{sizes[-1] / sizes[0]:g} times the {curve['axis']} cost {flops[-1] / flops[0]:.3g} times the operations"
    return f"- {times}; exponents: {said}. Why: {curve['why']}."


def rounded(value: float) -> str:
    """An exponent as it is shown."""
    return f"{round(value, 2) + 0.0:.2f}"  # no -0.00


def _environment() -> dict[str, str]:
    """Fake devices; code that never runs need not be fast, and a program from a cache says less of itself."""
    flags = [
        f"--xla_force_host_platform_device_count={DEVICES}",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
    return {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip(),
    }
