"""What README, docs and config headers tell a reader to type is a command that exists; their links lead somewhere."""

import json
import re
import shlex
from pathlib import Path

import pytest

from aer_jax import cli
from aer_jax.studies import records

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RESULTS = ROOT / "docs" / "results"
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


def headings(page: Path) -> set[str]:
    """Anchors as GitHub makes them of a page's headings."""
    lines = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL).splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_a_section_find_its_heading(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
        assert anchor in headings(page.parent / target if target else page), f"{page.name}: {target}#{anchor}"


def test_every_figure_is_shown():
    figures = {file for kind in ("png", "svg") for file in (ROOT / "docs").rglob(f"*.{kind}")}
    shown = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in re.findall(r"!\[[^]]*\]\(([^)]+)", page.read_text())
    }
    assert figures == shown


@pytest.mark.parametrize("file", records.pages(RESULTS), ids=lambda file: file.stem)
def test_a_page_of_results_is_made_from_its_json(file):
    assert file.with_suffix(".md").read_text() == records.render(file), "run `python -m aer_jax.studies.records`"


def test_the_figures_of_the_readme_are_those_of_the_record():
    record = json.loads((RESULTS / "crema_d.json").read_text())["records"][0]["table"]
    known = {tuple(row[i] for i in (1, 2, 3, 5)) for row in record["rows"]}
    table = re.search(r"1,629 test clips.*?\n\n", (ROOT / "README.md").read_text(), re.DOTALL)
    rows = [line.replace("*", "").split("|")[1:5] for line in table[0].splitlines()[2:] if line]
    assert len(rows) >= 4 and {tuple(cell.strip() for cell in row) for row in rows} <= known


def test_the_readme_lists_every_room():
    tree = re.search(r"## Architecture\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    listed = set(re.findall(r"^  (\w+)/", tree, re.MULTILINE))
    assert listed == {init.parent.name for init in (ROOT / "aer_jax").glob("*/__init__.py")}
