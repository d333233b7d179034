"""Training utterances per second: the paper's code, an optimized PyTorch and aer_jax, side by side.

All start from the same checkpoint, adapters and head, train on the same clips in the same global batches, in the same
precision and without dropout. Their losses must agree, or nothing is reported.

A turn is several steps one after another, as in training, and its first is not timed: memory that a process gave back
while the others had their turn may have gone to other processes, and fetching it again took a step on the CPU as long
as the step itself.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from aer_jax.bench.ablations import ABLATIONS, ablations_of
from aer_jax.bench.driver import (
    AER_JAX,
    MEMORY,
    NAMES,
    PYTORCH,
    TOLERANCE,
    BenchWorker,
    check_agreement,
    facts,
    ratios,
    shared_files,
    show_error,
    speed_rows,
    take_turns,
)
from aer_jax.config import Config

TURNS, STEPS = 2, 2  # turns of each side, and timed steps of a turn


def bench_train(config: Config, steps: int = STEPS, ablations: bool = False) -> dict[str, Any]:
    """Time training steps on `config.data.dataset`.

    Args:
        config: of a run; what `comparable` says is changed.
        steps: how many are timed in each of `TURNS` turns, after one that is not.
        ablations: time aer_jax against itself with one optimization disabled at a time, instead of against PyTorch.

    Returns:
        sides: name -> {seconds: [one per step], cpu_seconds (of all cores; others on a busy machine lengthen it less),
            input_seconds, loss: [one per step], microbatch (PyTorch's may be smaller, where memory is short),
            utterances_per_second, tokens_per_second (of real tokens), computed_frames, computed_positions,
            padded_frames, padded_positions (shares of these), mfu (4N of the real frames and tokens that the side
            reads, a shared prefix once per microbatch, over the fastest matrix product that any side ran), mfu_whole
            (the same of whole prompts, read or not), peak_bytes, loss_error (worst relative difference from
            aer_jax's; None where dropout is drawn), compile_seconds}.
        ratio_to_paper_pytorch, ratio_to_careful_pytorch, ratio_to_cut_pytorch: of utterances per second; and
            cpu_ratio_...; absent with `ablations`.
        and what the bench was run on.

    Raises:
        UserError: there is too little data, or a package is missing.
        Disagreement: losses differ by more than `tolerance`.
    """
    config = comparable(config)
    ways, pytorch = (ablations_of(config.model.dtype), []) if ablations else ([AER_JAX], list(PYTORCH))
    turns = [list(range(turn * (1 + steps), (turn + 1) * (1 + steps))) for turn in range(TURNS)]
    answers, abouts = measure(config, ways, pytorch, turns)
    timed = [number for turn in turns for number in turn[1:]]
    peak = max(about["matmul_flops"] for about in abouts)
    needs, compile_seconds = abouts[0]["needs"], abouts[0]["compile_seconds"]
    done = {way: [step for turn in given for step in turn["steps"]] for way, given in answers.items()}
    sides = {way: figures(done[way], done[AER_JAX], needs, timed, peak, config.train.batch) for way in done}
    for way, side in sides.items():
        side["peak_bytes"] = None if ablations else max(turn["peak_bytes"] for turn in answers[way])
        if way in compile_seconds:
            side["compile_seconds"] = compile_seconds[way]
        if way in ABLATIONS and ABLATIONS[way].dropout:
            side["loss_error"] = None
    check_agreement("the losses", sides, "loss_error", TOLERANCE[config.model.dtype], NAMES)
    return {
        "bench": "ablations" if ablations else "train",
        **facts(config, abouts),
        "batch": config.train.batch,
        "microbatch": config.train.microbatch,
        "steps": len(timed),
        "clips": len(timed) * config.train.batch,
        **{name: sum(needs[number][name] for number in timed) for name in ("frames", "tokens")},
        "compiled_from_cache": abouts[0]["from_cache"],
        "matmul_flops": peak,
        "sides": sides,
        **({} if ablations else ratios(sides, "_pytorch")),
    }


def measure(
    config: Config, ways: Sequence[str], pytorch: Sequence[str], turns: Sequence[Sequence[int]]
) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    """What `take_turns` returns, of aer_jax's ways and of PyTorch's, each in a separate process."""
    with shared_files(config) as files:
        job = files | {"steps": sum(map(len, turns))}
        with BenchWorker("jax_train", job | {"ways": ways}, MEMORY) as worker:
            given = job | {name: worker.about[name] for name in ("clips", "rates", "lora", "classes")}

            def start(way: str) -> BenchWorker:
                return BenchWorker("pytorch_train", given | {"way": way})

            return take_turns(
                (worker, ways),
                [(functools.partial(start, way), [way]) for way in pytorch],
                lambda worker, way, turn: worker.ask({"way": way, "steps": turns[turn]}),
                len(turns),
                "bench train",
            )


def comparable(config: Config) -> Config:
    """The settings restricted to what all sides support.

    The paper's head learns at the adapters' rate: the readout's suits a linear layer, and a loss that runs away differs
    between any two programs.
    """
    lora = dataclasses.replace(config.model.lora, dropout=0.0)
    mixes = dataclasses.replace(config.data.dime_aug, ratio=0.0)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, head="paper", lora=lora),
        data=dataclasses.replace(config.data, augment=0.0, dime_aug=mixes),
        train=dataclasses.replace(config.train, head_lr=config.train.lr),
    )


def figures(
    steps: Sequence[Mapping[str, Any]],
    reference: Sequence[Mapping[str, Any]],
    needs: Sequence[Mapping[str, int]],
    timed: Sequence[int],
    peak: float,
    batch: int,
) -> dict[str, Any]:
    """One side's figures: times of the timed steps, losses of all steps."""
    chosen = [steps[number] for number in timed]
    seconds = sum(step["seconds"] for step in chosen)
    need = {name: sum(needs[number][name] for number in timed) for name in needs[0]}
    computed = {name: sum(step[name] for step in chosen) for name in ("frames", "positions")}
    spared = sum(step.get("spared_flops", 0) for step in chosen)  # PyTorch spares none
    return {
        **{name: [step[name] for step in chosen] for name in ("seconds", "cpu_seconds", "input_seconds")},
        "loss": [step["loss"] for step in steps],
        "loss_error": max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(steps, reference, strict=True)),
        "microbatch": chosen[-1]["microbatch"],
        "utterances_per_second": len(chosen) * batch / seconds,
        "tokens_per_second": need["tokens"] / seconds,
        **{f"padded_{name}": sum(step[f"padded_{name}"] for step in chosen) / size for name, size in computed.items()},
        **{f"computed_{name}": size for name, size in computed.items()},
        "mfu": (need["flops"] - spared) / seconds / peak,
        "mfu_whole": need["flops"] / seconds / peak,
    }


def table(result: Mapping[str, Any]) -> tuple[list[dict[str, str]], str]:
    """Rows and a note of what `bench_train` returned."""
    sides = result["sides"]

    def compile_seconds(side: Mapping[str, Any]) -> str:
        seconds = sum(side.get("compile_seconds", {}).values())
        return f"{seconds:.0f}" if seconds else ""

    def clips(side: Mapping[str, Any]) -> str:
        return str(side.get("microbatch", result["microbatch"]))

    columns = {
        "real tokens/s": lambda side: f"{side['tokens_per_second']:.0f}",
        "clips at a time": clips,
        "padded frames": lambda side: f"{side['padded_frames']:.0%}",
        "padded positions": lambda side: f"{side['padded_positions']:.0%}",
        "MFU": lambda side: f"{side['mfu']:.0%}",
        "MFU of whole prompts": lambda side: f"{side['mfu_whole']:.0%}",
        "peak memory, GB": lambda side: f"{side['peak_bytes'] / 1e9:.1f}" if side["peak_bytes"] else "",
        "compile, s": compile_seconds,
        "loss differs by": show_error("loss_error"),
    }
    if result["bench"] == "ablations":
        del columns["peak memory, GB"]
    if len(set(map(clips, sides.values()))) == 1:
        del columns["clips at a time"]
    cached = ", compiled before" if result["compiled_from_cache"] else ""
    note = (
        f"{result['steps']} steps of {result['batch']} clips, {result['microbatch']} at a time, {result['dtype']}, on "
        f"{result['device']}; aer_jax in {len(sides[AER_JAX]['compile_seconds'])} shape(s){cached}; the fastest matrix "
        f"product reached {result['matmul_flops'] / 1e9:,.0f} GFLOP/s"
    )
    return speed_rows(sides, NAMES, columns), note
