"""What README, docs and config headers tell a reader to type is a command that exists; their links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from aer_jax import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def commands(text: str) -> list[str]:
    """Every `aer-jax ...` of a text's shell blocks, lines that a backslash continues joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line.strip() for line in joined.splitlines() if re.match(r"\s*aer-jax ", line)]


def written() -> list[tuple[str, str]]:
    """(file, command) of all pages' `sh` blocks and of the comments at the top of all configs."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:sh|bash)\n(.*?)```", page.read_text(), re.DOTALL):
            found += [(page.name, command) for command in commands(block)]
    for config in CONFIGS:
        comment = "\n".join(line[1:] for line in config.read_text().splitlines() if line.startswith("#"))
        found += [(config.name, command) for command in commands(comment)]
    return found


@pytest.mark.parametrize(("page", "command"), written())
def test_a_written_command_parses(page, command):
    words = shlex.split(command, comments=True)[1:]
    assert cli.parse(words).run_command


def test_every_command_is_written_about():
    names = set(re.findall(r"^    (\w+)", cli.parser().format_help(), re.MULTILINE))
    named = set(re.findall(r"aer-jax (\w+)", "".join(page.read_text() for page in PAGES)))
    assert names <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
