"""Every record of a bench in docs/results still makes a table."""

import json
from pathlib import Path

import pytest

from aer_jax.bench.tables import text

RECORDS = [
    file
    for file in sorted((Path(__file__).resolve().parents[2] / "docs/results").glob("*.json"))
    if "bench" in json.loads(file.read_text())
]


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.stem)
def test_a_record_makes_a_table(file):
    lines = text(json.loads(file.read_text())).splitlines()
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1 and len(lines) > 4
