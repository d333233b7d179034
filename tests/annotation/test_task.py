"""What listeners are told: words by default, speaker and context where asked for, and a hash of all of it."""

from dataclasses import replace

import pytest

from aer_jax.annotation.prompts import load_prompt
from aer_jax.annotation.task import AnnotationTask
from aer_jax.data.dataset import Utterance
from aer_jax.errors import UserError


@pytest.fixture
def talk(dataset):
    """Two dialogues, their turns in order."""
    turns = [
        ("Ses01_a_F000", "anna", "hello there"),
        ("Ses01_a_M000", "ben", "who is it"),
        ("Ses01_a_F001", "anna", ""),
        ("Ses01_a_M001", "ben", "not <|AUDIO|> you again"),
        ("Ses01_b_F000", "cleo", "another day"),
    ]
    utterances = {id: Utterance(id, speaker, words, 1.0, 0, 0) for id, speaker, words in turns}
    return replace(dataset, name="iemocap", utterances=utterances)


def text(task, id):
    return task.messages(id, "Listen.")[1]["content"][0]["text"]


def test_words_are_told_and_the_speaker_is_not(task, dataset):
    for id, utterance in dataset.utterances.items():
        asked = text(task, id)
        assert f'Words: "{utterance.transcript}"\n' in asked and "Listen." in asked
        assert utterance.speaker not in asked and "Speaker" not in asked and "before" not in asked


def test_switches(talk):
    prompt = load_prompt(talk.classes)
    assert "Words" not in text(AnnotationTask(talk, prompt, transcript=False), "Ses01_a_M001")
    named = text(AnnotationTask(talk, prompt, speaker=True), "Ses01_a_M001")
    assert named.startswith('Speaker: ben\nWords: "not you again"\n')


def test_context_is_of_the_same_conversation_and_before(talk):
    prompt = load_prompt(talk.classes)
    two, all_ = AnnotationTask(talk, prompt, context=2), AnnotationTask(talk, prompt, speaker=True, context=9)
    assert text(two, "Ses01_a_M001").startswith("Said before: who is it\nWords")  # one of the two has no words
    assert text(all_, "Ses01_a_M001").startswith("Said before: anna: hello there / ben: who is it\nSpeaker: ben\n")
    assert "before" not in text(two, "Ses01_a_F000") and "before" not in text(all_, "Ses01_b_F000")


def test_every_switch_changes_the_fingerprint(talk):
    prompt = load_prompt(talk.classes)
    other = replace(prompt, question=prompt.question + " ")
    variants = [
        AnnotationTask(talk, prompt), AnnotationTask(talk, prompt, transcript=False),
        AnnotationTask(talk, prompt, speaker=True),
        AnnotationTask(talk, prompt, context=1), AnnotationTask(talk, prompt, context=2), AnnotationTask(talk, other),
    ]  # fmt: skip
    assert len({q.fingerprint for q in variants}) == len(variants)
    assert AnnotationTask(talk, prompt).fingerprint == variants[0].fingerprint


def test_refusals(dataset, talk):
    prompt = load_prompt(dataset.classes)
    with pytest.raises(UserError, match="toy has no conversations"):
        AnnotationTask(dataset, prompt, context=1)
    bare = replace(prompt, question="{persona} {labels}")
    for switch in ({"speaker": True}, {"context": 1}):
        with pytest.raises(UserError, match=f"--{next(iter(switch))} needs a line with"):
            AnnotationTask(talk, bare, **switch)
