"""Training utterances a second: the paper's way in PyTorch, a careful PyTorch, and ours, side by side.

All start from the same checkpoint, adapters and head, hear the same clips in the same global batches, in the same
precision and without dropout. Their losses must agree, or nothing is reported.

On CPUs they take turns. A turn is several steps one after another, as in training, and its first is not timed: memory
that a process gave back while the others had their turn may have gone to other processes, or to the host of a virtual
machine, and fetching it again took our step on the CPU as long as the step itself. An accelerator has no room for all
the models: there a side has all its turns in a row, and ends before the next one loads.
"""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aer_jax.base.hub import find_checkpoint
from aer_jax.bench.ablations import OURS, VARIANTS
from aer_jax.bench.driver import MEMORY, BenchWorker
from aer_jax.bench.tables import markdown
from aer_jax.config import Config, to_yaml
from aer_jax.data.dataset import open_dataset
from aer_jax.errors import UserError

TURNS, STEPS = 2, 2  # turns of each side, and timed steps of a turn
PYTORCH = {
    "paper": "PyTorch, the paper's way",
    "careful": "PyTorch, careful",
    "cut": "PyTorch, careful, transformers' 30 s cut open",
}
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of a step's loss, relative


class Disagreement(UserError):
    """Two sides computed different things from the same clips: none of the times counts."""

    exit_code = 1


def bench_train(config: Config, steps: int = STEPS, ablations: bool = False) -> dict[str, Any]:
    """Time training steps on `config.data.dataset`.

    Args:
        config: of a run; what `comparable` says is changed.
        steps: how many are timed in each of `TURNS` turns, after one that is not.
        ablations: time ours against itself with one of its means undone at a time, instead of against PyTorch.

    Returns:
        sides: name -> {seconds: [one a step], cpu_seconds (of all cores; others on a busy machine lengthen it less),
            input_seconds, loss: [one a step], microbatch (PyTorch's may be smaller, where memory is short),
            utterances_per_second, tokens_per_second (of real tokens), computed_frames, computed_positions,
            padded_frames, padded_positions (shares of these), mfu (4N of the real frames and tokens that the side
            reads, a shared prefix once a microbatch, of the fastest matrix product that any side ran), mfu_whole (the
            same of whole prompts, read or not), peak_bytes, loss_error (worst relative difference from ours; None
            where dropout is drawn), compile_seconds}.
        ratio_to_paper_pytorch, ratio_to_careful_pytorch, ratio_to_cut_pytorch: of utterances a second; and
            cpu_ratio_...; absent with `ablations`.
        and what the bench was run on.

    Raises:
        UserError: there is too little data, or a package is missing.
        Disagreement: losses differ by more than `tolerance`.
    """
    config = comparable(config)
    undone = [name for name, variant in VARIANTS.items() if variant.kernels or config.model.dtype == "bfloat16"]
    variants = undone if ablations else [OURS]
    turns = [range(first, first + 1 + steps) for first in range(0, TURNS * (1 + steps), 1 + steps)]
    timed = [number for turn in turns for number in turn[1:]]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aer_jax_bench_")))
        (folder / "config.yaml").write_text(to_yaml(config))
        job: dict[str, Any] = {
            "config": str(folder / "config.yaml"),
            "trainables": str(folder / "trainables.safetensors"),
            "steps": TURNS * (1 + steps),
        }
        bar = stack.enter_context(tqdm(desc="bench train", unit="step"))
        ours = stack.enter_context(BenchWorker("jax_train", job | {"variants": variants}, MEMORY))
        pytorch = [] if ablations else list(PYTORCH)
        bar.reset(job["steps"] * len([*variants, *pytorch]))

        def start(how: str) -> BenchWorker:
            settings = ("weight_decay", "clip_norm", "entropy_weight", "microbatch")
            return BenchWorker(
                "pytorch_train",
                job
                | {
                    "how": how,
                    "checkpoint": str(find_checkpoint(config.model.checkpoint)),
                    "dataset": config.data.dataset,
                    "max_seconds": config.data.max_seconds,
                    "dtype": config.model.dtype,
                    **{name: getattr(config.train, name) for name in settings},
                    **{name: ours.about[name] for name in ("rates", "lora", "classes")},
                    "steps": ours.about["clips"],
                },
            )

        one_by_one = [variants, *([how] for how in pytorch)]
        at_once = [[*variants, *pytorch]]
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in at_once[0]}
        abouts: dict[str, dict[str, Any]] = {}
        memory: dict[str, int] = {}
        for names in at_once if ours.about["device"] == "cpu" else one_by_one:
            with ExitStack() as alive:
                sides = {name: ours if name in variants else alive.enter_context(start(name)) for name in names}
                for turn in turns:
                    for name, side in sides.items():
                        for number in turn:
                            then = number + 1 if number + 1 in turn else None
                            question = {"variant": name, "step": number, "then": then} if side is ours else number
                            answers[name].append(side.ask(question))
                            bar.set_postfix_str(f"{name}: {answers[name][-1]['seconds']:.2f} s", refresh=False)
                            bar.update()
                for name, side in sides.items():
                    abouts[name], memory[name] = side.about, side.ask("memory")["peak_bytes"]
            ours.close()
        peak = max(about["matmul_flops"] for about in abouts.values())
        rows = {
            name: row(answers[name], answers[OURS], ours.about["needs"], timed, peak, config.train.batch)
            for name in answers
        }
        for name, each in rows.items():
            each["peak_bytes"] = None if ablations else memory[name]
        for name in variants:
            rows[name]["compile_seconds"] = ours.about["compile_seconds"][name]
            if VARIANTS[name].dropout:
                rows[name]["loss_error"] = None
        tolerance = TOLERANCE[config.model.dtype]
        refuse_disagreement(rows, tolerance)
        result = {
            "bench": "ablations" if ablations else "train",
            "checkpoint": config.model.checkpoint,
            "dataset": str(open_dataset(config.data.dataset).path),
            "dtype": config.model.dtype,
            "batch": config.train.batch,
            "microbatch": config.train.microbatch,
            "steps": len(timed),
            "clips": len(timed) * config.train.batch,
            "frames": sum(ours.about["needs"][number]["frames"] for number in timed),
            "tokens": sum(ours.about["needs"][number]["tokens"] for number in timed),
            "device": ours.about["device"],
            "compiled_from_cache": ours.about["from_cache"],
            "matmul_flops": peak,
            "versions": {k: v for about in abouts.values() for k, v in about["versions"].items()},
            "tolerance": tolerance,
            "sides": rows,
        }
    if not ablations:
        for how in PYTORCH:
            result[f"ratio_to_{how}_pytorch"] = ratio(rows[how], rows[OURS], "seconds")
            result[f"cpu_ratio_to_{how}_pytorch"] = ratio(rows[how], rows[OURS], "cpu_seconds")
    return result


