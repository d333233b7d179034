"""Audio as phones, browsers, pipes and copying leave it; the files lie beside the checkout."""

import json
from pathlib import Path

import pytest

from aer_jax.data.audio.read import BadAudio, decode_bytes, read_audio, seconds

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "audio"
EXPECTED = json.loads((CASES / "expected.json").read_text()) if CASES.exists() else {}
EXPECTED.pop("what", None)
pytestmark = pytest.mark.skipif(not EXPECTED, reason=f"no cases at {CASES}")


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_case_is_read_whole_or_refused_in_one_sentence(name):
    right = EXPECTED[name]
    try:
        waveform = read_audio(CASES / name)
    except BadAudio as error:
        refused = right.get("refused") or right["or"]
        assert ("git lfs pull" if "LFS" in refused else "two recordings") in str(error)
        assert name in str(error) and "\n" not in str(error)
        return
    assert len(waveform.samples) / waveform.rate == pytest.approx(right["seconds"], abs=0.1)
    assert seconds(CASES / name) == pytest.approx(right["seconds"], abs=0.1)
    assert waveform.samples.std() > 0.01
    piped = decode_bytes((CASES / name).read_bytes(), "standard input")
    assert len(piped.samples) == len(waveform.samples)
