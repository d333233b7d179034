"""The exact engine: transformers' likelihoods in a plain loop, and what sampling under the constraint converges to."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from scipy.stats import chi2
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from aer_jax.annotation.annotate import annotate
from aer_jax.annotation.engines import exact
from aer_jax.annotation.engines.exact import ExactEngine
from aer_jax.annotation.engines.interface import Question
from aer_jax.annotation.engines.pytorch.worker import Annotator, open_model
from aer_jax.annotation.listeners import Listener, crossed
from aer_jax.annotation.prompts import load_prompt
from aer_jax.annotation.task import AnnotationTask
from aer_jax.config import LabelsConfig
from aer_jax.corpora import crema_d
from aer_jax.data.preparation.prepare import prepare
from aer_jax.labels.journal import read_journal
from aer_jax.training.targets import Targets

jax.config.update("jax_default_matmul_precision", "highest")  # parity is about float32, on a GPU too

LABELS = ("angry", "angry-ish", "sad", "very happy")  # the first begins the second


@pytest.fixture(scope="module", autouse=True)
def one_shape():
    """Compiled once: so few clips need no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "SHAPES", 1)
        yield


@pytest.fixture(scope="module")
def task(dataset):
    return AnnotationTask(dataset, load_prompt(LABELS))


@pytest.fixture(scope="module")
def engine(checkpoint, task):
    return ExactEngine(checkpoint, task, batch=4)


@pytest.fixture(scope="module")
def scores(engine, task):
    """Log-probabilities of all clips under two personas, {utterance: [personas, labels, longest label]}."""
    return scored(engine, list(task.dataset.utterances), task.prompt.personas[::3])


def scored(engine, ids, personas) -> dict[str, np.ndarray]:
    found = {id: row for some, rows in engine.log_probs(ids, personas) for id, row in zip(some, rows, strict=True)}
    mask_ln = engine.encoder.label_mask_ln
    for row in found.values():
        assert row.dtype == np.float32 and row.shape == (len(personas), *mask_ln.shape)
        assert not row[:, ~mask_ln].any() and (row[:, mask_ln] < 0).all()
    return found


def loop(checkpoint: Path, task, ids, persona: str) -> np.ndarray:
    """The plain way: text and clip through the processor, one clip and one label a forward pass, padded to 30 s."""
    processor = Qwen2AudioProcessor.from_pretrained(checkpoint)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    found = []
    for id in ids:
        asked = processor.apply_chat_template(task.messages(id, persona), add_generation_prompt=True, tokenize=False)
        for label in task.prompt.labels:
            answer = f"{label}<|im_end|>"
            audio = [task.dataset.audio(id)]
            inputs = processor(text=asked + answer, audio=audio, sampling_rate=16_000, return_tensors="pt")
            with torch.inference_mode():
                log_probs = model(**inputs).logits[0].log_softmax(-1)
            said = processor.tokenizer(answer, return_tensors="pt")["input_ids"][0]
            assert torch.equal(inputs["input_ids"][0, -len(said) :], said)
            found.append(log_probs[-len(said) - 1 : -1].gather(1, said[:, None]).sum().item())
    return np.reshape(found, (len(ids), len(task.prompt.labels)))


def compare(what: str, found, expected, capsys) -> None:
    """Relative error of the log-likelihoods at most 1e-4, printed."""
    error = float((np.abs(found - expected) / np.abs(expected)).max())
    with capsys.disabled():
        print(
            f"\n    {what}: largest relative error of {expected.size} log-likelihoods {error:.1e} (limit 1e-04)", end=""
        )
    assert np.ptp(expected) > 1 and error <= 1e-4


@pytest.mark.parametrize("persona", [0, 1])
def test_parity_on_a_random_checkpoint(scores, checkpoint, task, persona, capsys):
    ids = list(scores)[:3]
    found = np.array([scores[id][persona].sum(-1) for id in ids])
    expected = loop(checkpoint, task, ids, task.prompt.personas[3 * persona])
    compare(f"random checkpoint, toy clips, persona {persona}", found, expected, capsys)
    assert (np.exp(found).sum(-1) < 1).all()


def test_neither_batch_nor_order_nor_company_matters(scores, checkpoint, task):
    """To 1e-4, as much as the weights of this checkpoint, made to be sharp, make of float32's rounding."""
    ids, personas = list(scores), task.prompt.personas
    other = scored(ExactEngine(checkpoint, task, batch=5), ids[:0:-1], (personas[1], personas[3]))
    for id, row in other.items():
        np.testing.assert_allclose(row[1], scores[id][1], rtol=0, atol=1e-4)


@pytest.mark.real
def test_parity_on_real_speech(mini_checkpoint, crema_d_root, tmp_path, capsys):
    """Pretrained weights, CREMA-D's own classes, and a label that begins another one."""
    corpus = crema_d.read(crema_d_root)
    dataset = prepare(replace(corpus, clips=corpus.clips[::600]), tmp_path / "dataset")
    prompt = load_prompt([*dataset.classes[:3], f"{dataset.classes[0]} or worse"])
    task, ids = AnnotationTask(dataset, prompt), list(dataset.utterances)[:2]
    found = scored(ExactEngine(mini_checkpoint, task, batch=2), ids, prompt.personas[:1])
    expected = loop(mini_checkpoint, task, ids, prompt.personas[0])
    found_nl = np.array([found[id][0].sum(-1) for id in ids])
    compare(f"mini checkpoint, {len(ids)} CREMA-D clips", found_nl, expected, capsys)


