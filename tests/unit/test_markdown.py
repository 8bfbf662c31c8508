"""Markdown tables."""

from training.markdown import markdown_table


def test_columns_are_aligned():
    assert markdown_table(["a", "ms"], [["one", "1.5"], ["b", "10.25"]]).splitlines() == [
        "| a   |    ms |",
        "| :-- | ----: |",
        "| one |   1.5 |",
        "| b   | 10.25 |",
    ]
