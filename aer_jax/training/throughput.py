"""Throughput of a step: rates, model FLOP utilisation and device memory."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from aer_jax.chips import chip_of
from aer_jax.models.flops import model_flops


class Throughput:
    """Rates of a step from its counts.

    Operations are counted as 4 N D, see `flops.model_flops`, with D the real frames and positions: padding lowers the
    utilisation.

    Args:
        base_config: transformers' Qwen2AudioConfig.
        devices: of the mesh.
    """

    def __init__(self, base_config, devices: list[jax.Device]):
        self._base_config = base_config
        self._local = [device for device in devices if device.process_index == jax.process_index()]
        chip = chip_of(devices[0].device_kind)
        self._peak = len(devices) * chip.flops if chip else None

    def __call__(self, counts: Mapping[str, float], seconds: float) -> dict[str, float]:
        """Rates of a step.

        Args:
            counts: `utterances`, `frames`, `tokens` without padding, and `padded_tokens`, with it.
            seconds: it took.

        Returns:
            utterances, tokens, padded tokens and model FLOPs a second; mfu, their share of the chips' dense bfloat16
            peak, and bytes of the fullest local device's memory, now and at most, where they are known.
        """
        flops = model_flops(self._base_config, int(counts["frames"]), int(counts["tokens"]))
        rates = {
            "utterances_per_second": round(counts["utterances"] / seconds, 2),
            "tokens_per_second": round(counts["tokens"] / seconds, 1),
            "padded_tokens_per_second": round(counts["padded_tokens"] / seconds, 1),
            "model_flops_per_second": float(f"{flops / seconds:.4g}"),
        }
        if self._peak:
            rates["mfu"] = round(flops / seconds / self._peak, 4)
        return rates | self._memory()

    def _memory(self) -> dict[str, int]:
        devices = [stats for device in self._local if (stats := device.memory_stats())]
        if not devices:
            return {}
        return {
            "hbm_bytes": max(stats["bytes_in_use"] for stats in devices),
            "hbm_peak_bytes": max(stats.get("peak_bytes_in_use", 0) for stats in devices),
        }
