"""A bfloat16 base, and float32 wherever rounding would be learnt or amplified.

What bfloat16 changes in the predictions of a model with pretrained weights is measured by

    pytest -m slow tests/parity/test_precision.py
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from our_model import load_ours, named_tensors, one_device, our_batch

from aer_jax.bench.workers.pytorch_model import PaperModel, paper_inputs
from aer_jax.config import TrainConfig
from aer_jax.data.prompt import PromptEncoder
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.models.adapters.lora import PRECISION
from aer_jax.models.emotion_head import HeadStatistics
from aer_jax.models.emotion_model import TRAINABLE
from aer_jax.models.language_model import rotary, rotate
from aer_jax.models.layers import LayerNorm, RMSNorm
from aer_jax.training import readout
from aer_jax.training.batch_prediction import compile_features, readout_inputs
from aer_jax.training.objective import objective
from aer_jax.training.optimizer import make_optimizer
from aer_jax.training.step import init_state, make_predict_step, model_batch, split_model

RANK = 5  # no other axis has this length, so it tells an adapter's products from the base's
ULP = 2.0**-7  # of bfloat16, which keeps eight bits
SENSITIVE = {"exp", "exp2", "log", "log1p", "cos", "sin", "rsqrt", "sqrt", "pow", "cumsum"}
# q, k, v, out, fc1, fc2 of a tower layer; q, k, v, o, gate, up, down of a decoder layer; the projector.
BASE_PRODUCTS = 6 + 7 + 1


def equations(jaxpr) -> Iterator:
    """Every equation of a program, those of scans, checkpoints and calls included."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in jax.tree.leaves(equation.params, is_leaf=is_program):
            if is_program(parameter):
                yield from equations(getattr(parameter, "jaxpr", parameter))


def is_program(value) -> bool:
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


def float_types(equation) -> set[str]:
    """Of an equation's inputs and outputs."""
    avals = [variable.aval for variable in (*equation.invars, *equation.outvars)]
    return {str(aval.dtype) for aval in avals if jnp.issubdtype(aval.dtype, jnp.floating)}


@pytest.fixture(scope="module", params=["paper", "readout"])
def model(request, tiny_checkpoint):
    return load_ours(tiny_checkpoint, 4, head=request.param, dtype="bfloat16", rank=RANK, dropout=0.2)


@pytest.fixture(scope="module")
def batch(tiny_checkpoint, toy_speech):
    speech = toy_speech.first(3)
    return our_batch(speech, PromptEncoder(tiny_checkpoint, speech.classes), range(3))


def test_parameters_gradients_and_moments(model, batch):
    parts = split_model(model)
    base = jax.tree.leaves(nnx.state(model, nnx.All(nnx.Param, nnx.Not(TRAINABLE))))
    assert {str(leaf.dtype) for leaf in base} == {"bfloat16"}
    loss = training_loss(parts, batch)
    gradient = jax.eval_shape(jax.grad(loss), parts.trainable, jax.random.key(0))
    moments = init_state(parts, make_optimizer(TrainConfig(), 10), one_device()).optimizer
    for what in (parts.trainable, gradient, moments):
        kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(what) if jnp.issubdtype(leaf.dtype, jnp.floating)}
        assert kinds == {"float32"}


def training_loss(parts, batch):
    """(trainables, key) -> the loss as the training step computes it."""

    def loss(trainable, key):
        logits_bk = nnx.merge(parts.graphdef, trainable, parts.frozen)(model_batch(batch), key)
        assert logits_bk.dtype == jnp.float32
        return objective(logits_bk, batch["target"], 0.08).mean()

    return loss


def test_softmax_norms_rope_loss_and_statistics_are_float32(model, batch):
    """Whatever divides, exponentiates or sums a softmax, a norm, an angle or the loss, from waveform to loss."""
    parts = split_model(model)
    program = jax.make_jaxpr(training_loss(parts, batch))(parts.trainable, jax.random.key(0))
    found = [equation for equation in equations(program.jaxpr) if equation.primitive.name in SENSITIVE]
    names = {equation.primitive.name for equation in found}
    assert {"exp", "log", "cos", "sin", "rsqrt"} <= names
    wrong = [
        f"{equation.primitive} {float_types(equation)}" for equation in found if "bfloat16" in float_types(equation)
    ]
    assert not wrong


