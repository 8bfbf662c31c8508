"""Accuracies for people: of a hundred pictures, how many are right, how sure that is, and the numbers behind it."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import streamlit as st


class Rate(NamedTuple):
    """A share of pictures with the correct total.

    Attributes:
        name: what is measured: a model, a gesture, a session.
        share: 0 … 1.
        pictures: how many were looked at.
        interval: of the share, 95%, or None if it is not known.
        note: a second line, such as what was predicted instead.
        model: "handful", "mediapipe" or "learned": its colour.
        cells: of further columns.
    """

    name: str
    share: float
    pictures: int
    interval: Sequence[float] | None = None
    note: str = ""
    model: str = "handful"
    cells: tuple[str, ...] = ()


def rate(name: str, row: dict, note: str = "", **options) -> Rate:
    """Return the rate of a set or of a group, as `python -m training evaluate` writes it."""
    return Rate(name, row["total_accuracy"], row["pictures"], row["total"]["interval"], note, **options)


def of_100(share: float) -> str:
    """Return a share as a number of a hundred; what only rounds to 0 or 100 is said to be beside it.

    >>> of_100(0.892), of_100(0.998)
    ('89', 'over 99')
    """
    if 0.995 <= share < 1:
        return "over 99"
    return "under 1" if 0 < share < 0.005 else f"{100 * share:.0f}"


def interval_of_100(interval: Sequence[float] | None, to: str = "–") -> str:
    """Return an interval as numbers of a hundred: "82–94", "over 99–100"."""
    return "–" if interval is None else to.join(map(of_100, interval))


def show_rates(rates: Sequence[Rate], heading: str = "", columns: Sequence[str] = ()) -> None:
    """Show rates as the rows of a table, each with a dot on a line from 0 to 100 and its interval as a band.

    Args:
        rates: one a row.
        heading: of the first column.
        columns: headings of `Rate.cells`.
    """
    head = (
        f"<th>{escape(heading)}</th><th class='track'><span aria-hidden='true'><i>0</i><i>50</i><i>100</i></span></th>"
        "<th>Correct, of 100</th><th>95% interval</th><th>Pictures</th>"
        + "".join(f"<th>{escape(column)}</th>" for column in columns)
    )
    body = "".join(row_html(one) for one in rates)
    st.html(f"<table class='rates'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def show_comparison(rows: Sequence[tuple[str, str, Sequence[Rate | None]]], columns: Sequence[str]) -> None:
    """Show the rates of several models on several sets as a table, a column for each model.

    Args:
        rows: title and note of each set, and its rate by each model, None where that was not run.
        columns: the models.
    """

    def cell(one: Rate | None, pictures: int) -> str:
        if one is None:
            return "<td>–</td>"
        interval = f"<small>{interval_of_100(one.interval)}</small>" if one.interval else ""
        fewer = f"<small>of {one.pictures:,} pictures</small>" if one.pictures != pictures else ""
        return f"<td><strong>{of_100(one.share)}</strong>{interval}{fewer}</td>"

    body = ""
    for title, note, rates in rows:
        pictures = next(one.pictures for one in rates if one)
        body += f"<tr><th scope='row'>{escape(title)}<small>{escape(note)}</small></th><td>{pictures:,}</td>"
        body += "".join(cell(one, pictures) for one in rates) + "</tr>"
    head = "".join(f"<th>{escape(column)}</th>" for column in ("", "Pictures", *columns))
    st.html(f"<table class='rates sets'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def row_html(one: Rate) -> str:
    band = ""
    if one.interval:
        low, high = one.interval
        band = f"<u style='left:{low:.1%};width:{high - low:.1%}'></u>"
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in one.cells)
    note = f"<small>{escape(one.note)}</small>" if one.note else ""
    return (
        f"<tr class='{one.model}'><th scope='row'>{escape(one.name)}{note}</th>"
        f"<td class='track'><span aria-hidden='true'>{band}<b style='left:{one.share:.1%}'></b></span></td>"
        f"<td><strong>{of_100(one.share)}</strong></td><td>{interval_of_100(one.interval)}</td>"
        f"<td>{round(one.share * one.pictures):,} of {one.pictures:,}</td>{cells}</tr>"
    )
