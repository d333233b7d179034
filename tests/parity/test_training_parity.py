"""Loss, gradients and twenty optimizer steps equal those of the paper's model in PyTorch, in float32.

On a tiny random model in CI. With pretrained weights (184 M), some minutes on two cores:

    pytest -m slow tests/parity/test_training_parity.py
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from our_model import load_ours, named_tensors, one_device, our_batch
from paper_training import PaperTraining
from tqdm import tqdm
from transformers import Trainer

from aer_jax.bench.workers.pytorch_model import PaperModel, paper_inputs, paper_loss
from aer_jax.config import TrainConfig
from aer_jax.data.prompt import PromptEncoder
from aer_jax.training.objective import objective
from aer_jax.training.optimizer import decays, make_optimizer, schedule
from aer_jax.training.step import init_state, make_train_step, model_batch, split_model, to_device

LIMIT = 1e-3
ENTROPY_WEIGHT = 0.08
# A shift of every key moves no softmax: this bias has the gradient 0, and what is computed is rounding.
NO_GRADIENT = "emotion_head.k_proj.bias"
# Of adapters and head: much, but not so much that a prediction hardens and its gradient dies.
RATES = {"tiny": (5e-4, 1e-3), "mini": (2e-5, 4e-5)}


@pytest.fixture(
    scope="session",
    params=["tiny", pytest.param("mini", marks=[pytest.mark.slow, pytest.mark.real])],
)
def checkpoint(request):
    """A tiny random model, or pretrained weights."""
    return request.getfixturevalue(f"{request.param}_checkpoint")


def relative_errors(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """|ours - theirs| / |theirs| of each tensor, Euclidean norms."""
    assert ours.keys() == theirs.keys()
    return {name: float(np.linalg.norm(ours[name] - b) / np.linalg.norm(b)) for name, b in theirs.items()}


def name_of(request) -> str:
    """Of the checkpoint that a test was given."""
    return request.node.callspec.params["checkpoint"]


def worst(errors: dict[str, float]) -> str:
    """The largest error and whose it is."""
    name = max(errors, key=errors.get)
    return f"{errors[name]:.1e} ({name.removeprefix('adapted.base_model.model.model.').replace('.default', '')})"


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("corpus", [pytest.param("real", marks=pytest.mark.real), "toy"])
def test_loss_and_every_gradient(checkpoint, corpus, request, measured):
    speech = request.getfixturevalue(f"{corpus}_speech").first(6)
    encoder = PromptEncoder(checkpoint, speech.classes)
    model = load_ours(checkpoint, len(speech.classes))
    graphdef, trainable, frozen = split_model(model)
    theirs = PaperModel(checkpoint, len(speech.classes), 8, 16.0, named_tensors(trainable)).train()
    batch = our_batch(speech, encoder, range(len(speech.audio)), encoder.prefix)

    def loss(trainable):
        logits_bk = nnx.merge(graphdef, trainable, frozen)(model_batch(batch))
        return objective(logits_bk, batch["target"], ENTROPY_WEIGHT).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(trainable)
    texts = [encoder.text(words, "") for words in speech.transcripts]
    their_value = paper_loss(
        theirs(paper_inputs(encoder.processor, texts, speech.audio)),
        torch.from_numpy(batch["target"]),
        ENTROPY_WEIGHT,
    )
    their_value.backward()

    ours_g, theirs_g = named_tensors(gradient), arrays(theirs.named_tensors(gradients=True))
    whole = np.sqrt(sum(np.square(g).sum() for g in theirs_g.values()))
    for gradients in (ours_g, theirs_g):
        assert np.linalg.norm(gradients.pop(NO_GRADIENT)) < 1e-5 * whole
    smallest = min(np.linalg.norm(g) for g in theirs_g.values()) / whole
    loss_error, errors = abs(float(value) / their_value.item() - 1), relative_errors(ours_g, theirs_g)
    measured(
        f"loss and gradients, {name_of(request)} model, {len(speech.audio)} {speech.name} clips: loss "
        f"{float(value):.4f}, relative error {loss_error:.1e}; {len(errors)} gradients, worst {worst(errors)}, "
        f"median {np.median(list(errors.values())):.1e}"
    )
    assert smallest > 0
    assert loss_error <= LIMIT
    assert max(errors.values()) <= LIMIT


def test_weight_decay_is_where_transformers_trainer_has_it(tiny_checkpoint):
    parts = split_model(load_ours(tiny_checkpoint, 4))
    theirs = PaperModel(tiny_checkpoint, 4, 8, 16.0, named_tensors(parts.trainable))
    # The attention's packed projection has one entry there and three here.
    names = set(Trainer.get_decay_parameter_names(None, theirs)) & set(theirs.trained())
    packed = "emotion_head.attention.in_proj_weight"
    expected = {name.replace(".attention.out_proj.", ".out_proj.") for name in names - {packed}}
    expected |= {f"emotion_head.{part}_proj.weight" for part in "qkv" if packed in names}
    state = jax.tree.map_with_path(lambda path, leaf: jax.numpy.full(leaf.shape, decays(path)), parts.trainable)
    decayed = {name for name, tensor in named_tensors(state).items() if tensor.all()}
    assert decayed == expected
    assert len(decayed) < len(theirs.named_tensors()), "biases and norms are left out"


def test_twenty_steps(checkpoint, best_speech, measured, request):
    """Clipping, both learning rates, warm-up, cosine, decay, microbatches: the curve and where it ends."""
    speech, steps, rows = best_speech, 20, 2
    lr, head_lr = RATES[name_of(request)]
    settings = {
        "lr": lr,
        "head_lr": head_lr,
        "weight_decay": 0.03,
        "clip_norm": 1.0,
        "entropy_weight": ENTROPY_WEIGHT,
    }
    config = TrainConfig(batch=rows, microbatch=rows // 2, warmup=0.15, **settings)
    encoder, mesh = PromptEncoder(checkpoint, speech.classes), one_device()
    parts = split_model(load_ours(checkpoint, len(speech.classes)))
    start = named_tensors(parts.trainable)
    theirs = PaperModel(checkpoint, len(speech.classes), 8, 16.0, start).train()

    optimizer = make_optimizer(config, steps)
    state = init_state(parts, optimizer, mesh)
    step = make_train_step(
        parts.graphdef,
        optimizer,
        rate=schedule(config.lr, config.warmup, steps),
        entropy_weight=ENTROPY_WEIGHT,
        seed=0,
        dropout=False,
    )
    training = PaperTraining(theirs, steps, settings | {"warmup": 3})
    our_log, their_log = [], []
    for i in tqdm(range(steps), desc="both train", leave=False):
        clips = range(i * rows, (i + 1) * rows)
        batch = our_batch(speech, encoder, clips, encoder.prefix)
        state, metrics = step(state, parts.frozen, to_device(batch, mesh, config.microbatch))
        our_log.append({name: float(value) for name, value in metrics.items()})
        texts = [encoder.text(speech.transcripts[c], "") for c in clips]
        inputs = paper_inputs(encoder.processor, texts, [speech.audio[c] for c in clips])
        their_log.append(training.step(inputs, torch.from_numpy(batch["target"])))

    curves = {name: [np.array([line[name] for line in log]) for log in (our_log, their_log)] for name in their_log[0]}
    np.testing.assert_allclose(*curves["lr"], rtol=1e-6, atol=1e-12)
    norms = curves["grad_norm"][1]
    assert norms.min() < config.clip_norm < norms.max(), f"clipping must act on some steps, norms {norms}"
    assert norms.min() > 0.01, f"the gradient must not die, norms {norms}"
    loss_error = np.abs(curves["loss"][0] / curves["loss"][1] - 1).max()
    ours_t, theirs_t = named_tensors(state.trainable), arrays(theirs.named_tensors())
    # Adam turns the rounding that this bias has for a gradient into steps of the size of the learning rate.
    for tensors in (ours_t, theirs_t):
        assert np.abs(tensors.pop(NO_GRADIENT) - start[NO_GRADIENT]).max() <= steps * config.head_lr
    errors = relative_errors(ours_t, theirs_t)
    moves = relative_errors(
        {name: tensor - start[name] for name, tensor in ours_t.items()},
        {name: tensor - start[name] for name, tensor in theirs_t.items()},
    )
    far = [np.linalg.norm(theirs_t[name] - start[name]) / np.linalg.norm(start[name]) for name in theirs_t]
    measured(
        f"{steps} AdamW steps, {name_of(request)} model, {rows} {speech.name} clips each: loss curve, worst relative "
        f"error {loss_error:.1e}; {len(errors)} final tensors, worst {worst(errors)}; of their movement (median "
        f"{np.median(far):.1%} of a tensor), worst {worst(moves)}; {np.mean(norms > config.clip_norm):.0%} of "
        f"the steps clipped, gradient norms {norms.min():.2f} to {norms.max():.2f}"
    )
    assert loss_error <= LIMIT
    assert max(errors.values()) <= LIMIT
    # The way itself, a few thousandths of a tensor, is stricter; each step may round the stored float32 by half a unit.
    rounding = steps * 2.0**-24
    for name, tensor in theirs_t.items():
        allowed = LIMIT * np.linalg.norm(tensor - start[name]) + rounding * np.linalg.norm(tensor)
        assert np.linalg.norm(ours_t[name] - tensor) <= allowed, name
