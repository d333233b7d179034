"""A checkpoint's tokenizer, feature extractor and chat template, compared with its config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aer_jax.base.chat_template import SYSTEM, TRIAL, WORDS, rendered, try_template
from aer_jax.base.lengths import HOP, MAX_SAMPLES, SAMPLE_RATE
from aer_jax.errors import UserError
from aer_jax.files.atomic import read_json

# What the log-mel is computed with; the number of mels is the checkpoint's own.
FEATURES = {
    "sampling_rate": SAMPLE_RATE, "hop_length": HOP, "n_fft": 400, "chunk_length": MAX_SAMPLES // SAMPLE_RATE,
    "padding_value": 0, "dither": 0,
}  # fmt: skip
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def load_processor(path: Path, config: Any) -> Any:
    """transformers' Qwen2AudioProcessor of a checkpoint.

    Args:
        path: a checkpoint directory.
        config: its Qwen2AudioConfig.

    Raises:
        UserError: there is none that can be read, or it does not fit the config.
    """
    from transformers import Qwen2AudioProcessor

    for name in PROCESSOR_FILES:  # before filters of any size are computed
        if (path / name).is_file():
            about = read_json(path / name, "copy the checkpoint again")
            fields = about.get("feature_extractor", about)
            _refuse_features(fields if isinstance(fields, dict) else {}, config, name, path)
    try:
        processor = Qwen2AudioProcessor.from_pretrained(path, local_files_only=True)
    except Exception as error:  # as various as the libraries that read these files
        why = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(
            f"{path} holds no tokenizer and processor files of Qwen2-Audio that can be read ({type(error).__name__}: "
            f"{why}); copy the whole checkpoint."
        ) from None
    refuse_misfit(processor, config, path)
    return processor


def refuse_misfit(processor: Any, config: Any, path: Any) -> None:
    """Compare a processor with the config next to it.

    Args:
        processor: transformers' Qwen2AudioProcessor.
        config: transformers' Qwen2AudioConfig.
        path: of the checkpoint.

    Raises:
        UserError: they contradict each other, or the chat template writes something else than what it is given.
    """
    from transformers import WhisperFeatureExtractor

    extractor = processor.feature_extractor
    if not isinstance(extractor, WhisperFeatureExtractor):
        raise UserError(
            f"{path}: its feature extractor is a {type(extractor).__name__}, not a WhisperFeatureExtractor as "
            "Qwen2-Audio's."
        )
    _refuse_features(vars(extractor), config, "feature extractor", path)
    _refuse_tokens(processor, config, path)
    try_template(processor, path)
    text = rendered(processor, TRIAL, path)
    for what, words in (("system line", SYSTEM), ("text", WORDS)):
        if words not in text:
            raise UserError(f"the chat template of {path} leaves out the {what} of a conversation; replace it.")
    audio_tokens(processor, text, path)
    ids = set(processor.tokenizer(text)["input_ids"])
    for token in re.findall(r"<\|[^<|>]*\|>", text):
        if processor.tokenizer.convert_tokens_to_ids(token) not in ids - {processor.tokenizer.unk_token_id}:
            raise UserError(
                f"the chat template of {path} writes {token}, which is no token of its tokenizer; copy tokenizer and "
                "template from one checkpoint."
            )


def audio_tokens(processor: Any, text: str, path: Any) -> list[int]:
    """The tokens of a rendered conversation about one recording, with exactly one for the recording.

    Raises:
        UserError: there is none, or more than one.
    """
    ids = processor.tokenizer(text)["input_ids"]
    token = processor.audio_token
    if (count := ids.count(processor.tokenizer.convert_tokens_to_ids(token))) != 1:
        if count == 0 and text.count(token) == 1:
            raise UserError(
                f"the tokenizer of {path} splits {token} into several tokens; copy the tokenizer of Qwen2-Audio."
            )
        raise UserError(
            f"the chat template of {path} writes {token} {count} times for one recording instead of once; take a "
            "template with one place for each audio."
        )
    return ids


def _refuse_features(fields: Mapping[str, Any], config: Any, where: str, path: Any) -> None:
    expected = FEATURES | {"feature_size": config.audio_config.num_mel_bins}
    for name, value in expected.items():
        if fields.get(name, value) != value:
            other = "num_mel_bins in config.json" if name == "feature_size" else "Qwen2-Audio's"
            raise UserError(
                f"{path}: {name} in its {where} is {repr(fields[name])[:40]}, and {other} is {value}; copy both from "
                "one checkpoint."
            )


def _refuse_tokens(processor: Any, config: Any, path: Any) -> None:
    tokenizer, token = processor.tokenizer, processor.audio_token
    audio_id = tokenizer.convert_tokens_to_ids(token) if isinstance(token, str) else None
    if audio_id in (None, tokenizer.unk_token_id):
        raise UserError(f"the tokenizer in {path} has no {token} token; it is not Qwen2-Audio's.")
    if audio_id != config.audio_token_id:
        raise UserError(
            f"{path}/config.json: audio_token_index is {config.audio_token_id}, but {token} is token {audio_id} of "
            "the tokenizer; copy both from one checkpoint."
        )
    name, last = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if last >= config.text_config.vocab_size:
        raise UserError(
            f"{path}: {name!r} is token {last} of the tokenizer, but text_config.vocab_size in config.json is "
            f"{config.text_config.vocab_size}; copy both from one checkpoint."
        )
    if not isinstance(tokenizer.model_max_length, int | float):
        raise UserError(f"the tokenizer in {path} has a model_max_length of {tokenizer.model_max_length!r}, no number.")
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer in {path} has neither a pad_token nor an eos_token; name one of them.")
