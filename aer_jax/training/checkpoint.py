"""Checkpoints: the latest state to resume from, the best weights to predict with."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from aer_jax.errors import UserError
from aer_jax.files.atomic import replace_text
from aer_jax.files.content_hash import DIGESTS, folder_digests, written_digests
from aer_jax.training.distributed import is_first


@contextmanager
def full_disk(where: Path) -> Iterator[None]:
    """Turn an OSError of a full disk into a UserError; earlier saves stay."""
    try:
        yield
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise UserError(f"the disk of {where} is full; free some space and go on with --resume.") from None
        raise


class Checkpoints:
    """Orbax checkpoints below one directory, each whole or absent, and verified when it is loaded.

    Used in a `with` statement, which waits at its end until everything is on disk. A checkpoint's digests are written
    by a thread as soon as Orbax has finished it; one whose process was killed in between has none, is whole all the
    same, and is loaded with a note that it cannot be verified, as are those of older versions.

    Args:
        directory: made where it does not exist; remains of interrupted saves are removed.
        keep: how many of the latest are kept; None only reads, next to a process that may be saving, and then
            nothing is made or removed.
    """

    def __init__(self, directory: Path, keep: int | None = None):
        self.directory = directory
        if keep is not None and is_first():
            for folder in directory.glob("[0-9]*"):
                if folder.name.isdigit() and not _is_whole(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            directory.absolute(),
            preservation_policy=policies.PreserveAll() if keep is None else policies.LatestN(keep),
            cleanup_tmp_directories=keep is not None,
        )
        self._thread = ThreadPoolExecutor(1)
        self._digests: Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_) -> None:
        with full_disk(self.directory):
            try:
                self._finish()
            finally:  # after a failed save, too, Orbax's threads must end before the process
                self._checkpointer.close()
        self._thread.shutdown()

    @property
    def latest(self) -> int | None:
        """Step of the newest whole checkpoint, None where there is none."""
        steps = (checkpoint.step for checkpoint in self._checkpointer.checkpoints)
        return max((step for step in steps if _is_whole(self.directory / str(step))), default=None)

    def save(self, step: int, items: dict[str, Any]) -> None:
        """Start saving; the arrays are copied before this returns, the writing goes on in the background.

        Raises:
            UserError: the disk is full; earlier checkpoints stay.
        """
        with full_disk(self.directory):
            self._finish()  # the checkpoint before may be deleted from here on
            saving = self._checkpointer.save_checkpointables_async(step, items, force=True, overwrite=True)
            self._digests = self._thread.submit(_write_digests, self.directory / str(step), saving)

    def load(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        """The items of a step.

        Args:
            like: what was saved: arrays come back laid out like these, a Grain iterator is restored in place.

        Raises:
            UserError: the checkpoint is not what was written, cannot be read or does not fit.
        """
        _verify(self.directory / str(step))
        try:
            return self._checkpointer.load_checkpointables(step, jax.tree.map(_abstract, like))
        except (ValueError, KeyError, OSError, TypeError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"the checkpoint {self.directory}/{step} cannot be restored ({reason}); copy it again or train anew."
            ) from None

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
            UserError: the disk is full; earlier checkpoints stay.
        """
        with full_disk(self.directory):
            self._finish()
            self._checkpointer.wait()

    def _finish(self) -> None:
        digests, self._digests = self._digests, None
        if digests is not None:
            digests.result()


def _write_digests(folder: Path, saving: ocp.AsyncResponse[bool] | None) -> None:
    if saving is not None:
        saving.result()
    if is_first():
        replace_text(folder / DIGESTS, json.dumps(folder_digests(folder), indent=1) + "\n")


def _verify(folder: Path) -> None:
    """Compare every file of a checkpoint with its digest.

    Raises:
        UserError: one is gone or is not what was written, or the checkpoint is of another step.
    """
    written = written_digests(folder)
    if written is None:
        if is_first():
            print(
                f"{folder} has no {DIGESTS} (an older version wrote it, or it was killed just after saving), so its "
                "arrays cannot be verified",
                file=sys.stderr,
            )
        return
    try:
        now = folder_digests(folder)
    except OSError as error:
        raise UserError(f"cannot read {error.filename} ({error.strerror}); copy the checkpoint again.") from None
    if wrong := sorted(name for name, digest in written["files"].items() if now["files"].get(name) != digest):
        raise UserError(
            f"the checkpoint {folder} cannot be restored ({wrong[0]} is gone or is not what was written); copy it "
            "again, remove it to go on from an earlier one, or train anew."
        )
    if written["name"] != folder.name:
        raise UserError(
            f"the checkpoint {folder} cannot be restored (it was saved as step {written['name']}); name it so again."
        )


def latest_step(directory: Path) -> int | None:
    """Step of the newest whole checkpoint, by the names in a directory alone; None where there is none."""
    folders = [folder for folder in directory.glob("[0-9]*") if folder.name.isdigit() and _is_whole(folder)]
    return max((int(folder.name) for folder in folders), default=None)


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint was written to its end: Orbax then leaves a mark, just before the folder gets its name.

    Where renaming a folder is no single operation, as on some network file systems, its name alone says nothing.
    """
    return (folder / "commit_success.txt").is_file()


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return leaf
