"""The paper's head equals torch's layers, the readout equals numpy's statistics, and padding changes neither."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from aer_jax.models.audio_tower import masked_statistics
from aer_jax.models.emotion_head import PaperHead, ReadoutHead
from aer_jax.models.qwen2_audio import Features

H, K, TIME, LENGTHS = 32, 5, 13, (13, 4, 1, 9)


class TorchHead(torch.nn.Module):
    """The published head in torch's own layers, with a key-padding mask; evaluation mode."""

    def __init__(self):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(H, 8, batch_first=True)
        self.norm1, self.linear1 = torch.nn.LayerNorm(H), torch.nn.Linear(H, H)
        self.norm2, self.linear2 = torch.nn.LayerNorm(H), torch.nn.Linear(H, H // 2)
        self.norm3, self.linear3 = torch.nn.LayerNorm(H // 2), torch.nn.Linear(H // 2, K)

    def forward(self, x_bth, padding_bt):
        x_bth, _ = self.attention(x_bth, x_bth, x_bth, key_padding_mask=padding_bt)
        x_bh = x_bth[:, 0]
        x_bh = x_bh + torch.nn.functional.gelu(self.linear1(self.norm1(x_bh)))
        return self.linear3(self.norm3(torch.nn.functional.gelu(self.linear2(self.norm2(x_bh)))))


def torch_twin(head: PaperHead) -> TorchHead:
    """The same weights in torch."""
    twin = TorchHead().eval()

    def tensor(variable):
        return torch.from_numpy(np.array(variable[...]).T)

    projections = (head.q_proj, head.k_proj, head.v_proj)
    state = {
        "attention.in_proj_weight": torch.cat([tensor(p.kernel) for p in projections]),
        "attention.in_proj_bias": torch.cat([tensor(p.bias) for p in projections]),
        "attention.out_proj.weight": tensor(head.out_proj.kernel),
        "attention.out_proj.bias": tensor(head.out_proj.bias),
    }
    for i in (1, 2, 3):
        norm, linear = getattr(head, f"norm{i}"), getattr(head, f"linear{i}")
        state |= {f"norm{i}.weight": tensor(norm.scale), f"norm{i}.bias": tensor(norm.bias)}
        state |= {f"linear{i}.weight": tensor(linear.kernel), f"linear{i}.bias": tensor(linear.bias)}
    twin.load_state_dict(state)
    return twin


def randomised(head: nnx.Module) -> nnx.Module:
    """Every parameter moved away from its initial value."""
    state = nnx.state(head, nnx.Param)
    keys = iter(jax.random.split(jax.random.key(1), 99))
    nnx.update(head, jax.tree.map(lambda x: x + 0.2 * jax.random.normal(next(keys), x.shape), state))
    return head


@pytest.fixture
def paper_head():
    return randomised(PaperHead(H, K, rngs=nnx.Rngs(0)))


def features(garbage: float = 1.0, extra: int = 0) -> Features:
    """Rows of the same content whatever the amount and the content of the padding."""
    rng, noise = np.random.default_rng(0), np.random.default_rng(1)
    time = TIME + extra
    hidden_bth = garbage * noise.standard_normal((len(LENGTHS), time, H)).astype(np.float32)
    mask_bt = np.zeros((len(LENGTHS), time), bool)
    for b, length in enumerate(LENGTHS):
        hidden_bth[b, :length] = rng.standard_normal((length, H))
        mask_bt[b, :length] = True
    audio_lbe = rng.standard_normal((3, len(LENGTHS), 8)).astype(np.float32)
    return Features(jnp.asarray(hidden_bth), jnp.asarray(mask_bt), jnp.asarray(audio_lbe), jnp.zeros((0, H)))


def test_parity_paper_head(paper_head, parity):
    given = features()
    with torch.no_grad():
        padding_bt = torch.from_numpy(~np.asarray(given.mask_bt))
        theirs = torch_twin(paper_head)(torch.from_numpy(np.array(given.hidden_bth)), padding_bt).numpy()
    error = float(np.abs(paper_head(given) - theirs).max() / np.abs(theirs).max())
    parity("paper's head, against torch.nn layers", error, limit=1e-5)


@pytest.mark.parametrize("kind", ["paper", "readout"])
def test_padding_changes_nothing(kind, paper_head):
    head = paper_head if kind == "paper" else randomised(ReadoutHead(3 * 8, H, K, rngs=nnx.Rngs(0)))
    plain = np.asarray(head(features()))
    assert np.ptp(plain, axis=0).min() > 0.05, "the rows must differ for this test to see anything"
    for other in (features(garbage=1e3), features(garbage=1e3, extra=6)):
        np.testing.assert_allclose(head(other), plain, atol=1e-5)


def test_fresh_paper_head_is_drawn_as_torch_draws_it():
    """Same bounds as torch's layers of these sizes; biases of the attention are zero."""
    torch.manual_seed(0)
    seeds = range(20)  # a bias has few values: one draw's largest would say little
    ours = [torch_twin(PaperHead(H, K, rngs=nnx.Rngs(seed))).state_dict() for seed in seeds]
    theirs = [TorchHead().state_dict() for _ in seeds]
    for name in theirs[0]:
        mine, drawn = (max(float(head[name].abs().max()) for head in heads) for heads in (ours, theirs))
        assert mine == pytest.approx(drawn, rel=0.1), name


@pytest.mark.parametrize("kind", ["paper", "readout"])
def test_head_dropout_needs_a_key(kind, paper_head):
    head = paper_head if kind == "paper" else randomised(ReadoutHead(3 * 8, H, K, rngs=nnx.Rngs(0)))
    given = features()
    np.testing.assert_array_equal(head(given), head(given, None))
    one, two = head(given, jax.random.key(0)), head(given, jax.random.key(1))
    assert not np.allclose(one, two) and not np.allclose(one, head(given))
    np.testing.assert_array_equal(one, head(given, jax.random.key(0)))


def test_statistics_are_numpys_over_valid_frames():
    x_btd = np.random.default_rng(0).normal(3, 2, (4, 11, 6)).astype(np.float32)
    lengths_b = [11, 5, 2, 7]
    valid_bt1 = (np.arange(11) < np.array(lengths_b)[:, None])[..., None]
    ours = masked_statistics(jnp.asarray(x_btd), jnp.asarray(valid_bt1))
    theirs = [np.concatenate([x[:n].mean(0), x[:n].std(0)]) for x, n in zip(x_btd, lengths_b, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    garbage = masked_statistics(jnp.asarray(np.where(valid_bt1, x_btd, 1e6)), jnp.asarray(valid_bt1))
    np.testing.assert_array_equal(ours, garbage)


@pytest.mark.parametrize("frames", [0, 1])
def test_statistics_of_next_to_nothing_have_finite_gradients(frames):
    valid_bt1 = (jnp.arange(4) < frames)[None, :, None]
    value, gradient = jax.value_and_grad(lambda x: masked_statistics(x, valid_bt1).sum())(jnp.ones((1, 4, 2)))
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_readout_reads_layers_then_the_last_valid_state_standardised():
    head = ReadoutHead(3 * 8, H, K, rngs=nnx.Rngs(0))
    given = features()
    np.testing.assert_array_equal(head(given), np.zeros((len(LENGTHS), K)))
    inputs_be = np.asarray(head.inputs(given))
    for b, length in enumerate(LENGTHS):
        expected = np.concatenate([given.audio_lbe[:, b].ravel(), given.hidden_bth[b, length - 1]])
        np.testing.assert_array_equal(inputs_be[b], expected)

    head.mean[...], head.deviation[...] = jnp.asarray(inputs_be.mean(0)), jnp.asarray(inputs_be.std(0))
    head.linear.kernel[...] = jnp.ones((3 * 8 + H, K))
    z_be = (inputs_be - inputs_be.mean(0)) / inputs_be.std(0)
    expected_b = z_be[:, :24].sum(1) / 24**0.5 + z_be[:, 24:].sum(1) / H**0.5
    np.testing.assert_allclose(head(given), np.tile(expected_b[:, None], K), atol=1e-4)
