"""How samples become mel frames, encoder states and <|AUDIO|> tokens; for plain integers and for arrays."""

from __future__ import annotations

SAMPLE_RATE = 16_000
HOP = 160  # samples a mel frame
MAX_SAMPLES = 30 * SAMPLE_RATE  # what the audio tower's positions can hold
# Zeros that must follow a clip's last frame in its window: conv1 and conv2 look one mel frame ahead each. Then no state
# of the clip feels the window's end.
TAIL = 2 * HOP


def frame_count(samples):
    """Mel frames of a clip: one for each hop begun, as WhisperFeatureExtractor's attention mask counts."""
    return (samples + HOP - 1) // HOP


def state_count(frames):
    """Encoder positions of `frames` mel frames, after the stride-2 convolution."""
    return (frames - 1) // 2 + 1


def token_count(frames):
    """Audio tokens of `frames` mel frames, after the pooling of pairs."""
    return (state_count(frames) - 2) // 2 + 1
