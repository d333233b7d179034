"""Where a checkpoint lies: a directory, or a model of the Hugging Face hub in its local cache."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from aer_jax.errors import UserError

# Weights, configuration, tokenizer and templates; neither pickles nor code.
FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja")
_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def find_checkpoint(checkpoint: str | Path) -> Path:
    """The directory of a checkpoint.

    Args:
        checkpoint: a directory; or a hub id, `owner/name`, on its own or with a branch, tag or commit,
            `owner/name@revision`. What the local cache lacks of it is fetched, unless HF_HUB_OFFLINE is set.

    Raises:
        UserError: there is no such directory or model, it cannot be fetched, or it lacks config.json or safetensors.
    """
    path, named = Path(checkpoint), _HUB_ID.fullmatch(str(checkpoint))
    if not path.is_dir() or not str(checkpoint):
        if named is None:
            raise UserError(
                f"there is no checkpoint directory {checkpoint}, and it is no hub id (owner/name or "
                "owner/name@revision); check the path."
            )
        path = _cached(named["id"], named["revision"])
    for pattern, what in (("config.json", "config.json"), ("*.safetensors", "*.safetensors weights")):
        if not any(path.glob(pattern)):
            pickled = [*path.glob("*.bin"), *path.glob("*.pt"), *path.glob("*.pth")] if "weights" in what else []
            hint = (
                "its pickled weights are not read, convert them to safetensors" if pickled else "copy the whole of it"
            )
            raise UserError(f"the checkpoint {path} holds no {what}; {hint}.")
    return path


def split_revision(checkpoint: str) -> tuple[str, str | None]:
    """Directory or hub id, and the revision that is named behind an @."""
    named = None if Path(checkpoint).is_dir() else _HUB_ID.fullmatch(checkpoint)
    return (named["id"], named["revision"]) if named else (checkpoint, None)


def pin(checkpoint: str) -> str:
    """`checkpoint` with the commit that a hub id stands for now; a directory as it is.

    Raises:
        UserError: see `find_checkpoint`.
    """
    path = find_checkpoint(checkpoint)
    return checkpoint if Path(checkpoint).is_dir() else f"{split_revision(checkpoint)[0]}@{path.name}"


@functools.cache
def _cached(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    def get(local: bool = False) -> Path:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=[*FILES], local_files_only=local))

    name = f"{hub_id}@{revision}" if revision else hub_id
    try:
        if revision and _COMMIT.fullmatch(revision):  # it cannot have changed, so the hub need not be asked
            try:
                return get(local=True)
            except errors.LocalEntryNotFoundError:
                pass
        return get()
    except errors.LocalEntryNotFoundError:
        why = "the local Hugging Face cache lacks it and the hub cannot be reached"
    except errors.RevisionNotFoundError:
        why = "the hub has this model but no such revision"
    except errors.GatedRepoError:
        why = "its owner asks you to accept a licence first, and to be logged in"
    except errors.RepositoryNotFoundError:
        why = "the hub has no such model, or it is private"
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        why = str(error).splitlines()[0].rstrip(".")
    raise UserError(
        f"there is no checkpoint directory {name}, and as a hub id it cannot be used ({why}); check the name, or fetch "
        f"it with `hf download {hub_id}`."
    )