def test_adapters_add_up_in_float32_the_head_is_and_the_base_is_bfloat16(model, batch):
    """Adapters forward and backward: float32 products by three of bfloat16 each, as exact as float32.

    Scores leave bfloat16 queries as float32.
    """
    parts = split_model(model)
    program = jax.make_jaxpr(jax.grad(training_loss(parts, batch)))(parts.trainable, jax.random.key(0))
    products = [e for e in equations(program.jaxpr) if e.primitive.name == "dot_general"]
    adapters = [e for e in products if any(RANK in v.aval.shape for v in (*e.invars, *e.outvars))]
    assert len(adapters) >= 6 * 7  # h, y, and the gradients of x, h, A and B at seven places
    for equation in adapters:
        assert float_types(equation) == {"float32"} and equation.params["precision"] == PRECISION

    forward = jax.make_jaxpr(lambda audio: model.features(model_batch(batch)._replace(audio=audio)))(batch["audio"])
    products = [e for e in equations(forward.jaxpr) if e.primitive.name == "dot_general"]
    kernels = [e for e in products if len(e.invars[1].aval.shape) == 2 and RANK not in e.invars[1].aval.shape]
    base = [e for e in kernels if float_types(e) == {"bfloat16"}]
    assert len(base) == BASE_PRODUCTS

    features = jax.eval_shape(model.features, model_batch(batch))
    assert features.hidden_bth.dtype == jnp.bfloat16 and features.audio_lbe.dtype == jnp.float32
    head = jax.make_jaxpr(lambda features: model.emotion_head(features))(features)
    products = [e for e in equations(head.jaxpr) if e.primitive.name == "dot_general"]
    assert products and all(float_types(e) == {"float32"} for e in products)


@pytest.mark.parametrize("norm", [LayerNorm(96), RMSNorm(96, 1e-6)], ids=["layer norm", "RMS norm"])
def test_a_norm_of_bfloat16_is_the_float64_one_rounded_once(norm):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(4, 1, (50, 96)), jnp.bfloat16)  # a mean well above the deviation: sums must not round
    scale = jnp.asarray(rng.uniform(0.5, 1.5, 96), jnp.bfloat16)
    norm.scale[...] = scale
    x64, scale64 = np.asarray(x, np.float64), np.asarray(scale, np.float64)
    if isinstance(norm, LayerNorm):
        exact = (x64 - x64.mean(1, keepdims=True)) / np.sqrt(x64.var(1, keepdims=True) + 1e-5) * scale64
    else:
        exact = x64 / np.sqrt(np.square(x64).mean(1, keepdims=True) + 1e-6) * scale64
    assert norm(x).dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(norm(x), np.float64), exact, rtol=0.501 * ULP, atol=1e-5)


