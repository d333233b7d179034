"""Each kind of input twice: a few seconds of it in every run of the tests, minutes of it with `pytest -m fuzz`."""

from collections.abc import Iterator

import mutations
import pytest


@pytest.fixture(params=["short", pytest.param("long", marks=pytest.mark.fuzz)])
def seeds(request) -> Iterator:
    """`seeds(n)`: the seeds of a kind that takes n inputs in the long run."""

    def of(count: int) -> range:
        return range(count * mutations.times()) if request.param == "long" else range(max(1, count // 50))

    return of


@pytest.fixture
def tally(request, record_property) -> Iterator[mutations.Tally]:
    """Counts of the test's kind, printed at the end of the run; its problems fail the test."""
    kind = request.node.originalname.removeprefix("test_").replace("_", " ")
    counts = mutations.Tally(kind)
    yield counts
    record_property("fuzz", str(counts))
    if counts.problems:
        pytest.fail("\n".join([str(counts), *counts.problems[:40]]), pytrace=False)


def pytest_terminal_summary(terminalreporter) -> None:
    lines = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "teardown"
        for name, value in report.user_properties
        if name == "fuzz"
    ]
    if lines:
        terminalreporter.section("fuzz")
        terminalreporter.write_line("\n".join(sorted(lines)))
