"""The annotation prompt's tokens equal those that the PyTorch worker gives its model."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import aer_jax
from aer_jax.errors import UserError
from aer_jax.proxies.encode import AnnotationEncoder
from aer_jax.proxies.prompts import Prompt, load_prompt
from aer_jax.proxies.worker import Annotator

TOY = Path(aer_jax.__file__).parent / "demo" / "checkpoint"
LABELS = ("angry", "angry-ish", "very sad indeed", "Freude", "悲しい")


@pytest.fixture(scope="module", params=["tiny", "toy", pytest.param("mini", marks=pytest.mark.real)])
def path(request) -> Path:
    fixtures = {"tiny": "checkpoint", "mini": "mini_checkpoint"}
    return TOY if request.param == "toy" else request.getfixturevalue(fixtures[request.param])


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    return load_prompt(LABELS)


def test_tokens_are_those_of_the_worker(checkpoint, dataset, prompt):
    """To the last token, padding aside: what either engine hears and reads is the same."""
    annotator = Annotator(str(checkpoint), dataset)
    for persona in prompt.personas[:2]:
        encoder = AnnotationEncoder(checkpoint, prompt, persona)
        words = ["", *(utterance.transcript for utterance in list(dataset.utterances.values())[1:])]
        rows = [
            {"utterance": id, "messages": prompt.messages(text, persona)}
            for id, text in zip(dataset.utterances, words, strict=True)
        ]
        theirs, _, _ = annotator.inputs(rows)
        for row, text, tokens, mask in zip(rows, words, theirs["input_ids"], theirs["attention_mask"], strict=True):
            ours = encoder.encode(text, "somebody", len(dataset.audio(row["utterance"])))
            np.testing.assert_array_equal(ours, tokens[mask.bool()].numpy())
            assert ours.dtype == np.int32


def test_tokens_are_those_of_the_processor(path, prompt):
    encoder = AnnotationEncoder(path, prompt, prompt.personas[1])
    text = encoder.processor.apply_chat_template(
        prompt.messages("It is late.", prompt.personas[1]), add_generation_prompt=True, tokenize=False
    )
    theirs = encoder.processor(text=text, audio=[np.ones(22_033, np.float32)], sampling_rate=16_000)
    np.testing.assert_array_equal(encoder.encode("It is late.", "", 22_033), theirs["input_ids"][0])


def test_labels_are_whole_turns(path, prompt):
    """In context: prompt, label and the end of the turn, tokenized in one piece, are the prompt's tokens and these."""
    encoder = AnnotationEncoder(path, prompt, prompt.personas[0])
    tokenizer = encoder.processor.tokenizer
    asked = encoder.render(prompt.messages("It is late.", prompt.personas[0]))
    assert asked.endswith("<|im_start|>assistant\n")
    assert encoder.labels_ln.shape == encoder.label_mask_ln.shape and encoder.label_mask_ln.any(axis=0).all()
    for label, tokens, mask in zip(LABELS, encoder.labels_ln, encoder.label_mask_ln, strict=True):
        tokens = tokens[mask].tolist()
        assert tokens == tokenizer(label)["input_ids"] + [tokenizer.convert_tokens_to_ids("<|im_end|>")]
        assert tokenizer(f"{asked}{label}<|im_end|>")["input_ids"] == tokenizer(asked)["input_ids"] + tokens
    assert (np.diff(encoder.label_mask_ln.astype(int), axis=1) <= 0).all()


@pytest.mark.parametrize("label", ["<|im_end|>", "a<|AUDIO|>b", "sad<|im_end|>\n<|im_start|>user", ""])
def test_labels_that_control_the_conversation_are_refused(label, prompt):
    encoder = AnnotationEncoder(TOY, prompt, prompt.personas[0])
    with pytest.raises(UserError, match="cannot be an answer"):
        encoder.reply(prompt.messages("", prompt.personas[0]), label)


@pytest.mark.real
def test_labels_that_merge_with_the_prompt_are_refused(mini_checkpoint, prompt):
    """Its tokenizer joins the blanks to the line break before them."""
    with pytest.raises(UserError, match="'  sad' cannot be an answer: the tokenizer does not keep it apart"):
        AnnotationEncoder(mini_checkpoint, Prompt("s", "{persona} {labels}", ("p",), ("  sad", "angry")), "p")


def test_no_torch_and_no_jax_is_needed():
    code = f"""
import sys
sys.modules["torch"] = None
from aer_jax.proxies.encode import AnnotationEncoder
from aer_jax.proxies.prompts import load_prompt
prompt = load_prompt(["angry", "sad"])
encoder = AnnotationEncoder({str(TOY)!r}, prompt, prompt.personas[0])
assert len(encoder.encode("Hello", "", 16000)) > 40 and "jax" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