def ratio(theirs: dict[str, Any], ours: dict[str, Any], of: str) -> float:
    """How many times as long they take."""
    return sum(theirs[of]) / sum(ours[of])


def comparable(config: Config) -> Config:
    """The settings with what all sides can do alike.

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


def row(
    answers: list, ours: list, needs: list[dict[str, int]], which: list[int], peak: float, batch: int
) -> dict[str, Any]:
    """One side's figures, of the steps in `which`; the losses of all steps."""
    timed = [answers[number] for number in which]
    seconds = sum(answer["seconds"] for answer in timed)
    computed = {name: sum(answer[name] for answer in timed) for name in ("frames", "positions")}
    padded = {name: sum(answer[f"padded_{name}"] for answer in timed) for name in computed}
    need = {name: sum(needs[number][name] for number in which) for name in needs[0]}
    spared = sum(answer.get("spared_flops", 0) for answer in timed)  # PyTorch spares none
    errors = [abs(a["loss"] / b["loss"] - 1) for a, b in zip(answers, ours, strict=True)]
    return {
        "seconds": [answer["seconds"] for answer in timed],
        "cpu_seconds": [answer["cpu_seconds"] for answer in timed],
        "input_seconds": [answer["input_seconds"] for answer in timed],
        "loss": [answer["loss"] for answer in answers],
        "loss_error": max(errors),
        "microbatch": timed[-1]["microbatch"],
        "utterances_per_second": len(timed) * batch / seconds,
        "tokens_per_second": need["tokens"] / seconds,
        **{f"padded_{name}": padded[name] / computed[name] for name in computed},
        **{f"computed_{name}": computed[name] for name in computed},
        "mfu": (need["flops"] - spared) / seconds / peak,
        "mfu_whole": need["flops"] / seconds / peak,
    }


def refuse_disagreement(rows: dict[str, dict[str, Any]], tolerance: float) -> None:
    """Times of sides that do not compute the same are not shown."""
    for name, each in rows.items():
        if each["loss_error"] is not None and not each["loss_error"] <= tolerance:
            raise Disagreement(
                f"the losses of {PYTORCH.get(name, name)} differ from ours by {each['loss_error']:.1e} (relative; "
                f"{tolerance:.0e} is allowed), so no time is reported: {each['loss']}"
            )


def table(result: dict[str, Any]) -> str:
    """What `bench_train` returned, as a table in Markdown."""
    ours = result["sides"][OURS]
    rows = []
    for name, side in result["sides"].items():
        agreement = "" if name == OURS else "-" if side["loss_error"] is None else f"{side['loss_error']:.0e}"
        compile_seconds = sum(side.get("compile_seconds", {}).values())
        rows.append(
            {
                "": PYTORCH.get(name, name),
                "utterances/s": f"{side['utterances_per_second']:.2f}",
                "ours is faster by": f"{ratio(side, ours, 'seconds'):.2f}",
                "by processor time": f"{ratio(side, ours, 'cpu_seconds'):.2f}",
                "real tokens/s": f"{side['tokens_per_second']:.0f}",
                "clips at a time": str(side.get("microbatch", result["microbatch"])),
                "padded frames": f"{side['padded_frames']:.0%}",
                "padded positions": f"{side['padded_positions']:.0%}",
                "MFU": f"{side['mfu']:.0%}",
                "of whole prompts": f"{side['mfu_whole']:.0%}",
                "peak memory, GB": f"{side['peak_bytes'] / 1e9:.1f}" if side["peak_bytes"] else "",
                "compile, s": f"{compile_seconds:.0f}" if compile_seconds else "",
                "loss differs by": agreement,
            }
        )
    hidden = {"peak memory, GB"} if result["bench"] == "ablations" else set()
    if len({each["clips at a time"] for each in rows}) == 1:
        hidden.add("clips at a time")
    rows = [{name: value for name, value in each.items() if name not in hidden} for each in rows]
    shapes = f"{len(ours['compile_seconds'])} shape(s){', compiled before' if result['compiled_from_cache'] else ''}"
    return (
        f"{markdown(rows)}\n\n{result['steps']} steps of {result['batch']} clips, {result['microbatch']} at a time, "
        f"{result['dtype']}, on {result['device']}; ours in {shapes}; the fastest matrix product reached "
        f"{result['matmul_flops'] / 1e9:,.0f} GFLOP/s"
    )
