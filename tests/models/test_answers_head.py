"""The answers head equals transformers' likelihoods of whole answers within the labels' trie, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from test_label_scores import LABELS, loop
from tiny_qwen2_audio import load_ours, load_torch, make_batch, relative_error
from transformers import WhisperFeatureExtractor

from aer_jax.base.label_trie import tempered
from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.base.safetensors_files import Checkpoint
from aer_jax.models.adapters.lora import attach
from aer_jax.models.answers_head import AnswersHead
from aer_jax.models.weights import read_output_columns

END = 9  # ends every answer, so that none begins with all of another
ANSWERS = tuple((*label, END) for label in LABELS)
LIMIT = 1e-4
TARGETS = (r"language_model\.layers\.N\.self_attn\.[qv]_proj", r"audio_tower\.layers\.N\.self_attn\.q_proj")


@pytest.fixture(scope="module")
def ours(tiny_80):
    """The base with adapters that have moved, and the head."""
    base = load_ours(tiny_80)
    attach(base, TARGETS, rank=2, alpha=4.0, dropout=0.0, key=jax.random.key(0))
    for _, module in nnx.iter_modules(base):
        if (lora := getattr(module, "lora", None)) is not None:
            lora.b[...] = 0.05 * jax.random.normal(jax.random.key(1), lora.b.shape)
    head = AnswersHead(base.lm_head.kernel.shape[0], ANSWERS)
    head.columns[...] = jnp.asarray(read_output_columns(Checkpoint(tiny_80), head.tokens))
    return base, head


def log_likelihoods(base, head, batch, prefix=()):
    features = base(*batch[:4], np.array(prefix, np.int32), None, head.packed_ln)
    return head.log_likelihoods(features)


@pytest.fixture(scope="module")
def twin(tiny_80, ours):
    """transformers' model with the adapters folded into its weights."""
    model = load_torch(tiny_80)
    for path, module in nnx.iter_modules(ours[0]):
        if getattr(module, "lora", None) is None:
            continue
        for layer in range(module.kernel.shape[0]):
            name = ".".join(map(str, path)).replace("layers", f"layers.{layer}")
            weight = model.get_submodule(f"model.{name}").weight
            update = module.lora.scaling * module.lora.a[layer] @ module.lora.b[layer]
            weight.data += torch.from_numpy(np.array(update.T))
    return model


def test_likelihoods_are_those_of_transformers(ours, twin, clips, prompts, parity):
    expected = np.log(tempered(loop(twin, clips, prompts, ANSWERS), ANSWERS, 1.0))
    for side in ("right", "left"):
        got = log_likelihoods(*ours, make_batch(clips, prompts, side))
        parity(f"answers head, padding {side}: log-likelihoods", float(np.abs(got - expected).max()), limit=LIMIT,
               kind="absolute")  # fmt: skip
    np.testing.assert_allclose(np.exp(np.asarray(got, np.float64)).sum(1), 1, atol=1e-5)


def test_a_shared_prefix_changes_nothing(ours, clips, prompts):
    shared = [7, 3, 12]
    whole = log_likelihoods(*ours, make_batch(clips, [[*shared, *tokens] for tokens in prompts], "right"))
    apart = log_likelihoods(*ours, make_batch(clips, prompts, "right"), shared)
    np.testing.assert_allclose(apart, whole, atol=1e-5)


def test_company_and_order_do_not_matter(ours, clips, prompts):
    base, head = ours
    together = log_likelihoods(base, head, make_batch(clips, prompts, "right"))
    alone = [log_likelihoods(base, head, make_batch([c], [p], "left"))[0] for c, p in zip(clips, prompts, strict=True)]
    np.testing.assert_allclose(np.stack(alone), together, atol=1e-5)


def test_gradients_are_those_of_transformers(ours, twin, clips, prompts, parity):
    """dL/dB = s A^T G and dL/dA = s G B^T, where G is torch's gradient of the weight with the adapter folded in."""
    base, head = ours
    batch = make_batch(clips, prompts, "right")
    targets_bl = np.random.default_rng(0).dirichlet(np.ones(len(ANSWERS)), len(clips)).astype(np.float32)
    graphdef, adapters, rest = nnx.split(base, nnx.LoRAParam, ...)

    def loss(adapters):
        return -(targets_bl * log_likelihoods(nnx.merge(graphdef, adapters, rest), head, batch)).sum()

    gradients = nnx.merge(graphdef, jax.grad(loss)(adapters), rest)
    twin.zero_grad()
    torch_loss(twin, clips, prompts, targets_bl).backward()
    compared = 0
    for (path, module), (_, gradient) in zip(nnx.iter_modules(base), nnx.iter_modules(gradients), strict=True):
        if getattr(module, "lora", None) is None:
            continue
        for layer in range(module.kernel.shape[0]):
            name = ".".join(map(str, path)).replace("layers", f"layers.{layer}")
            weight_io = twin.get_submodule(f"model.{name}").weight.grad.numpy().T
            a, b, scaling = (np.asarray(x) for x in (module.lora.a[layer], module.lora.b[layer], module.lora.scaling))
            for got, expected in (
                (gradient.lora.a[layer], scaling * weight_io @ b.T),
                (gradient.lora.b[layer], scaling * a.T @ weight_io),
            ):
                parity("answers head: adapters' gradients", relative_error(got, expected), limit=LIMIT)
                compared += 1
    assert compared >= 8


def torch_loss(model, clips, prompts, targets_bl):
    """The same loss by one forward pass for each clip and label, over the tokens that the trie allows."""
    from aer_jax.base.label_trie import make_trie

    trie, total = make_trie(ANSWERS), 0
    extractor = WhisperFeatureExtractor(feature_size=model.config.audio_config.num_mel_bins)
    for clip, tokens, targets_l in zip(clips, prompts, targets_bl, strict=True):
        mel = extractor([clip], sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt")
        for label, share in zip(ANSWERS, targets_l, strict=True):
            ids = torch.tensor([[*tokens, *label]])
            logits = model(
                input_ids=ids, attention_mask=torch.ones_like(ids), input_features=mel["input_features"],
                feature_attention_mask=mel["attention_mask"],
            ).logits[0, len(tokens) - 1 : -1]  # fmt: skip
            for depth, token in enumerate(label):
                following = trie[label[:depth]]
                total = total - float(share) * logits[depth, following].log_softmax(-1)[following.index(token)]
    return total
