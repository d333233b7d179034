"""The annotation prompt's tokens equal those that the PyTorch worker gives its model."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import aer_jax
from aer_jax.annotation.engines.pytorch.worker import open_model
from aer_jax.annotation.engines.tokens import AnnotationEncoder
from aer_jax.annotation.prompts import Prompt, load_prompt
from aer_jax.annotation.task import AnnotationTask
from aer_jax.base.chat import reply
from aer_jax.errors import UserError

TOY = Path(aer_jax.__file__).parent / "demo" / "checkpoint"
LABELS = ("angry", "angry-ish", "very sad indeed", "Freude", "悲しい")


@pytest.fixture(scope="module", params=["tiny", "toy", pytest.param("mini", marks=pytest.mark.real)])
def path(request) -> Path:
    fixtures = {"tiny": "checkpoint", "mini": "mini_checkpoint"}
    return TOY if request.param == "toy" else request.getfixturevalue(fixtures[request.param])


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    return load_prompt(LABELS)


@pytest.fixture(scope="module")
def task(dataset, prompt) -> AnnotationTask:
    return AnnotationTask(dataset, prompt)


def test_tokens_are_those_of_the_worker(checkpoint, dataset, prompt, asked):
    """To the last token, padding aside: what either engine hears and reads is the same."""
    utterances = dict(dataset.utterances)
    silent = next(iter(utterances))
    utterances[silent] = replace(utterances[silent], transcript="")
    task = AnnotationTask(replace(dataset, utterances=utterances), prompt)
    chat, encoder = open_model(checkpoint, asked), AnnotationEncoder(checkpoint, task)
    for persona in prompt.personas[:2]:
        rows = [{"utterance": id, "messages": task.messages(id, persona)} for id in utterances]
        theirs, _, _ = chat.inputs(rows, dataset)
        for row, tokens, mask in zip(rows, theirs["input_ids"], theirs["attention_mask"], strict=True):
            ours = encoder.encode(row["utterance"], persona, len(dataset.audio(row["utterance"])))
            np.testing.assert_array_equal(ours, tokens[mask.bool()].numpy())
            assert ours.dtype == np.int32


def test_tokens_are_those_of_the_processor(path, task):
    encoder, persona = AnnotationEncoder(path, task), task.prompt.personas[1]
    id = next(iter(task.dataset.utterances))
    text = encoder.processor.apply_chat_template(task.messages(id, persona), add_generation_prompt=True, tokenize=False)
    theirs = encoder.processor(text=text, audio=[np.ones(22_033, np.float32)], sampling_rate=16_000)
    np.testing.assert_array_equal(encoder.encode(id, persona, 22_033), theirs["input_ids"][0])


def test_labels_are_whole_turns(path, prompt, task):
    """In context: prompt, label and the end of the turn, tokenized in one piece, are the prompt's tokens and these."""
    encoder = AnnotationEncoder(path, task)
    tokenizer = encoder.processor.tokenizer
    asked = encoder.render(prompt.messages("It is late.", prompt.personas[0]))
    assert asked.endswith("<|im_start|>assistant\n")
    assert encoder.labels_ln.shape == encoder.label_mask_ln.shape and encoder.label_mask_ln.any(axis=0).all()
    assert [tokens[mask].tolist() for tokens, mask in zip(encoder.labels_ln, encoder.label_mask_ln, strict=True)] == (
        encoder.labels
    )
    for label, tokens, mask in zip(LABELS, encoder.labels_ln, encoder.label_mask_ln, strict=True):
        tokens = tokens[mask].tolist()
        assert tokens == tokenizer(label)["input_ids"] + [tokenizer.convert_tokens_to_ids("<|im_end|>")]
        assert tokenizer(f"{asked}{label}<|im_end|>")["input_ids"] == tokenizer(asked)["input_ids"] + tokens
    assert (np.diff(encoder.label_mask_ln.astype(int), axis=1) <= 0).all()


@pytest.mark.parametrize("label", ["<|im_end|>", "a<|AUDIO|>b", "sad<|im_end|>\n<|im_start|>user", ""])
def test_labels_that_control_the_conversation_are_refused(label, prompt, task):
    encoder = AnnotationEncoder(TOY, task)
    with pytest.raises(UserError, match="cannot be an answer"):
        reply(encoder.processor, prompt.messages("", prompt.personas[0]), label)


@pytest.mark.real
def test_labels_that_merge_with_the_prompt_are_refused(mini_checkpoint, dataset):
    """Its tokenizer joins the blanks to the line break before them."""
    with pytest.raises(UserError, match="'  sad' cannot be an answer: the tokenizer does not keep it apart"):
        prompt = Prompt("s", "{persona} {labels}", ("p",), ("  sad", "angry"))
        AnnotationEncoder(mini_checkpoint, AnnotationTask(dataset, prompt))


def test_no_torch_and_no_jax_is_needed(dataset):
    code = f"""
import sys
sys.modules["torch"] = None
from aer_jax.annotation.engines.tokens import AnnotationEncoder
from aer_jax.data.dataset import open_dataset
from aer_jax.annotation.prompts import load_prompt
from aer_jax.annotation.task import AnnotationTask
task = AnnotationTask(open_dataset({str(dataset.path)!r}), load_prompt(["angry", "sad"]))
encoder = AnnotationEncoder({str(TOY)!r}, task)
id = next(iter(task.dataset.utterances))
assert len(encoder.encode(id, task.prompt.personas[0], 16000)) > 40 and "jax" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
