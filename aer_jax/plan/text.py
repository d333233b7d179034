"""A plan for people, and a sweep as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aer_jax.chips import GIB


def text(plan: dict[str, Any]) -> str:
    """What `plan.plan` returned, in lines."""
    lines = [f"{plan['topology']}, {plan['chips']} chips: {plan['model']}, batch {plan['batch']}, {_settings(plan)}"]
    if plan["chosen"]:
        lines.append("  the mesh was left open and is chosen for this slice; train with the settings above")
    if plan["note"]:
        lines.append(f"  note: {plan['note']}")
    lines += ["", f"memory of one chip, by {plan['by']}"]
    lines += [f"  {name.replace('_', ' '):<24}{size / GIB:>9.2f} GiB" for name, size in plan["memory"].items()]
    verdict = f"{plan['spare']:.0%} to spare" if plan["fits"] else "it does NOT fit"
    peak, hbm = plan["peak_hbm_bytes_per_chip"] / GIB, plan["hbm_bytes_per_chip"] / GIB
    lines.append(f"  {'peak':<24}{peak:>9.2f} GiB of {hbm:.1f}: {verdict}")
    lines += [f"  would fit: {advice}" for advice in plan["advice"]]
    lines += ["", "one step, all chips together"]
    for shape in plan["shapes"]:
        share = f", {shape['batches']} batches an epoch" if shape["batches"] > 1 else ""
        lines.append(
            f"  {shape['seconds_of_audio']:.1f} s and {shape['tokens']} tokens after {shape['prefix_tokens']} common "
            f"ones{share}: {shape['flops'] / 1e12:,.0f} TFLOP with recomputation, {shape['flops_4n'] / 1e12:,.0f} by 4N"
        )
    lines += ["", "one chip moves in a step of the largest shape"]
    lines.append(f"  {'its memory':<24}{plan['hbm_traffic_bytes_per_chip'] / 1e9:>9.1f} GB, by arithmetic")
    if plan["collectives"] is None:
        lines.append(f"  {'to other chips':<24}{plan['wire_bytes_per_chip'] / 1e9:>9.1f} GB, by arithmetic")
    for row in plan["collectives"] or []:
        lines.append(f"  {row['kind']:<24}{row['wire'] / 1e9:>9.2f} GB sent, {row['count']} among {row['group']} chips")
    seconds, shares = plan["seconds"], plan["assumed_efficiency"]
    lines += [
        "",
        f"a roofline estimate, not a measurement; it assumes {shares['compute']:.0%} of peak FLOP/s, "
        f"{shares['hbm']:.0%} of memory and {shares['links']:.0%} of link bandwidth",
        f"  compute {seconds['compute']:.3f} s, memory {seconds['hbm']:.3f} s, links {seconds['links']:.3f} s: about "
        f"{seconds['step']:.2f} s a step, {plan['utterances_per_second']:.0f} utterances/s, MFU {plan['mfu_4n']:.0%} "
        "(4N)",
        f"  {plan['hours']:.1f} hours for {plan['hours_for']}",
    ]
    if plan["compiler"]:
        lines.append(f"  (compiled in {plan['compiler']['seconds']:.0f} s)")
    return "\n".join(lines)


def table(plans: Sequence[dict[str, Any]]) -> str:
    """A sweep's plans, quickest first."""
    head = f"{'mesh':<12}{'microbatch':>10}{'remat':>7}{'peak GiB':>10}{'spare':>7}{'s/step':>8}{'utt/s':>7}  by"
    rows = []
    for plan in plans:
        values = dict(setting.split("=") for setting in plan["settings"])
        mesh = "x".join(values[f"mesh.{axis}"] for axis in ("data", "fsdp", "tensor"))
        rows.append(
            f"{mesh:<12}{values['train.microbatch']:>10}{values['model.remat']:>7}"
            f"{plan['peak_hbm_bytes_per_chip'] / GIB:>10.2f}{plan['spare']:>7.0%}{plan['seconds']['step']:>8.2f}"
            f"{plan['utterances_per_second']:>7.0f}  {plan['by']}"
        )
    first = plans[0]
    return "\n".join(
        [
            f"{first['topology']}: {first['model']}, batch {first['batch']}; mesh is data x fsdp x tensor; seconds and "
            "utterances are estimates",
            head,
            *rows,
        ]
    )


def _settings(plan: dict[str, Any]) -> str:
    return " ".join(plan["settings"])
