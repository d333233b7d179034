"""UserError, the exception whose sentence a user reads."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Wrong use or bad input, said in one clear sentence: what, where, how to fix it.

    The command line prints the sentence without a traceback and exits with `exit_code`.
    """

    exit_code = 2


class Unfinished(UserError):
    """Nothing is wrong with what was asked, but it ended too early; the same command with --resume goes on.

    The exit code is sysexits' EX_TEMPFAIL, by which the launch scripts know that trying again helps.
    """

    exit_code = 75


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the known name closest to `name`, or '' where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f' Did you mean "{close[0]}"?' if close else ""
