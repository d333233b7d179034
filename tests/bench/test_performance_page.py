"""The page's tables are those that the benches wrote; docs/bench holds their JSON."""

import json
from pathlib import Path

import pytest

from aer_jax.bench.tables import table_of

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("file", sorted((DOCS / "bench").rglob("*.json")), ids=lambda file: file.stem)
def test_tables_of_the_page_are_what_was_measured(file):
    table, *_ = table_of(json.loads(file.read_text())).split("\n\n")
    assert table in (DOCS / "performance.md").read_text(), f"paste `python -m aer_jax.bench.tables {file}`"


def test_the_page_says_what_is_owed():
    assert "owed" in (DOCS / "performance.md").read_text()
