"""Likelihoods of labels as answers equal transformers' own processor and model in a loop over clips and labels."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from aer_jax.config import MeshConfig
from aer_jax.corpora import crema_d
from aer_jax.data.collate import collate
from aer_jax.data.prepare import prepare
from aer_jax.data.windows import window_for
from aer_jax.models.sharding import make_mesh
from aer_jax.proxies.encode import AnnotationEncoder
from aer_jax.proxies.likelihood import label_log_likelihoods, load_annotator
from aer_jax.proxies.prompts import load_prompt

jax.config.update("jax_default_matmul_precision", "highest")  # parity is about float32, on a GPU too

LABELS = ("angry", "angry-ish", "sad", "very happy")  # the first begins the second


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def annotator(checkpoint, mesh):
    return load_annotator(checkpoint, mesh, "float32")


def score(model, dataset, ids, encoder, mesh, rows: int) -> np.ndarray:
    """Log-likelihoods [utterances, labels], so many rows at a time."""
    audio = [dataset.audio(id) for id in ids]
    tokens = [encoder.encode(dataset.utterances[id].transcript, "", len(a)) for id, a in zip(ids, audio, strict=True)]
    batches = [
        collate(
            audio[at : at + rows],
            tokens[at : at + rows],
            np.zeros((len(ids), 0))[at : at + rows],
            range(len(ids))[at : at + rows],
            batch=rows,
            window=int(window_for([len(a) for a in audio]).max()),
            text_length=max(map(len, tokens)),
            pad_id=encoder.pad_id,
        )
        for at in range(0, len(ids), rows)
    ]
    found = label_log_likelihoods(model, batches, len(ids), encoder, mesh)
    assert found.dtype == np.float32 and found.shape == (len(ids), *encoder.labels_ln.shape)
    assert not found[:, ~encoder.label_mask_ln].any() and (found[:, encoder.label_mask_ln] < 0).all()
    return found.sum(-1)


def loop(checkpoint: Path, dataset, ids, prompt, persona: str) -> np.ndarray:
    """The plain way: text and clip through the processor, one clip and one label a forward pass, padded to 30 s."""
    processor = Qwen2AudioProcessor.from_pretrained(checkpoint)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    found = []
    for id in ids:
        messages = prompt.messages(dataset.utterances[id].transcript, persona)
        asked = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        for label in prompt.labels:
            answer = f"{label}<|im_end|>"
            inputs = processor(
                text=asked + answer, audio=[dataset.audio(id)], sampling_rate=16_000, return_tensors="pt"
            )
            with torch.inference_mode():
                log_probs = model(**inputs).logits[0].log_softmax(-1)
            said = processor.tokenizer(answer, return_tensors="pt")["input_ids"][0]
            assert torch.equal(inputs["input_ids"][0, -len(said) :], said)
            found.append(log_probs[-len(said) - 1 : -1].gather(1, said[:, None]).sum().item())
    return np.reshape(found, (len(ids), len(prompt.labels)))


def compare(what: str, found, expected, capsys) -> None:
    """Relative error of the log-likelihoods at most 1e-4, printed."""
    error = float((np.abs(found - expected) / np.abs(expected)).max())
    with capsys.disabled():
        print(
            f"\n    {what}: largest relative error of {expected.size} log-likelihoods {error:.1e} (limit 1e-04)", end=""
        )
    assert np.ptp(expected) > 1 and error <= 1e-4


@pytest.mark.parametrize("persona", [0, 3])
def test_parity_on_a_random_checkpoint(annotator, checkpoint, dataset, mesh, persona, capsys):
    prompt, ids = load_prompt(LABELS), list(dataset.utterances)
    encoder = AnnotationEncoder(checkpoint, prompt, prompt.personas[persona])
    found = score(annotator, dataset, ids, encoder, mesh, 4)
    expected = loop(checkpoint, dataset, ids, prompt, prompt.personas[persona])
    compare(f"random checkpoint, toy clips, persona {persona}", found, expected, capsys)
    assert (np.exp(found).sum(-1) < 1).all()


def test_neither_batch_nor_order_matters(annotator, checkpoint, dataset, mesh):
    """To 1e-4, as much as the weights of this checkpoint, made to be sharp, make of float32's rounding."""
    prompt, ids = load_prompt(LABELS), list(dataset.utterances)
    encoder = AnnotationEncoder(checkpoint, prompt, prompt.personas[0])
    together = score(annotator, dataset, ids, encoder, mesh, 4)
    back = score(annotator, dataset, ids[::-1], encoder, mesh, 5)
    alone = score(annotator, dataset, ids[2:3], encoder, mesh, 1)
    np.testing.assert_allclose(back[::-1], together, rtol=0, atol=1e-4)
    np.testing.assert_allclose(alone[0], together[2], rtol=0, atol=1e-4)


@pytest.mark.real
def test_parity_on_real_speech(mini_checkpoint, crema_d_root, mesh, tmp_path, capsys):
    """Pretrained weights, CREMA-D's own classes, and a label that begins another one."""
    corpus = crema_d.read(crema_d_root)
    clips = corpus.clips[::600]
    dataset = prepare(replace(corpus, clips=clips), tmp_path / "dataset")
    prompt, ids = load_prompt([*dataset.classes[:3], f"{dataset.classes[0]} or worse"]), list(dataset.utterances)[:2]
    encoder = AnnotationEncoder(mini_checkpoint, prompt, prompt.personas[0])
    model = load_annotator(mini_checkpoint, mesh, "float32")
    found = score(model, dataset, ids, encoder, mesh, len(ids))
    expected = loop(mini_checkpoint, dataset, ids, prompt, prompt.personas[0])
    compare(f"mini checkpoint, {len(ids)} CREMA-D clips", found, expected, capsys)
