"""Tables as Markdown."""

from aer_jax.reports.tables import markdown_rows, markdown_table


def test_columns_are_padded_and_numbers_stand_on_the_right():
    made = markdown_table(["name", "s", "share"], [["aer_jax", "1.25", "7%"], ["b", "10.50", ""]])
    assert made.splitlines() == [
        "| name    |     s | share |",
        "|---------|------:|------:|",
        "| aer_jax |  1.25 |    7% |",
        "| b       | 10.50 |       |",
    ]
    rows = [{"name": "aer_jax", "s": "1.25", "share": "7%"}, {"share": "", "s": "10.50", "name": "b"}]
    assert markdown_rows(rows) == made
