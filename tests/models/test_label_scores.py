"""All labels in one pass equal a loop of transformers over clips and labels, one at a time and padded to 30 s."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file, save_file
from tiny_qwen2_audio import AUDIO_TOKEN, VOCABULARY, load_ours, load_torch, make_batch, prompt, relative_error, voice
from transformers import WhisperFeatureExtractor

from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.errors import UserError
from aer_jax.models.label_scores import label_log_probs

# One to four tokens; the second begins with all of the first, the third with all of the second.
LABELS = ((11,), (11, 42), (11, 42, 7, 3), (60, 11, 42), (8, 8))
LIMIT = 1e-4

_score = nnx.jit(lambda model, batch, labels_ln, mask_ln: label_log_probs(model, *batch[:4], labels_ln, mask_ln))


def score(model, batch, labels_ln, mask_ln):
    """One prompt a clip, [batch, labels, longest label]."""
    one = batch._replace(tokens=batch.tokens[:, None], token_mask=batch.token_mask[:, None])
    return _score(model, one, labels_ln, mask_ln)[:, 0]


def padded(labels) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [labels, longest label] and which of them are a label's."""
    mask_ln = np.arange(max(map(len, labels))) < np.array([[len(label)] for label in labels])
    labels_ln = np.full(mask_ln.shape, 5, np.int32)
    labels_ln[mask_ln] = np.concatenate(labels)
    return labels_ln, mask_ln