def test_rotary_embeddings_of_bfloat16_are_the_float64_ones_rounded_once():
    """Also at a late position, where an angle in bfloat16 would be off by whole turns."""
    rng = np.random.default_rng(0)
    positions_bt = np.array([[0, 1, 300, 1999]])
    x_bthk = jnp.asarray(rng.standard_normal((1, 4, 2, 16)), jnp.bfloat16)
    angle_tk = positions_bt[0][:, None] * 10_000.0 ** -(np.arange(0, 16, 2) / 16)
    first, second = np.split(np.asarray(x_bthk, np.float64)[0], 2, axis=-1)
    cos, sin = np.cos(angle_tk)[:, None], np.sin(angle_tk)[:, None]
    exact_thk = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    ours = rotate(x_bthk, *rotary(jnp.asarray(positions_bt), 16, 10_000.0))
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(ours[0], np.float64), exact_thk, rtol=0.501 * ULP, atol=5e-4)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("tiny", "paper"),
        pytest.param("mini", "paper", marks=[pytest.mark.slow, pytest.mark.real]),
        pytest.param("mini", "readout", marks=[pytest.mark.slow, pytest.mark.real]),
    ],
)
def test_bfloat16_against_float32(name, head, request, best_speech, measured):
    """Divergence (base 2) between the predictions of the same adapters and head over either base."""
    checkpoint, clips = request.getfixturevalue(f"{name}_checkpoint"), 16
    speech = best_speech.first(clips)
    encoder = PromptEncoder(checkpoint, speech.classes)
    batches = [our_batch(speech, encoder, range(i, i + 4)) for i in range(0, clips, 4)]
    predictions, statistics = {}, None
    for dtype in ("float32", "bfloat16"):
        model = load_ours(checkpoint, len(speech.classes), head=head, dtype=dtype)
        if head == "readout":
            if statistics is None:
                inputs_of = compile_features(model, readout_inputs)
                readout.standardise(model.readout, np.concatenate([inputs_of(batch) for batch in batches]))
            statistics = statistics or nnx.state(model, HeadStatistics)
            nnx.update(model, statistics)
        parts = split_model(model)
        predict = make_predict_step(parts.graphdef)
        logits = [predict(parts.trainable, parts.frozen, batch) for batch in batches]
        predictions[dtype] = np.asarray(jax.nn.softmax(jnp.concatenate(logits)), np.float64)
    exact_nk, rounded_nk = predictions.values()
    js_n = js_divergence(rounded_nk, exact_nk)
    between_n = js_divergence(exact_nk, np.roll(exact_nk, 1, axis=0))
    measured(
        f"bfloat16 base against float32, {name} model, {head} head, {clips} {speech.name} clips: JS (base 2) "
        f"{js_n.mean():.1e} mean, {js_n.max():.1e} worst; between one clip and the next {between_n.mean():.1e}"
    )
    assert 0 < js_n.mean() < 0.04 * between_n.mean()


@pytest.mark.slow
@pytest.mark.real
def test_bfloat16_rounds_no_more_than_transformers_does(mini_checkpoint, real_speech, measured):
    """Hidden states of either implementation in bfloat16, adapters in float32, against transformers' in float32."""
    speech = real_speech.first(4)
    encoder = PromptEncoder(mini_checkpoint, speech.classes)
    batch = our_batch(speech, encoder, range(4))
    mask_bt = batch["token_mask"]
    model = load_ours(mini_checkpoint, len(speech.classes), dtype="bfloat16")
    features = nnx.jit(lambda model: model.features(model_batch(batch)))(model)
    ours_nh = np.asarray(features.hidden_bth, np.float64)[mask_bt]

    trainables = named_tensors(nnx.state(model, TRAINABLE))
    inputs = dict(paper_inputs(encoder.processor, [encoder.text(t, "") for t in speech.transcripts], speech.audio))
    theirs = PaperModel(mini_checkpoint, len(speech.classes), 8, 16.0, trainables).eval()
    exact_nh = valid_states(theirs, inputs)
    for name, parameter in theirs.named_parameters():
        if "lora" not in name:
            parameter.data = parameter.data.bfloat16()
    rounded_nh = valid_states(theirs, inputs | {"input_features": inputs["input_features"].bfloat16()})

    def error(states_nh):
        return np.linalg.norm(states_nh - exact_nh) / np.linalg.norm(exact_nh)

    measured(
        f"hidden states in bfloat16 against transformers' float32, mini model, {len(speech.audio)} {speech.name} "
        f"clips: ours {error(ours_nh):.2%}, transformers' own bfloat16 {error(rounded_nh):.2%}"
    )
    assert error(ours_nh) < 1.25 * error(rounded_nh)


def valid_states(model: PaperModel, inputs) -> np.ndarray:
    """PyTorch's last hidden states at valid positions, row after row, float64 [positions, hidden_size]."""
    with torch.no_grad():
        hidden_bth = model.hidden(inputs)
    return hidden_bth[inputs["attention_mask"].bool()].double().numpy()
