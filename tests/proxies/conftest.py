"""A random tiny Qwen2-Audio in Hugging Face layout and a few toy clips, for the whole way through the worker."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from aer_jax.corpora import toy
from aer_jax.data.prepare import prepare
from aer_jax.proxies.prompts import load_prompt
from aer_jax.proxies.questions import Questions

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
WORDS = ["angry", "happy", "neutral", "sad"]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Six toy clips of three speakers."""
    return prepare(toy.generate(clips=6, speakers=3), tmp_path_factory.mktemp("toy") / "dataset")


@pytest.fixture(scope="session")
def questions(dataset):
    """What is asked by default about these clips."""
    return Questions(dataset, load_prompt(dataset.classes))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A directory whose model has random weights, sharp enough that what it says depends on what it hears."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet, *WORDS])}
    tokenizer = Tokenizer(models.BPE(vocab={t: i for t, i in vocabulary.items() if t not in WORDS}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL,
    )
    fast.add_tokens(WORDS)
    Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=80), fast).save_pretrained(path)

    torch.manual_seed(0)
    config = Qwen2AudioConfig(
        audio_config={
            "num_mel_bins": 80, "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32, "init_std": 0.2,
        },
        text_config={
            "vocab_size": len(fast) + 6,  # more columns than the tokenizer has tokens, as published checkpoints
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 64, "bos_token_id": 0, "eos_token_id": 2, "initializer_range": 0.2,
        },
        audio_token_index=fast.convert_tokens_to_ids("<|AUDIO|>"),
    )  # fmt: skip
    model = Qwen2AudioForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
        labels = fast.convert_tokens_to_ids(WORDS)
        model.lm_head.weight[[*labels, 2]] *= 3  # labels and the end are often what it says
    model.save_pretrained(path)
    return path
