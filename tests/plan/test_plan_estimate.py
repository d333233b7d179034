"""What a chip holds by the sharding rules, against the published model's sizes written out."""

import dataclasses
import itertools
import json
import statistics
from pathlib import Path

import pytest

from aer_jax.base.lengths import SAMPLE_RATE, frame_count, token_count
from aer_jax.chips import CHIPS, GIB, parse_slice
from aer_jax.config import Config, LoraConfig, MeshConfig, ModelConfig, TrainConfig
from aer_jax.errors import UserError
from aer_jax.plan import roofline as rooflines
from aer_jax.plan.estimate import estimate
from aer_jax.plan.mesh_search import candidates, choose_mesh, complete_mesh, fitting, pareto
from aer_jax.plan.plan import plan
from aer_jax.plan.roofline import roofline
from aer_jax.plan.shapes import BatchShape, Work, work_of

RECORDS = Path(__file__).resolve().parents[2] / "docs/results"
SEVEN_B = Config(model=ModelConfig(dtype="bfloat16"), train=TrainConfig(batch=64, microbatch=16))
LONGEST = BatchShape(480000, 912)
WORK = Work([LONGEST], 8, None)
FLOPS = {"full": 2.7e15}

d, f, a, g, vocabulary, layers = 4096, 11008, 1280, 5120, 156032, 32
MATRICES = vocabulary * d + layers * (4 * d * d + 3 * d * f) + layers * (4 * a * a + 2 * a * g) + a * d
SMALL = layers * (3 * d + 2 * d) + d  # biases and norms of the language model
SMALL += layers * (4 * a + g + 4 * a) + 2 * a + d  # biases and norms of the tower, the projector's bias
SMALL += 3 * 128 * a + a + 3 * a * a + a + 1500 * a  # convolutions, positions
READOUT = 2 * layers * a + d
ADAPTER = 8 * (layers * 4 * 2 * d + layers * 3 * 2 * a)


def on(mesh: MeshConfig, **train) -> Config:
    return dataclasses.replace(SEVEN_B, mesh=mesh, train=dataclasses.replace(SEVEN_B.train, **train))


@pytest.mark.parametrize(("fsdp", "data"), [(1, 1), (16, 1), (4, 4)])
def test_sharded_sizes_are_those_of_the_published_model(fsdp, data):
    needs = estimate(on(MeshConfig(data, fsdp, 1)), LONGEST, 8)
    assert needs.weights == 2 * (MATRICES // fsdp + SMALL) + 4 * 2 * READOUT
    # A of q, k, v and B of o are divided along fsdp, with their other halves whole; the head stays whole.
    halves = ADAPTER // 2
    head = 8 * READOUT + 8
    assert needs.trainables == 4 * (halves // fsdp + halves + head)
    assert needs.optimizer == pytest.approx(2 * needs.trainables, abs=64)
    assert needs.inputs == 64 // (fsdp * data) * (480000 * 4 + 912 * 5 + 8 * 4 + 3 * 4)


def test_a_tensor_axis_divides_heads_and_widths_too():
    plain, divided = (estimate(on(MeshConfig(*mesh)), LONGEST, 8) for mesh in ((1, 4, 1), (1, 4, 4)))
    assert divided.weights == pytest.approx(plain.weights / 4, rel=0.05)
    assert plain.wire > 0 and divided.wire > 0


def test_what_moves_between_chips():
    """Each matrix of the layers is gathered forward and backward in every microbatch; gradients go around once."""
    needs = estimate(on(MeshConfig(1, 16, 1), microbatch=16), LONGEST, 8)
    gathered = 4 * 2 * 2 * (MATRICES - vocabulary * d - a * d) * 15 / 16
    assert needs.wire == pytest.approx(gathered, rel=0.01)
    assert estimate(on(MeshConfig(1, 16, 1), microbatch=64), LONGEST, 8).wire < 0.3 * needs.wire
    assert estimate(on(MeshConfig(1, 1, 1)), LONGEST, 8).wire == 0


def test_keeping_more_costs_more_memory():
    base = on(MeshConfig(1, 16, 1), microbatch=64)
    peaks = [
        estimate(dataclasses.replace(base, model=dataclasses.replace(base.model, remat=remat)), LONGEST, 8).peak
        for remat in ("full", "dots", "none")
    ]
    assert peaks[0] < 0.6 * peaks[1] < 0.6 * peaks[2]


def test_the_roofline_is_what_waits_its_largest_part_and_a_tenth_of_the_others():
    seconds = roofline(parse_slice("v5e:4x4"), 16 * 197e12 * 0.6 * 2, 819e9 * 0.8, 200e9 * 0.5, 0)
    assert seconds == pytest.approx({"compute": 2, "hbm": 1, "links": 1, "step": 2.2})
    waits = roofline(parse_slice("v5e:4x4"), 16 * 197e12 * 0.6 * 2, 819e9 * 0.8, 200e9 * 0.5, 100e9 * 0.5)
    assert waits["step"] == pytest.approx(0.5 + 2 + 0.1 + 0.05)


def test_on_a_gpu_computing_and_memory_add_up():
    seconds = roofline(parse_slice("h100:8"), 8 * 989e12 * 0.6 * 2, 3350e9 * 0.8, 450e9 * 0.5 * 2, 0)
    assert seconds == pytest.approx({"compute": 2, "hbm": 1, "links": 2, "step": 3.2})


@pytest.mark.parametrize(
    ("seconds", "tokens", "kernels", "record", "side"),
    [
        (2.90, 112, True, "train_h100", "ours"),
        (29.92, 768, True, "ablations_h100", "ours"),
        (29.92, 768, False, "ablations_h100", "attention by XLA"),
    ],
)
def test_steps_that_were_timed_on_one_h100(seconds, tokens, kernels, record, side, monkeypatch):
    """Their median times; in the first record three steps of four have this shape."""
    monkeypatch.setattr("aer_jax.plan.plan.has_compiler", lambda topology: False)  # by arithmetic
    traffic = rooflines.memory_traffic
    without = parse_slice("h100:2")  # several GPUs have no fused attention
    if not kernels:
        monkeypatch.setattr(rooflines, "memory_traffic", lambda _, config, needs: traffic(without, config, needs))
    made = json.loads((RECORDS / f"{record}.json").read_text())
    seen = statistics.median_low(made["sides"][side]["seconds"])
    model = ModelConfig(dtype="bfloat16", remat="dots", head="paper", lora=LoraConfig(dropout=0.0))
    train = TrainConfig(batch=made["batch"], microbatch=made["microbatch"])
    config = Config(model=model, train=train, mesh=MeshConfig(data=1, fsdp=-1))
    own = tokens - token_count(frame_count(round(seconds * SAMPLE_RATE)))
    planned = plan(config, "h100:1", seconds=seconds, prompt=own, prefix=106)
    assert planned["rows_per_chip"] == made["microbatch"] and planned["shapes"][0]["tokens"] == tokens
    assert planned["seconds"]["step"] == pytest.approx(seen, rel=0.03)


def test_slices():
    assert (parse_slice("v5p:2x2x4").chips, parse_slice(" V5E:8x16 ").chips, parse_slice("h100:8").chips) == (
        16,
        128,
        8,
    )
    assert str(parse_slice("v6e:4x4")) == "v6e:4x4" and not parse_slice("h200:4").is_tpu
    assert CHIPS["v5e"].hbm == 16 * GIB


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v5:4x4", 'no chip "v5"'),
        ("h10:8", 'Did you mean "h100"'),
        ("v5e:16", "for instance v5e:4x4"),
        ("v5p:4x4", "for instance v5p:2x2x4"),
        ("v5e", "is no slice"),
        ("v5e:0x4", "is no slice"),
        ("h100:64", "beyond one host"),
    ],
)
def test_a_slice_that_is_none_is_one_sentence(name, said):
    with pytest.raises(UserError, match=said) as caught:
        parse_slice(name)
    assert "\n" not in str(caught.value)


