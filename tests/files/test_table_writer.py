# ruff: noqa: RUF001 (true minus signs and en dashes)
"""The one table writer: aligned, escaped, and the same rows for both forms."""

from aer_jax.files import tables

ROWS = [["", "JS"], ["a|<b>", "0.12"], ["human", "−1.5"]]


def test_markdown_is_aligned_and_escaped():
    head, rule, first, last = tables.markdown(ROWS).split("\n")
    assert len({len(line) for line in (head, rule, first, last)}) == 1
    assert r"a\|&lt;b&gt;" in first and rule.endswith(":|")
    assert "`x`" in tables.markdown([["a"], ["`x`"]], formatted=True)


def test_text_has_lines_where_they_are_asked_for():
    assert tables.text(ROWS, rules=(1,)).split("\n") == ["         JS", "───────────", "a|<b>  0.12", "human  −1.5"]


def test_numbers():
    assert [tables.number(v) for v in (None, float("nan"), -0.5, 0.12345)] == ["–", "–", "−0.500", "0.123"]
    assert [tables.percent(v) for v in (None, 0.001, -0.2, 0.2)] == ["–", "0%", "−20%", "+20%"]
    assert [tables.counted(n, "step") for n in (1, 2, 1000)] == ["1 step", "2 steps", "1,000 steps"]
