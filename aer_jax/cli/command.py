"""What every command shares: how it is defined and how it shows its result."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

# (what it does, one line about it, an example) -> its parser
Command = Callable[[Callable[[argparse.Namespace], int | None], str, str], argparse.ArgumentParser]


def show(args: argparse.Namespace, result: Any, text: str) -> None:
    """One JSON object per line for programs, or the text for people."""
    print(json.dumps(result) if args.json else text, flush=True)
