"""How fast a step was, against what the chips can do."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from flax import nnx

from aer_jax.models.emotion_model import key_names

# Under which module a weight lies -> how often it is used for one mel frame and for one position of the prompt. The
# second convolution halves the frames, the pooling before the projector halves them again. First match wins.
USES = (
    ("audio_tower.conv1", (1.0, 0.0)),
    ("audio_tower", (0.5, 0.0)),
    ("multi_modal_projector", (0.25, 0.0)),
    ("language_model", (0.0, 1.0)),
)


# jax.Device.device_kind -> dense bfloat16 FLOP/s, as the makers publish them. TPUs: Google Cloud's pages of each
# version; a device is a chip. GPUs: NVIDIA's data sheets, without sparsity.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA GH200 480GB": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}


class Throughput:
    """Rates of a step from what it says that it has computed.

    The model's FLOPs are counted as 4 N D: two for each weight of the frozen base's linear maps and convolutions
    forward, two backward for the gradient of their input; the gradient of the weight itself, the other two of the
    usual 6 N D (Kaplan et al., 2020), is not computed where they are frozen. D counts real frames and positions, so
    padding lowers the utilisation. Attention scores, adapters and recomputation are left out.

    Args:
        frozen: the state with the base.
        devices: those that the step runs on.
    """

    def __init__(self, frozen: nnx.State, devices: list[jax.Device]):
        self.per_frame, self.per_token = flops_4n(frozen)
        self._local = [device for device in devices if device.process_index == jax.process_index()]
        self._peak = PEAK_FLOPS.get(devices[0].device_kind, 0.0) * len(devices)

    def __call__(self, counts: Mapping[str, float], seconds: float) -> dict[str, float]:
        """Rates over a step of so many seconds.

        Args:
            counts: `utterances`, `frames`, `tokens` that are no padding, and `padded_tokens`, with it.

        Returns:
            utterances, tokens, padded tokens and model FLOPs a second; mfu, the share of the chips' peak, and bytes of
            device memory in use, where they are known.
        """
        flops = self.per_frame * counts["frames"] + self.per_token * counts["tokens"]
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
        stats = [stats for device in self._local if (stats := device.memory_stats())]
        if not stats:
            return {}
        return {
            "hbm_bytes": max(each["bytes_in_use"] for each in stats),
            "hbm_peak_bytes": max(each.get("peak_bytes_in_use", 0) for each in stats),
        }


def flops_4n(frozen: nnx.State) -> tuple[float, float]:
    """FLOPs of forward and backward for one mel frame of audio and for one position of the prompt."""
    per_frame = per_token = 0.0
    for path, leaf in jax.tree.leaves_with_path(frozen):
        name = ".".join(key_names(path))
        if name.endswith(".kernel"):
            frames, tokens = next((uses for module, uses in USES if f".{module}." in f".{name}"), (0.0, 0.0))
            per_frame += 4 * frames * leaf.size
            per_token += 4 * tokens * leaf.size
    return per_frame, per_token
