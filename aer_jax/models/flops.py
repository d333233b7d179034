"""FLOP counts of a traced function, loops included, and the nominal 4N."""

from __future__ import annotations

import math

import jax
from jax.extend import core


def count_flops(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> int:
    """Operations of the matrix products and convolutions in a jaxpr, a multiplication and an addition being two.

    All else is left out: it is a per cent of the whole and bound by memory. XLA's own count takes the body of a loop
    once, however often it runs; here a scan counts `length` times, what is inside `jax.checkpoint` as often as it is
    written, so that recomputation in the backward pass is included.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation) -> int:
    name, inputs = equation.primitive.name, [v.aval for v in equation.invars]
    outputs = [v.aval for v in equation.outvars]
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * math.prod(outputs[0].shape) * math.prod(inputs[0].shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        numbers = equation.params["dimension_numbers"]
        kernel = inputs[1].shape
        taps = math.prod(kernel) // kernel[numbers.rhs_spec[0]]  # window x input features of one group
        return 2 * math.prod(outputs[0].shape) * taps // equation.params["batch_group_count"]
    times = equation.params["length"] if name == "scan" else 1
    inner = [count_flops(sub) for sub in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr) if _is_jaxpr(sub)]
    # Of the branches of a `cond` one is taken.
    return times * (max(inner, default=0) if name == "cond" else sum(inner))


def _is_jaxpr(value) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def model_flops(base_config, frames: int, tokens: int) -> int:
    """Nominal 4N FLOP per utterance: forward and backward through frozen layers, without weight gradients.

    N are the weights that each position meets: of the audio tower's layers for `frames / 2` positions, of the projector
    for `frames / 4`, of the language model's layers for `tokens`. Attention scores, recomputation, adapters and head
    are not counted, as is usual where utilisation (MFU) is quoted; full training would be 6N.

    Args:
        base_config: transformers' Qwen2AudioConfig.
        frames: mel frames of the window.
        tokens: of the prompt, audio tokens included.
    """
    audio, text = base_config.audio_config, base_config.text_config
    d, a = text.hidden_size, audio.d_model
    head = getattr(text, "head_dim", None) or d // text.num_attention_heads
    attention = 2 * d * head * (text.num_attention_heads + text.num_key_value_heads)
    language = text.num_hidden_layers * (attention + 3 * d * text.intermediate_size)
    tower = audio.encoder_layers * (4 * a * a + 2 * a * audio.encoder_ffn_dim)
    return 4 * (tokens * language + frames // 2 * tower + frames // 4 * a * d)
