"""Parts of models so small that a test can build them: a tokenizer, a chat template, two layers of language model."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
WORDS = ["angry", "happy", "neutral", "sad"]
# In the manner of Audio Flamingo 3: ChatML with one token for the audio.
TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'audio' %}<sound>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, the tokens that Qwen's template writes, and each label as one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL,
    )
    fast.add_tokens(WORDS)
    return fast


def text_config(tokenizer: PreTrainedTokenizerFast) -> dict:
    """A language model of two layers."""
    return {
        "vocab_size": len(tokenizer) + 6,  # more columns than the tokenizer has tokens, as published checkpoints
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 64, "bos_token_id": 0, "eos_token_id": 2, "initializer_range": 0.2,
    }  # fmt: skip


def sharpen(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast) -> None:
    """Make what a random model says depend on what it hears, and be a label or the end often."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
        model.lm_head.weight[[*tokenizer.convert_tokens_to_ids(WORDS), 2]] *= 3
