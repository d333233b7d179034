"""Provenance: when, by which version and by which command something was made."""

from __future__ import annotations

import datetime
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path


def provenance() -> dict[str, str | None]:
    """When and how a file is being made.

    Returns:
        date (UTC), version, commit (see `commit`), command.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    program, *arguments = sys.argv or [""]
    name = "aer-jax" if Path(program).name == "__main__.py" else Path(program).name
    return {"date": now, "version": version("aer-jax"), "commit": commit(), "command": shlex.join([name, *arguments])}


def commit() -> str | None:
    """The commit of the checkout that this package runs from, "+" where its files changed since; None outside one."""
    here = Path(__file__).parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", "__init__.py") is None:  # installed into somebody else's repository
        return None
    commit = git("rev-parse", "--short=12", "HEAD")
    return commit and commit + ("+" if git("status", "--porcelain", "--untracked-files=no", ".") else "")
