"""Checkpoints are whole or absent, copied before the next step, and not touched by readers."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aer_jax.errors import UserError
from aer_jax.files.content_hash import DIGESTS, folder_digest
from aer_jax.training.checkpoint import Checkpoints


def test_what_is_saved_is_what_was_there(tmp_path):
    """The next step reuses the arrays' memory while the save is under way."""
    bump = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros(300_000)
    with Checkpoints(tmp_path / "c", keep=4) as checkpoints:
        for step in range(1, 5):
            x = bump(x)
            checkpoints.save(step, {"learned": {"x": x}})
            for _ in range(3):
                x = bump(x)
        checkpoints.wait()
        for step in range(1, 5):
            loaded = checkpoints.load(step, {"learned": {"x": x}})["learned"]["x"]
            np.testing.assert_array_equal(loaded, np.full(300_000, 4 * step - 3))


def test_the_latest_are_kept(tmp_path):
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        assert checkpoints.latest is None
        for step in (3, 6, 9):
            checkpoints.save(step, {"learned": {"x": jnp.ones(3)}})
    assert Checkpoints(tmp_path / "c").latest == 9
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["6", "9"]


def test_a_step_can_be_saved_again(tmp_path):
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        for value in (1.0, 2.0):
            checkpoints.save(3, {"learned": {"x": jnp.full(3, value)}})
            checkpoints.wait()
        np.testing.assert_array_equal(checkpoints.load(3, {"learned": {"x": jnp.ones(3)}})["learned"]["x"], [2, 2, 2])


def half_saved(folder):
    half = folder / "9.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "part").write_text("cut short")
    return half


def test_remains_of_a_save_are_not_a_checkpoint(tmp_path):
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.save(3, {"learned": {"x": jnp.ones(3)}})
    half = half_saved(tmp_path / "c")
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        assert checkpoints.latest == 3
        checkpoints.save(6, {"learned": {"x": jnp.ones(3)}})
    assert not half.exists()


def test_reading_leaves_a_save_under_way_alone(tmp_path):
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        for step in (3, 6):
            checkpoints.save(step, {"learned": {"x": jnp.ones(3)}})
    half = half_saved(tmp_path / "c")
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest == 6
    assert half.exists() and (tmp_path / "c" / "3").exists()


@pytest.mark.parametrize("part", [[], ["learned"], ["_CHECKPOINT_METADATA", "learned"]])
def test_a_folder_that_was_not_written_to_its_end_is_no_checkpoint(tmp_path, part):
    """As a copy cut short leaves one, or a file system that renames a folder file by file."""
    folder = tmp_path / "c"
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(3, {"learned": {"x": jnp.ones(3)}})
    (folder / "9").mkdir()
    for name in part:
        copy = shutil.copytree if (folder / "3" / name).is_dir() else shutil.copy
        copy(folder / "3" / name, folder / "9" / name)
    assert Checkpoints(folder).latest == 3
    assert (folder / "9").exists(), "who reads leaves it alone"
    with Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.latest == 3
        for step in (6, 9):
            checkpoints.save(step, {"learned": {"x": jnp.full(3, step)}})
        checkpoints.wait()
        assert checkpoints.latest == 9
        np.testing.assert_array_equal(checkpoints.load(9, {"learned": {"x": jnp.ones(3)}})["learned"]["x"], [9, 9, 9])


@pytest.mark.parametrize("harm", ["other shape", "other names", "file gone"])
def test_what_does_not_fit_is_refused(tmp_path, harm):
    like = {"x": jnp.ones(3)}
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.save(3, {"learned": like})
        checkpoints.wait()
        if harm == "other shape":
            like = {"x": jnp.ones(4)}
        elif harm == "other names":
            like = {"y": jnp.ones(3)}
        else:
            for file in (tmp_path / "c" / "3" / "learned").rglob("*"):
                if file.is_file() and file.name != "commit_success.txt":
                    file.unlink()
        with pytest.raises(UserError, match="cannot be restored"):
            checkpoints.load(3, {"learned": like})


def step_folder(folder):
    """A checkpoint of two arrays at step 3."""
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(3, {"learned": LIKE})
    return folder / "3"


LIKE = {"x": jnp.arange(500.0), "y": jnp.ones((3, 2))}


def test_a_flipped_byte_anywhere_is_noticed(tmp_path):
    """Without digests most of them load as other weights."""
    step = step_folder(tmp_path / "c")
    rng, reader = np.random.default_rng(0), Checkpoints(tmp_path / "c")
    for file in sorted(file for file in step.rglob("*") if file.is_file()):
        whole = file.read_bytes()
        at = int(rng.integers(len(whole)))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UserError, match="cannot be restored"):
            reader.load(3, {"learned": LIKE})
        file.write_bytes(whole)
    np.testing.assert_array_equal(reader.load(3, {"learned": LIKE})["learned"]["x"], LIKE["x"])


def test_a_checkpoint_under_another_step_is_noticed(tmp_path):
    step_folder(tmp_path / "c").rename(tmp_path / "c" / "9")
    with pytest.raises(UserError, match="saved as step 3"):
        Checkpoints(tmp_path / "c").load(9, {"learned": LIKE})


def test_without_digests_it_is_loaded_and_said(tmp_path, capsys):
    """As older versions left them, or a kill between a save and its digests."""
    step = step_folder(tmp_path / "c")
    with_digests = folder_digest(step)
    (step / DIGESTS).unlink()
    loaded = Checkpoints(tmp_path / "c").load(3, {"learned": LIKE})["learned"]
    np.testing.assert_array_equal(loaded["x"], LIKE["x"])
    assert "cannot be verified" in capsys.readouterr().err
    assert folder_digest(step) == with_digests


def test_each_checkpoint_has_digests_of_its_own_content(tmp_path):
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        for step in (3, 6, 9):
            checkpoints.save(step, {"learned": {"x": jnp.full(3, step)}})
    digests = {folder_digest(tmp_path / "c" / name) for name in ("6", "9")}
    assert len(digests) == 2 and all((tmp_path / "c" / name / DIGESTS).is_file() for name in ("6", "9"))
