"""A random tiny Qwen2-Audio in Hugging Face layout and a few toy clips, for the whole way through the worker."""

import pytest
import torch
from tiny_models import SPECIAL, TEMPLATE, make_tokenizer, sharpen, text_config
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from aer_jax.annotation.listeners import coupled
from aer_jax.annotation.prompts import load_prompt
from aer_jax.annotation.task import AnnotationTask
from aer_jax.corpora.toy import corpus as toy
from aer_jax.data.preparation.prepare import prepare


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Six toy clips of three speakers."""
    return prepare(toy.generate(clips=6, speakers=3), tmp_path_factory.mktemp("toy") / "dataset")


@pytest.fixture(scope="session")
def task(dataset):
    """What is asked by default about these clips."""
    return AnnotationTask(dataset, load_prompt(dataset.classes))


@pytest.fixture(scope="session")
def rows(dataset):
    """Three listeners of each clip; every second clip has no words, so that lengths differ."""
    prompt = load_prompt(dataset.classes)
    people = [coupled(5, prompt.personas)[i] for i in (0, 3, 4)]
    return [
        {
            "utterance": id,
            "messages": prompt.messages(utterance.transcript * (n % 2), person.persona),
            "temperature": person.temperature,
            "seed": person.seed(id),
        }
        for n, (id, utterance) in enumerate(dataset.utterances.items())
        for person in people
    ]


@pytest.fixture(scope="session")
def asked(dataset):
    """A conversation like those of the rows, by which a model is tried when it is opened."""
    prompt = load_prompt(dataset.classes)
    return prompt.messages("", prompt.personas[0])


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A directory whose model has random weights, sharp enough that what it says depends on what it hears."""
    path, tokenizer = tmp_path_factory.mktemp("models") / "tiny", make_tokenizer()
    Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer).save_pretrained(path)
    torch.manual_seed(0)
    config = Qwen2AudioConfig(
        audio_config={
            "num_mel_bins": 80, "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32, "init_std": 0.2,
        },
        text_config=text_config(tokenizer),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )  # fmt: skip
    model = Qwen2AudioForConditionalGeneration(config)
    sharpen(model, tokenizer)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def flamingo(tmp_path_factory):
    """A random tiny Audio Flamingo 3: another graph, processor and template, and an audio token without bars."""
    path, tokenizer = tmp_path_factory.mktemp("models") / "flamingo", make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [*SPECIAL, "<sound>"]})
    AudioFlamingo3Processor(WhisperFeatureExtractor(feature_size=80), tokenizer, TEMPLATE).save_pretrained(path)
    torch.manual_seed(0)
    config = AudioFlamingo3Config(
        audio_config={
            "model_type": "audioflamingo3_encoder", "num_mel_bins": 80, "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.2,
        },
        text_config={"model_type": "qwen2", **text_config(tokenizer)},
        audio_token_id=tokenizer.convert_tokens_to_ids("<sound>"),
    )  # fmt: skip
    model = AudioFlamingo3ForConditionalGeneration(config)
    sharpen(model, tokenizer)
    model.save_pretrained(path)
    return path