def loop(model, clips, prompts, labels) -> np.ndarray:
    """The plain way: one clip, one label, one forward pass; float32 [clips, labels, longest label]."""
    extractor = WhisperFeatureExtractor(feature_size=model.config.audio_config.num_mel_bins)
    found = np.zeros((len(clips), len(labels), max(map(len, labels))), np.float32)
    for b, (clip, tokens) in enumerate(zip(clips, prompts, strict=True)):
        heard = extractor([clip], sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt")
        for i, label in enumerate(labels):
            ids = torch.tensor([[*tokens, *label]])
            with torch.inference_mode():
                logits = model(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    input_features=heard["input_features"],
                    feature_attention_mask=heard["attention_mask"],
                ).logits
            log_probs = logits[0, len(tokens) - 1 : -1].log_softmax(-1)
            found[b, i, : len(label)] = log_probs[range(len(label)), list(label)]
    return found


@pytest.fixture(scope="module")
def ours(tiny_80):
    return load_ours(tiny_80)


@pytest.fixture(scope="module")
def expected(tiny_80, clips, prompts):
    return loop(load_torch(tiny_80), clips, prompts, LABELS)


@pytest.mark.parametrize("side", ["right", "left", "both"])
def test_parity_with_a_loop_over_labels(ours, clips, prompts, expected, side, parity):
    batch = make_batch(clips, prompts, "left" if side == "both" else side)
    if side == "both":
        rows = ((0, 0), (0, 4))
        batch = batch._replace(tokens=jnp.pad(batch.tokens, rows), token_mask=jnp.pad(batch.token_mask, rows))
    labels_ln, mask_ln = padded(LABELS)
    found = score(ours, batch, labels_ln, mask_ln)
    assert found.dtype == jnp.float32 and found.shape == (len(clips), *labels_ln.shape)
    assert not np.asarray(found)[:, ~mask_ln].any() and np.ptp(expected.sum(-1)) > 5
    at = f"labels of 1 to 4 tokens, padding {side}"
    parity(f"{at}: log-probability of each token", float(np.abs(found - expected).max()), limit=LIMIT, kind="absolute")
    parity(f"{at}: log-likelihoods", relative_error(found.sum(-1), expected.sum(-1)), limit=LIMIT)


def test_what_else_is_in_the_batch_and_the_order_of_labels_do_not_matter(ours, clips, prompts):
    """Each pair of clip and label alone, and all in reverse, against all together: 1e-5."""
    together = np.asarray(score(ours, make_batch(clips, prompts, "right"), *padded(LABELS)))
    turned = score(ours, make_batch(clips[::-1], prompts[::-1], "left"), *padded(LABELS[::-1]))
    np.testing.assert_allclose(np.asarray(turned)[::-1, ::-1], together, rtol=0, atol=1e-5)
    for b, i in [(0, 0), (1, 2)]:
        alone = score(ours, make_batch([clips[b]], [prompts[b]], "left"), *padded([LABELS[i]]))
        np.testing.assert_allclose(alone[0, 0], together[b, i, : len(LABELS[i])], rtol=0, atol=1e-5)


def test_a_shared_prefix_has_one_likelihood(ours, clips, prompts):
    """So at each node of the labels' trie log-probabilities are logits up to one constant."""
    found = np.asarray(score(ours, make_batch(clips, prompts, "right"), *padded(LABELS)))
    np.testing.assert_allclose(found[:, 0, 0], found[:, 2, 0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[:, 1, :2], found[:, 2, :2], rtol=0, atol=1e-5)


def test_all_possible_answers_together_are_certain(ours, clips, prompts):
    """Every first token, one of them followed by every second one: the probabilities sum to 1."""
    answers = [(v,) for v in range(VOCABULARY) if v != 11] + [(11, v) for v in range(VOCABULARY)]
    found = score(ours, make_batch(clips[:1], prompts[:1], "right"), *padded(answers))
    probs_n = np.exp(np.asarray(found, np.float64).sum(-1)[0])
    assert (probs_n > 0).all() and probs_n.sum() == pytest.approx(1, abs=1e-5)


def test_a_word_before_the_label_matters_and_audio_too(ours, clips, prompts, expected):
    """The comparison could fail: another word, or another clip of the same length, gives other likelihoods."""
    other_word = [*prompts[0][:-1], prompts[0][-1] + 1]
    other_clip = voice(0.4, 77)
    for changed in (([clips[0]], [other_word]), ([other_clip], [prompts[0]])):
        found = score(ours, make_batch(*changed, "right"), *padded(LABELS))
        assert np.abs(found[0] - expected[0]).max() > 100 * LIMIT


def test_output_layer_is_the_files_own_even_where_the_config_ties_it(tiny_80, tmp_path, clips, prompts):
    """transformers ties nothing in Qwen2-Audio: it reads lm_head from the file, and draws it where it is missing."""
    path = Path(shutil.copytree(tiny_80, tmp_path / "checkpoint"))
    config = json.loads((path / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (path / "config.json").write_text(json.dumps(config))
    found = score(load_ours(path), make_batch(clips[:1], prompts[:1], "right"), *padded(LABELS))
    theirs = loop(load_torch(path), clips[:1], prompts[:1], LABELS)
    np.testing.assert_allclose(found, theirs, rtol=0, atol=LIMIT)

    tensors = load_file(path / "model.safetensors")
    del tensors["language_model.lm_head.weight"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"language_model\.lm_head\.weight is missing"):
        load_ours(path)


def test_bfloat16_base_keeps_float32_logits(tiny_80, clips, prompts):
    """A bfloat16 logit has 8 bits; the labels' log-probabilities must not be multiples of that."""
    model = load_ours(tiny_80)  # its own, to be rounded
    nnx.update(model, jax.tree.map(lambda a: a.astype(jnp.bfloat16), nnx.state(model)))
    hidden_bth = jnp.ones((1, 1, 48), jnp.bfloat16) / 3
    logits = model.logits(hidden_bth)
    assert logits.dtype == jnp.float32 and bool((logits != logits.astype(jnp.bfloat16)).any())
    found = score(model, make_batch(clips, prompts, "right"), *padded(LABELS))
    assert found.dtype == jnp.float32 and np.isfinite(found).all()


EIGHT_DEVICES = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from test_label_scores import LABELS, padded, score
from tiny_qwen2_audio import load_ours, unequal_batch
from aer_jax.config import MeshConfig
from aer_jax.models.sharding import BATCH, make_mesh, sharding

assert len(jax.devices()) == 8
_, batch = unequal_batch("right", seconds=(0.3, 0.9, 0.5, 0.7))
model = load_ours(sys.argv[1])
one = score(model, batch, *padded(LABELS))
mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
jax.set_mesh(mesh)
for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
    variable.set_value(jax.device_put(variable[...], sharding(mesh, path, variable.shape)))
assert len(model.lm_head.kernel.sharding.device_set) == 8
eight = score(model, jax.device_put(batch, NamedSharding(mesh, BATCH)), *padded(LABELS))
print(json.dumps(float(jnp.abs(np.asarray(eight) - np.asarray(one)).max())))
"""


def test_eight_devices_score_as_one(tiny_80):
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",  # quick to compile
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES, tiny_80], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) <= 1e-4


def test_a_clip_is_encoded_once_for_several_prompts(ours, clips, prompts, monkeypatch):
    """Equal to one prompt at a time, where the audio tower runs once for each: 1e-5; and it does run once."""
    others = [prompt(len(clip), 9, AUDIO_TOKEN, 50 + b) for b, clip in enumerate(clips)]
    both = [make_batch(clips, some, "right") for some in (prompts, others)]
    apart = [np.asarray(score(ours, batch, *padded(LABELS))) for batch in both]
    longest = max(batch.tokens.shape[1] for batch in both)
    pads = [((0, 0), (0, longest - batch.tokens.shape[1])) for batch in both]
    together = both[0]._replace(
        tokens=jnp.stack([jnp.pad(batch.tokens, pad) for batch, pad in zip(both, pads, strict=True)], axis=1),
        token_mask=jnp.stack([jnp.pad(batch.token_mask, pad) for batch, pad in zip(both, pads, strict=True)], axis=1),
    )
    encoded = []
    encode = type(ours).encode_audio
    monkeypatch.setattr(type(ours), "encode_audio", lambda *args: encoded.append(1) or encode(*args))
    found = np.asarray(
        nnx.jit(lambda model, batch: label_log_probs(model, *batch[:4], *padded(LABELS)))(ours, together)
    )
    assert found.shape == (len(clips), 2, *padded(LABELS)[0].shape) and len(encoded) == 1
    np.testing.assert_allclose(found, np.stack(apart, axis=1), rtol=0, atol=1e-5)
    assert np.abs(apart[0] - apart[1]).max() > 1e-2
