"""A plan as text, and a sweep as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aer_jax.chips import GIB
from aer_jax.files.tables import markdown_rows


def text(plan: Mapping[str, Any]) -> str:
    """What `plan.plan` returned, in lines."""
    return "\n\n".join("\n".join(part) for part in (_head(plan), _memory(plan), _step(plan), _moves(plan), _time(plan)))


def _head(plan: Mapping[str, Any]) -> Iterator[str]:
    settings = " ".join(plan["settings"])
    yield f"{plan['topology']}, {plan['chips']} chips: {plan['model']}, batch {plan['batch']}, {settings}"
    if plan["chosen"]:
        yield "  the mesh was left open and is chosen for this slice; train with the settings above"
    if plan["note"]:
        yield f"  note: {plan['note']}"


def _memory(plan: Mapping[str, Any]) -> Iterator[str]:
    yield f"memory of one chip, by {plan['by']}"
    for name, size in plan["memory"].items():
        yield f"  {name.replace('_', ' '):<24}{size / GIB:>9.2f} GiB"
    verdict = f"{plan['spare']:.0%} to spare" if plan["fits"] else "it does NOT fit"
    peak, hbm = plan["peak_hbm_bytes_per_chip"] / GIB, plan["hbm_bytes_per_chip"] / GIB
    yield f"  {'peak':<24}{peak:>9.2f} GiB of {hbm:.1f}: {verdict}"
    for advice in plan["advice"]:
        yield f"  would fit: {advice}"


def _step(plan: Mapping[str, Any]) -> Iterator[str]:
    yield "one step, all chips together"
    for shape in plan["shapes"]:
        share = f", {shape['batches']} batches per epoch" if shape["batches"] > 1 else ""
        yield (
            f"  {shape['seconds_of_audio']:.1f} s and {shape['tokens']} tokens after {shape['prefix_tokens']} common "
            f"ones{share}: {shape['flops'] / 1e12:,.0f} TFLOP with recomputation, {shape['flops_4n'] / 1e12:,.0f} by 4N"
        )


def _moves(plan: Mapping[str, Any]) -> Iterator[str]:
    yield "one chip moves in a step of the largest shape"
    yield f"  {'its memory':<24}{plan['hbm_traffic_bytes_per_chip'] / 1e9:>9.1f} GB, by arithmetic"
    if plan["collectives"] is None:
        yield f"  {'to other chips':<24}{plan['wire_bytes_per_chip'] / 1e9:>9.1f} GB, by arithmetic"
    for row in plan["collectives"] or []:
        yield f"  {row['kind']:<24}{row['wire'] / 1e9:>9.2f} GB sent, {row['count']} among {row['group']} chips"


def _time(plan: Mapping[str, Any]) -> Iterator[str]:
    seconds, shares = plan["seconds"], plan["assumed_efficiency"]
    yield (
        f"a roofline estimate, not a measurement; it assumes {shares['compute']:.0%} of peak FLOP/s, "
        f"{shares['hbm']:.0%} of memory and {shares['links']:.0%} of link bandwidth"
    )
    yield (
        f"  compute {seconds['compute']:.3f} s, memory {seconds['hbm']:.3f} s, links {seconds['links']:.3f} s: about "
        f"{seconds['step']:.2f} s per step, {plan['utterances_per_second']:.0f} utterances/s, MFU "
        f"{plan['mfu_4n']:.0%} (4N)"
    )
    yield f"  {plan['hours']:.1f} hours for {plan['hours_for']}"
    if plan["compiler"]:
        yield f"  (compiled in {plan['compiler']['seconds']:.0f} s)"


def table(plans: Sequence[Mapping[str, Any]]) -> str:
    """A sweep's plans, quickest first."""
    rows = []
    for plan in plans:
        data, fsdp, tensor, microbatch, remat = (setting.partition("=")[2] for setting in plan["settings"])
        rows.append(
            {
                "mesh": f"{data}x{fsdp}x{tensor}",
                "microbatch": microbatch,
                "remat": remat,
                "peak GiB": f"{plan['peak_hbm_bytes_per_chip'] / GIB:.2f}",
                "spare": f"{plan['spare']:.0%}",
                "s/step": f"{plan['seconds']['step']:.2f}",
                "utterances/s": f"{plan['utterances_per_second']:.0f}",
                "memory by": plan["by"],
            }
        )
    first = plans[0]
    run = f"{first['topology']}: {first['model']}, batch {first['batch']}"
    return f"{run}; mesh is data x fsdp x tensor; times are estimates\n\n{markdown_rows(rows)}"
