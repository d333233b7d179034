"""How long synthetic votes about a large corpus would take, by arithmetic alone: nothing here was timed on such chips.

Of every chip a whole copy of the model is assumed, so chips add up. Operations are 2 a weight and position (`flops`),
bytes are the weights once a pass and the keys and values of a batch; both go through the roofline of `estimate`, at its
assumed shares of the peaks. Three ways to ask:

    transformers  the tower hears 30 s once a clip; each answer is a prompt and `answer` decoded tokens
    server        the same, the tower once an answer, as a server that keeps nothing between requests does it
    exact         the tower hears the clip's own length once; each persona is a prompt, temperatures cost nothing
"""

from __future__ import annotations

from typing import Any

from aer_jax.errors import UserError
from aer_jax.lengths import HOP, MAX_SAMPLES, SAMPLE_RATE, TAIL, frame_count, token_count
from aer_jax.scale.chips import Slice
from aer_jax.scale.estimate import roofline
from aer_jax.scale.flops import model_flops

ITEM = 2  # bytes of a bfloat16
ROWS = 64  # prompts at a time
WHOLE = MAX_SAMPLES // HOP


def annotation(
    base: Any,
    chips: Slice,
    utterances: int,
    listeners: int,
    *,
    seconds: float = 5.0,
    prompt: int = 60,
    personas: int = 5,
    answer: int = 4,
    labels: int = 20,
) -> dict[str, Any]:
    """Time of each way to get `listeners` votes about each of `utterances`.

    Args:
        base: transformers' Qwen2AudioConfig.
        chips: how many of which; each holds a whole copy.
        seconds: of a clip.
        prompt: tokens beside the audio's.
        personas: different prompts among the listeners.
        answer: tokens decoded for a sampled answer, its end included.
        labels: tokens of all labels together, packed behind an exact prompt.

    Returns:
        JSON-able: the arguments, and ways {name: {answers_per_s, clips_per_s, hours, compute_s, hbm_s}}; the last two
        are seconds an utterance on one chip, each as if it were all there is.

    Raises:
        UserError: the model does not fit one chip.
    """
    frames = frame_count(int(seconds * SAMPLE_RATE))
    tokens = prompt + token_count(frames)
    text, one = base.text_config, Slice(chips.chip, (1,) * chips.chip.axes)
    tower_bytes, language_bytes = (ITEM * model_flops(base, *size) // 4 for size in ((2, 0), (0, 1)))
    vocabulary = text.vocab_size * text.hidden_size * ITEM
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * head * ITEM  # keys and values of one position
    held = tower_bytes + language_bytes + 2 * vocabulary + ROWS * (tokens + answer) * cache
    if held > chips.chip.hbm:
        raise UserError(
            f"{held / 1e9:.0f} GB of weights and cache do not fit one {chips.chip.name}; name a larger chip."
        )

    def passes(tower_frames: int, positions: float, prompts: float) -> dict[str, float]:
        """Prefill of one utterance, and its share of reading the weights for ROWS prompts at a time."""
        operations = model_flops(base, tower_frames, 0) / 2 + model_flops(base, 0, 1) / 2 * positions
        return roofline(one, operations, (tower_bytes + language_bytes) * prompts / ROWS, 0.0, 0.0)

    step = model_flops(base, 0, 1) / 2 * ROWS, language_bytes + vocabulary + ROWS * tokens * cache
    decoded = {k: v * listeners * answer / ROWS for k, v in roofline(one, *step, 0.0, 0.0).items()}
    asked = min(listeners, personas)
    ways = {
        "transformers": (passes(WHOLE, listeners * tokens, listeners), decoded),
        "server": (passes(WHOLE * listeners, listeners * tokens, listeners), decoded),
        "exact": (passes(frames + TAIL // HOP, asked * (tokens + labels), asked), dict.fromkeys(decoded, 0.0)),
    }
    found = {}
    for name, parts in ways.items():
        whole = {key: sum(part[key] for part in parts) for key in ("step", "compute", "hbm")}
        rate = chips.chips / whole["step"]
        found[name] = {
            "answers_per_s": rate * listeners,
            "clips_per_s": rate,
            "hours": utterances / rate / 3600,
            "compute_s": whole["compute"],
            "hbm_s": whole["hbm"],
        }
    return {
        "topology": str(chips), "utterances": utterances, "listeners": listeners, "seconds": seconds, "tokens": tokens,
        "personas": personas, "answer": answer, "by": "arithmetic, an estimate", "ways": found,
    }  # fmt: skip


def text(plan: dict[str, Any]) -> str:
    """The same in lines."""
    lines = [
        f"{plan['utterances']:,} utterances of {plan['seconds']:g} s x {plan['listeners']} listeners "
        f"({plan['personas']} personas) on {plan['topology']}, prompts of {plan['tokens']} tokens; {plan['by']}",
        f"{'':<14}{'answers/s':>11}{'clips/s':>10}{'hours':>10}",
    ]
    lines += [
        f"{name:<14}{way['answers_per_s']:>11,.0f}{way['clips_per_s']:>10,.1f}{way['hours']:>10,.2f}"
        for name, way in plan["ways"].items()
    ]
    return "\n".join(lines)
