"""The worker's own parts, in this process: inputs, sampling, and rows that do not hear each other."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from aer_jax.annotation.engines.gumbel import GumbelSampler
from aer_jax.annotation.engines.pytorch.worker import NEW_TOKENS, Annotator, open_model
from aer_jax.errors import UserError


@pytest.fixture(scope="module")
def annotator(checkpoint, dataset, asked):
    return Annotator(open_model(checkpoint, asked), dataset)


def test_sampler_draws_from_softmax():
    """20,000 rows of one distribution at one temperature: a chi-square test against softmax(logits / T)."""
    logits, temperature, draws = torch.tensor([2.0, 1.0, 0.0, -1.0]), 0.7, 20_000
    sampler = GumbelSampler([temperature] * draws, list(range(draws)))
    expected = torch.softmax(logits / temperature, 0).numpy().astype(np.float64)
    for _ in range(2):
        drawn = sampler(None, logits.repeat(draws, 1)).argmax(-1).numpy()
        counts = np.bincount(drawn, minlength=4)
        assert chisquare(counts, expected / expected.sum() * draws).pvalue > 1e-3


def test_sampler_noise_depends_on_seed_and_step_alone():
    scores = torch.randn(3, 50)
    a, b = GumbelSampler([0.5, 0.7, 0.9], [1, 2, 3]), GumbelSampler([0.7], [2])
    for _ in range(2):
        torch.testing.assert_close(a(None, scores)[1:2], b(None, scores[1:2]), rtol=0, atol=0)
    again = GumbelSampler([0.7], [2])
    assert not torch.equal(again(None, scores[1:2]), again(None, scores[1:2]))


def test_inputs_are_the_processors(annotator, rows, dataset):
    """Equal, to the bit, to what transformers' processor makes of texts and clips row by row."""
    texts = [
        annotator.chat.processor.apply_chat_template(r["messages"], add_generation_prompt=True, tokenize=False)
        for r in rows
    ]
    expected = annotator.chat.processor(
        text=texts,
        audio=[dataset.audio(row["utterance"]) for row in rows],
        sampling_rate=16_000,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    inputs, first_row, clip_of_row = annotator.chat.inputs(rows, dataset)
    assert set(inputs) == set(expected) and inputs["input_features"].shape[-1] == 3000
    for name, tensor in inputs.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
    assert (inputs["attention_mask"][:, 0] == 0).any() and (inputs["attention_mask"][:, -1] == 1).all()
    assert first_row == [0, 3, 6, 9, 12, 15] and clip_of_row.tolist() == [i // 3 for i in range(18)]


def test_tower_heard_once_changes_nothing(annotator, rows, dataset):
    """Logits with the audio tower run once a clip against once a row, 1e-5."""
    inputs, first_row, clip_of_row = annotator.chat.inputs(rows, dataset)
    calls = []
    hook = annotator.chat.model.model.audio_tower.conv1.register_forward_hook(lambda m, a, o: calls.append(len(o)))
    with torch.inference_mode():
        with annotator.chat.heard_once(first_row, clip_of_row):
            once = annotator.chat.model(**inputs).logits
        each = annotator.chat.model(**inputs).logits
    hook.remove()
    assert calls == [6, 18]
    mask = inputs["attention_mask"].bool()
    torch.testing.assert_close(once[mask], each[mask], rtol=1e-5, atol=1e-5)


def test_answers_do_not_depend_on_the_batch(annotator, rows):
    alone = [annotator.generate([row])[0] for row in rows]
    assert len(set(alone)) > 3
    assert annotator.generate(rows) == alone
    assert annotator.generate(rows[::-1])[::-1] == alone
    assert annotator.generate(rows[3:8]) == alone[3:8]


def test_greedy_batches_equal_one_by_one(annotator, rows, dataset):
    """Temperature 0 in one batch of unequal lengths: what transformers' own `generate` says to each alone."""
    greedy = [{**row, "temperature": 0} for row in rows[::3]]
    expected = []
    for row in greedy:
        text = annotator.chat.processor.apply_chat_template(row["messages"], add_generation_prompt=True, tokenize=False)
        audio = [dataset.audio(row["utterance"])]
        inputs = annotator.chat.processor(text=text, audio=audio, sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            tokens = annotator.chat.model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)
        said = tokens[:, inputs["input_ids"].shape[1] :]
        expected += annotator.chat.processor.tokenizer.batch_decode(said, skip_special_tokens=True)
    assert len({len(row["messages"][1]["content"][0]["text"]) for row in greedy}) > 3 and len(set(expected)) > 1
    assert annotator.generate(greedy) == expected


def test_bound_to_labels_it_says_nothing_else(checkpoint, rows, dataset, asked):
    """Labels of one and of many tokens, one of which begins another; batches do not matter here either."""
    labels = ("happy", "happy to be here", "neither", "sad")
    bound = Annotator(open_model(checkpoint, asked, labels), dataset)
    said = bound.generate(rows)
    assert set(said) <= set(labels) and len(set(said)) > 1
    assert [bound.generate([row])[0] for row in rows[:3]] == said[:3]


def test_answers_depend_on_audio_and_seed(annotator, rows):
    """Same words, persona, temperature and seed: another clip, or another seed, gives other answers."""
    base = rows[:6]
    ids = [row["utterance"] for row in rows]
    other_clip = [{**row, "utterance": ids[-1]} for row in base]
    other_seed = [{**row, "seed": row["seed"] + 1} for row in base]
    said = annotator.generate(base)
    assert annotator.generate(other_clip) != said
    assert annotator.generate(other_seed) != said


def test_one_bad_row_fails_alone(annotator, rows):
    good = annotator.generate(rows[:2])
    answers = annotator.answer([rows[0], {**rows[0], "utterance": "nobody"}, rows[1]])
    assert [answers[0], answers[2]] == [{"response": text} for text in good]
    assert "UserError" in answers[1]["error"] and "nobody" in answers[1]["error"]


def test_published_generation_settings_are_not_inherited(annotator):
    settings = annotator.chat.model.generation_config
    assert settings.repetition_penalty in (None, 1.0) and settings.do_sample is False


def test_missing_weights_are_refused(checkpoint, asked, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(checkpoint / "model.safetensors")
    del weights[next(name for name in weights if "q_proj.weight" in name)]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks the weights .*q_proj"):
        open_model(tmp_path, asked)
