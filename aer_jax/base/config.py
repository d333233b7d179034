"""config.json of a base checkpoint: read by transformers, and refused where it describes what is not implemented."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from aer_jax.base.hub import find_checkpoint
from aer_jax.base.lengths import MAX_SAMPLES, frame_count, state_count
from aer_jax.errors import UserError
from aer_jax.files.atomic import read_json

# Sizes, and the most that is believed of one: transformers builds lists of some before anything can be compared.
MOST, MOST_LAYERS = 10_000_000, 10_000
POSITIONS = state_count(frame_count(MAX_SAMPLES))  # of the audio tower, for 30 s
SIZES = {
    "audio_config": {
        "num_mel_bins": MOST, "d_model": MOST, "encoder_layers": MOST_LAYERS, "encoder_attention_heads": MOST_LAYERS,
        "encoder_ffn_dim": MOST, "max_source_positions": MOST,
    },
    "text_config": {
        "vocab_size": MOST, "hidden_size": MOST, "num_hidden_layers": MOST_LAYERS, "num_attention_heads": MOST_LAYERS,
        "num_key_value_heads": MOST_LAYERS, "head_dim": MOST, "intermediate_size": MOST,
        "max_position_embeddings": 10**12,
    },
}  # fmt: skip
# Of the rotary embeddings; the first is the only one that means something without the others.
ROPE_FIELDS = {"rope_theta", "rope_type", "type"}


def read_config(checkpoint: str | Path):
    """transformers' Qwen2AudioConfig of a checkpoint.

    Raises:
        UserError: there is no readable config.json of a Qwen2-Audio model, or it contradicts itself, or describes one
            that computes something else.
    """
    from transformers import Qwen2AudioConfig

    file = find_checkpoint(checkpoint) / "config.json"
    about = read_json(file, "copy the checkpoint again")
    kind = about.get("model_type")
    if kind != "qwen2_audio":
        raise UserError(f'{file} describes a "{kind}" model, not a qwen2_audio one.')
    _refuse_sizes(about, file)
    try:
        config = Qwen2AudioConfig.from_pretrained(file.parent, local_files_only=True)
    except Exception as error:  # its validators' own, and whatever comes of values of other types
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise UserError(
            f"{file} does not describe a Qwen2-Audio model ({reason}); copy the checkpoint again."
        ) from None
    _refuse_other_computations(config, file)
    _refuse_contradictions(config, about, file)
    return config


def _refuse_sizes(about: dict[str, Any], file: Path) -> None:
    for section, sizes in SIZES.items():
        fields = about.get(section)
        if fields is not None and not isinstance(fields, dict):
            raise UserError(f"{file}: {section} is {_short(fields)}, not an object; copy the checkpoint again.")
        for name, most in sizes.items():
            size = (fields or {}).get(name)
            if size is not None and (type(size) is not int or not 1 <= size <= most):
                raise UserError(
                    f"{file}: {section}.{name} is {_short(size)}, not an integer from 1 to {most:,}; copy the "
                    "checkpoint again."
                )


def _refuse_other_computations(config, file: Path) -> None:
    """What transformers would compute, and this package does not."""
    text, audio = config.text_config, config.audio_config
    rope = text.rope_parameters if isinstance(text.rope_parameters, dict) else {}
    implemented = (
        ("text_config.model_type", text.model_type, "qwen2"),
        ("audio_config.model_type", audio.model_type, "qwen2_audio_encoder"),
        ("text_config.rope_type", rope.get("rope_type", "default"), "default"),
        ("text_config.use_sliding_window", bool(getattr(text, "use_sliding_window", False)), False),
        ("text_config.hidden_act", getattr(text, "hidden_act", None), "silu"),
        ("audio_config.activation_function", getattr(audio, "activation_function", None), "gelu"),
        ("audio_config.scale_embedding", bool(getattr(audio, "scale_embedding", False)), False),
    )
    for name, is_now, expected in implemented:
        if is_now != expected:
            raise UserError(f"{file}: {name} is {_short(is_now)}; only {expected}, as in Qwen2-Audio, is implemented.")
    if other := {str(kind) for kind in text.layer_types or ()} - {"full_attention"}:
        raise UserError(
            f"{file}: text_config.layer_types has {', '.join(sorted(other))}; only full_attention, as in Qwen2-Audio, "
            "is implemented."
        )
    if unknown := sorted(name for name, value in rope.items() if name not in ROPE_FIELDS and value is not None):
        raise UserError(f"{file}: text_config's rotary embeddings set {', '.join(unknown)}, which is not implemented.")
    numbers = {"rope_theta": rope.get("rope_theta"), "rms_norm_eps": text.rms_norm_eps}
    for name, value in numbers.items():
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise UserError(f"{file}: text_config.{name} is {_short(value)}, not a number above 0.")


def _refuse_contradictions(config, about: dict[str, Any], file: Path) -> None:
    """Fields that do not fit one another, or the 30 s that the log-mel has."""
    text, audio = config.text_config, config.audio_config
    head_dim = getattr(text, "head_dim", None)
    pairs = [
        ("audio_config.d_model", audio.d_model, "audio_config.encoder_attention_heads", audio.encoder_attention_heads),
        (
            "text_config.num_attention_heads", text.num_attention_heads,
            "text_config.num_key_value_heads", text.num_key_value_heads,
        ),
    ]  # fmt: skip
    if head_dim is None:
        pairs.append(
            ("text_config.hidden_size", text.hidden_size, "text_config.num_attention_heads", text.num_attention_heads)
        )
    for whole, size, part, count in pairs:
        if size % count:
            raise UserError(f"{file}: {whole} is {size}, which {part}, {count}, does not divide.")
    head_dim = head_dim or text.hidden_size // text.num_attention_heads
    if head_dim % 2:
        raise UserError(f"{file}: a head of text_config is {head_dim} wide; rotary embeddings need an even width.")
    if audio.max_source_positions < POSITIONS:
        raise UserError(
            f"{file}: audio_config.max_source_positions is {audio.max_source_positions}; 30 s take {POSITIONS}."
        )
    theta = (about.get("text_config") or {}).get("rope_theta", text.rope_parameters["rope_theta"])
    if theta != text.rope_parameters["rope_theta"]:
        raise UserError(
            f"{file}: text_config.rope_theta is {_short(theta)}, and text_config.rope_parameters.rope_theta "
            f"{text.rope_parameters['rope_theta']}; remove the wrong one."
        )
    for name, value in (
        ("audio_token_index", config.audio_token_id),
        *((f"text_config.{name}_token_id", getattr(text, f"{name}_token_id")) for name in ("bos", "eos", "pad")),
    ):
        for token in value if isinstance(value, list) else [value]:
            if token in (None, -1) and name != "audio_token_index":
                continue  # two ways to say that there is none
            if not 0 <= token < text.vocab_size:
                raise UserError(
                    f"{file}: {name} is {token}, and text_config.vocab_size {text.vocab_size}; the token has no "
                    "embedding."
                )


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:40]}..."