# Two and three tokens each, the last of them the end; with this checkpoint all are said, and one begins another.
SAID = ("cb", "cg", "ug", "uv", "s", "sd")
DRAWS = 1000


@pytest.fixture(scope="module")
def bound(checkpoint, dataset, asked):
    """The exact engine and the sampling one, bound to the same labels."""
    engine = ExactEngine(checkpoint, AnnotationTask(dataset, load_prompt(SAID)), batch=1)
    chat = open_model(checkpoint, asked, SAID)
    assert chat.labels == engine.encoder.labels
    return engine, Annotator(chat, dataset)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_constrained_samples_converge_to_the_exact_distribution(bound, temperature):
    """1,000 sampled answers: chi-square at the level of 1e-3.

    The same samples refute what tempering whole labels, and not their tokens, would predict.
    """
    engine, annotator = bound
    id, persona = next(iter(engine.task.dataset.utterances)), engine.task.prompt.personas[1]
    [[(_, answer)]] = engine.ask([Question(id, Listener(0, persona, temperature))])
    row = {"utterance": id, "messages": engine.task.messages(id, persona), "temperature": temperature}
    said = []
    for start in range(0, DRAWS, 250):
        said += annotator.generate([{**row, "seed": seed} for seed in range(start, start + 250)])
    counts = np.array([said.count(label) for label in SAID])
    assert counts.sum() == DRAWS, "an answer was no label"
    exact_k = np.array([answer.probs[label] for label in SAID])
    assert (exact_k * DRAWS >= 5).sum() >= 3 and p_value(counts, exact_k) > 1e-3

    log_likelihoods = scored(engine, [id], [persona])[id][0].sum(-1)
    naive_k = np.exp((log_likelihoods - log_likelihoods.max()) / temperature)
    assert p_value(counts, naive_k / naive_k.sum()) < 1e-6


def p_value(counts_k: np.ndarray, probs_k: np.ndarray) -> float:
    """Of Pearson's chi-square; what is expected fewer than 5 times is pooled, as the test wants it."""
    rare_k = probs_k * counts_k.sum() < 5
    found, expected = (
        np.append(x[~rare_k], x[rare_k].sum()) for x in (counts_k.astype(float), probs_k * counts_k.sum())
    )
    used = expected > 0
    return float(chi2.sf(((found - expected)[used] ** 2 / expected[used]).sum(), used.sum() - 1))


def test_journal_is_of_distributions_that_runs_learn_from(engine, task, tmp_path):
    """One vote a listener, in shares; resumed without asking again; pooled with people's votes by count."""
    engine = ExactEngine(engine._checkpoint, replace(task, prompt=load_prompt(task.dataset.classes)), batch=4)
    people, out = crossed(7, task.prompt.personas), tmp_path / "journal.jsonl"
    first = annotate(engine.task, engine, people[:5], out, limit=3)
    assert (first["asked"], first["labelled"], first["unparsed_share"], first["answers"]) == (15, 15, 0, "exact")
    content = out.read_bytes()
    done = annotate(engine.task, engine, people, out)
    assert out.read_bytes().startswith(content) and done["asked"] == 7 * 6 - 15 and done["labelled"] == 42
    attempts = read_journal(out)
    assert all(a.answers == "exact" and a.response == "" and a.label is None for a in attempts)

    dataset = engine.task.dataset
    ids = list(dataset.utterances)
    p_nk = Targets(dataset, LabelsConfig("synthetic", str(out))).distributions(ids)
    mixed = [[a.probs[c] for c in dataset.classes] for a in attempts if a.utterance == ids[4]]
    np.testing.assert_allclose(p_nk[4], np.mean(mixed, axis=0), atol=1e-6)
    assert np.ptp(p_nk[4]) > 0.05 and np.ptp([p[0] for p in mixed]) > 1e-4
    both_nk = Targets(dataset, LabelsConfig("combined", str(out))).distributions(ids)
    human_nk = Targets(dataset, LabelsConfig()).distributions(ids)
    np.testing.assert_allclose(both_nk, (5 * human_nk + 7 * p_nk) / 12, atol=1e-6)  # 5 people, 7 listeners


def test_eight_devices_write_what_one_writes(engine, checkpoint, dataset, task, tmp_path):
    """The command on a mesh of 2 x 2 x 2 devices."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "aer_jax", "annotate", "--engine", "exact", "--data", dataset.path, "--json"]
    command += ["--model", checkpoint, "--listeners", "2", "--batch", "3", "--limit", "2", "--out", tmp_path / "j"]
    settings = ["mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2"]
    done = subprocess.run([*command, *settings], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["labelled"] == 4
    own = replace(task, prompt=load_prompt(dataset.classes))
    people = crossed(2, own.prompt.personas)
    asked = [Question(id, person) for id in list(dataset.utterances)[:2] for person in people]
    one = ExactEngine(checkpoint, own, batch=4).ask(asked)
    expected = {(pair.utterance, pair.listener.index): answer.probs for some in one for pair, answer in some}
    for attempt in read_journal(tmp_path / "j"):
        for label, p in expected[attempt.key].items():
            assert attempt.probs[label] == pytest.approx(p, abs=1e-4)
