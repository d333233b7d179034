import numpy as np
import pytest
import soundfile
import toy_runs

from aer_jax.data.dataset import open_dataset


@pytest.fixture
def speech(tmp_path):
    """Write some of the toy corpus' test clips, one after the other, as a file."""
    dataset = open_dataset(toy_runs.toy_dataset())
    clips = [dataset.audio(id) for id in dataset.splits["test"]]

    def write(name, *numbers, rate=16_000, seconds=None):
        samples = np.concatenate([clips[i] for i in numbers])
        if seconds:
            samples = np.resize(samples, round(seconds * 16_000))
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, samples, rate)
        return file

    return write