def test_mesh_and_batch_that_do_not_suit_a_slice():
    chips = parse_slice("v5e:4x4")
    assert complete_mesh(MeshConfig(1, -1, 2), chips) == MeshConfig(1, 8, 2)
    with pytest.raises(UserError, match="does not make the 16 chips of v5e:4x4"):
        complete_mesh(MeshConfig(1, 8, 1), chips)
    with pytest.raises(UserError, match=r"for instance train\.microbatch=16"):
        choose_mesh(on(MeshConfig(1, 16, 1), microbatch=8), chips, WORK, FLOPS)
    with pytest.raises(UserError, match="does not divide over any mesh"):
        choose_mesh(on(MeshConfig(), batch=7, microbatch=7), chips, WORK, FLOPS)
    with pytest.raises(UserError, match="at least one token"):
        work_of(SEVEN_B, 31.0, 60, 100)


def test_a_mesh_that_is_left_open_is_chosen_and_one_that_is_given_is_kept():
    chips = parse_slice("v5e:4x4")
    config, chosen = choose_mesh(on(MeshConfig(), microbatch=8), chips, WORK, FLOPS)
    assert chosen and config.mesh.fsdp > 1 and config.train.microbatch % 16 == 0
    given = on(MeshConfig(2, -1, 1), microbatch=16)
    config, chosen = choose_mesh(given, chips, WORK, FLOPS)
    assert not chosen and config.mesh == MeshConfig(2, 8, 1)


def test_candidates_keep_heads_whole_and_the_front_trades_time_for_memory():
    chips = parse_slice("v5e:4x4")
    found = candidates(SEVEN_B, chips, WORK, FLOPS)
    assert {c.config.mesh.tensor for c in found} == {1, 2, 4}  # 8 does not divide the tower's 20 heads
    assert all(c.config.train.batch % c.config.train.microbatch == 0 for c in found)
    assert 0 < len(fitting(found, chips)) < len(found)  # a whole 7B a chip leaves no room
    front = pareto(found)
    assert front[0] == found[0]
    assert all(q.seconds <= s.seconds and q.estimate.peak > s.estimate.peak for q, s in itertools.pairwise(front))
