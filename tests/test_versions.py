"""What a released transformers may change under trained adapters: the prompt, its audio tokens, the log-mel.

The values were written down from transformers 5.23. A failure here is no rounding: an adapter that was trained before
the change would be given something else after it.
"""

from pathlib import Path

import jax
import numpy as np
import pytest
import transformers
from transformers import AutoTokenizer, Qwen2AudioProcessor, WhisperFeatureExtractor

import aer_jax
from aer_jax.base.lengths import SAMPLE_RATE, frame_count, token_count
from aer_jax.models.log_mel import log_mel

TOY = Path(aer_jax.__file__).parent / "demo" / "checkpoint"

PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nListen.\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\n<|im_end|>\n"
    "<|im_start|>assistant\n"
)
AUDIO_TOKENS = {1600: 2, 1919: 3, 22_033: 34, 48_000: 75, 133_333: 208, 479_999: 750, 480_000: 750}
FRAMES = (0, 25, 50, 99, 100, 101, 2999)
LOG_MEL = {  # bins -> {bin: values at FRAMES} of `chirp`
    80: {
        0: (1.04571, 0.03533, 0.03532, 0.38179, 0.8837, 0.28005, -0.69814),
        5: (1.14827, 1.30185, 1.30185, 1.30143, 1.17503, 0.24036, -0.69814),
        20: (0.53487, -0.60212, -0.59397, -0.19291, 0.29838, -0.21678, -0.69814),
        40: (0.40048, 1.02649, -0.69814, -0.69814, -0.55301, -0.69814, -0.69814),
        79: (-0.14162, -0.69814, -0.69814, -0.53336, -0.02322, -0.53336, -0.69814),
    },
    128: {
        0: (0.96995, -0.04043, -0.04044, 0.30603, 0.80794, 0.20429, -0.67249),
        5: (1.13568, 0.81177, 0.81177, 0.81525, 0.98558, 0.1891, -0.67249),
        20: (0.63311, -0.12546, -0.12512, 0.07089, 0.56356, 0.07415, -0.67249),
        40: (1.02757, -0.67249, -0.67249, -0.28309, 0.22682, -0.26901, -0.67249),
        127: (-0.1421, -0.67249, -0.67249, -0.53431, -0.02415, -0.53434, -0.67249),
    },
}


def unchanged(what: str, now, then, tolerance: float = 0) -> None:
    """Fail with a sentence that says who changed what and what to do."""
    same = now == then if isinstance(then, str) else np.allclose(now, then, rtol=0, atol=tolerance)
    assert same, (
        f"transformers {transformers.__version__} changed {what}: {now!r}, where 5.23 gave {then!r}. Runs and adapters "
        "made before would be fed something else. Bound transformers below this version in pyproject.toml, or follow "
        "the change in aer_jax and retrain, and only then write the new values here."
    )


@pytest.fixture(scope="module")
def processor():
    """As for the published 7B, whose repository has no chat template: the template is the class' own."""
    tokenizer = AutoTokenizer.from_pretrained(TOY)
    tokenizer.chat_template = None
    return Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=128), tokenizer)


def test_the_rendered_prompt(processor):
    content = [{"type": "text", "text": "Listen.\n"}, {"type": "audio", "audio_url": "recording"}]
    conversation = [{"role": "user", "content": content}]
    rendered = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    unchanged("Qwen2-Audio's chat template", rendered, PROMPT)


@pytest.mark.parametrize("samples", AUDIO_TOKENS)
def test_the_number_of_audio_tokens(processor, samples):
    text = "<|audio_bos|><|AUDIO|><|audio_eos|>"
    ids = processor(text=text, audio=[np.ones(samples, np.float32)], sampling_rate=SAMPLE_RATE)["input_ids"][0]
    audio_token = processor.tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    expected = AUDIO_TOKENS[samples]
    unchanged(f"how many audio tokens {samples} samples give", np.sum(np.equal(ids, audio_token)), expected)
    assert token_count(frame_count(samples)) == expected


@pytest.mark.parametrize("bins", LOG_MEL)
def test_the_log_mel(bins):
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    chirp = 0.3 * np.sin(2 * np.pi * 220 * t) + 0.1 * np.sin(2 * np.pi * (1000 + 1500 * t) * t)
    audio = np.pad(chirp.astype(np.float32), (0, 29 * SAMPLE_RATE))
    theirs = WhisperFeatureExtractor(feature_size=bins)(audio, sampling_rate=SAMPLE_RATE)["input_features"][0]
    ours = jax.jit(log_mel, static_argnums=1)(audio[None], bins)[0].T
    assert np.shape(theirs) == ours.shape == (bins, 3000)
    for row, then in LOG_MEL[bins].items():
        unchanged(f"the log-mel ({bins} bins, bin {row})", np.array(theirs)[row, FRAMES], then, 1e-4)
        np.testing.assert_allclose(ours[row, FRAMES], then, rtol=0, atol=1e-4)


def test_a_change_is_said_clearly():
    with pytest.raises(AssertionError, match=r"transformers \S+ changed the prompt: 'b', where 5.23 gave 'a'.*retrain"):
        unchanged("the prompt", "b", "a")
    with pytest.raises(AssertionError, match="changed the log-mel"):
        unchanged("the log-mel", np.array([1.0, 2.0]), (1.0, 2.001), 1e-4)
