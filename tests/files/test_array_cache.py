"""A cached array is what was written, or of no use."""

import numpy as np
import pytest

from aer_jax.files.cache import load_array, save_array

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_an_array_and_its_words_come_back(tmp_path):
    save_array(tmp_path / "folder" / "a", ARRAY.T, {"of": "ü"})
    array, about = load_array(tmp_path / "folder" / "a")
    np.testing.assert_array_equal(array, ARRAY.T)
    assert about == {"of": "ü"} and [path.name for path in (tmp_path / "folder").iterdir()] == ["a"]


def test_a_flipped_bit_anywhere_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "a"
    save_array(path, ARRAY, {"of": "x"})
    whole, noticed = path.read_bytes(), 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            array, about = load_array(path)
            assert np.array_equal(array, ARRAY) and about == {"of": "x"}
        except ValueError:
            noticed += 1
    assert noticed > len(whole) / 2


def test_what_is_not_there_or_older_is_said(tmp_path):
    with pytest.raises(OSError):
        load_array(tmp_path / "none")
    from safetensors.numpy import save_file

    save_file({"features": ARRAY}, tmp_path / "old")
    with pytest.raises(ValueError, match="an older version wrote it"):
        load_array(tmp_path / "old")
