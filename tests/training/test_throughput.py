"""Rates and utilisation against counts by hand."""

from types import SimpleNamespace

import pytest
from toy_runs import CHECKPOINT

from aer_jax.base.config import read_config
from aer_jax.chips import CHIPS, chip_of
from aer_jax.training.throughput import Throughput

COUNTS = {"utterances": 8.0, "frames": 4000.0, "tokens": 900.0, "padded_tokens": 1000.0}
# The toy is 64 wide; 3 layers each; 2 of 4 heads hold keys and values; feed-forward 256 and 192.
FLOPS = 4 * (
    2000 * 3 * (4 * 64 * 64 + 2 * 64 * 256) + 1000 * 64 * 64 + 900 * 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 192)
)


def device(kind, memory=None, process=0):
    return SimpleNamespace(device_kind=kind, process_index=process, memory_stats=lambda: memory)


@pytest.fixture(scope="module")
def toy():
    return read_config(CHECKPOINT)


def test_rates(toy):
    """On a chip that nobody knows, and that tells nothing of its memory, no share of anything is given."""
    assert Throughput(toy, [device("cpu")])(COUNTS, 2.0) == {
        "utterances_per_second": 4,
        "tokens_per_second": 450,
        "padded_tokens_per_second": 500,
        "model_flops_per_second": pytest.approx(FLOPS / 2, rel=1e-3),
    }


def test_utilisation_and_memory(toy):
    """Of all chips; memory of the fullest one here."""
    stats = [{"bytes_in_use": 5, "peak_bytes_in_use": 9}, {"bytes_in_use": 7, "peak_bytes_in_use": 8}]
    chips = [device("TPU v5 lite", each) for each in stats]
    chips += [device("TPU v5 lite", {"bytes_in_use": 100}, process=1)] * 2
    rates = Throughput(toy, chips)(COUNTS, FLOPS / (4 * 197e12) / 0.4)
    assert rates["mfu"] == pytest.approx(0.4, rel=1e-3)
    assert rates["hbm_bytes"] == 7 and rates["hbm_peak_bytes"] == 9


def test_the_step_counts_what_is_real(kit, batch):
    """Fillers and padding are left out, whatever the microbatch."""
    batch = dict(batch, weight=batch["weight"].copy())
    batch["weight"][5:] = 0
    for microbatch in (4, 8):
        metrics = kit.step(batch, microbatch)[1]
        assert metrics["utterances"] == 5
        common = 8 // microbatch * len(batch["prefix"])
        assert common and metrics["tokens"] == batch["token_mask"][:5].sum() + common
        assert metrics["frames"] == sum(-(-int(n) // 160) for n in batch["audio_samples"][:5])
        assert metrics["padded_tokens"] == batch["token_mask"].size + common


def test_every_chip_is_found_by_what_jax_calls_it():
    assert all(chip_of(kind) == chip for chip in CHIPS.values() for kind in chip.device_kinds)
    assert chip_of("cpu") is None and all(chip.device_kinds for chip in CHIPS.values())
