"""The count of a video over time, as a chart in step with its player."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

ASSETS = Path(__file__).parents[1] / "assets/chart"


@st.cache_resource
def component() -> Callable[..., Any]:
    """Register the component with Streamlit, once."""
    css, js = ((ASSETS / name).read_text(encoding="utf-8") for name in ("chart.css", "chart.js"))
    html = '<p class="now"></p><div class="plot"></div>'
    return st.components.v2.component("handful_video_chart", html=html, css=css, js=js)


def show_video_chart(counts: Sequence[tuple[float, int | None, str]], seconds: float, player: str) -> None:
    """Draw the count over time as a step chart, with gaps where there is no hand.

    A cursor follows the player, and moves it where it is moved.

    Args:
        counts: seconds, fingers (None without a hand) and hands in words, such as "left 3", of each frame.
        seconds: of the whole chart.
        player: key of the container with the `st.video`.
    """
    # Only the changes: a step chart needs no more.
    steps = [row for i, row in enumerate(counts) if not i or row[1:] != counts[i - 1][1:]]
    largest = max((count for _, count, _ in counts if count), default=0)
    top = 5 * max(1, -(-largest // 5))
    data = {"steps": steps, "seconds": seconds, "top": top, "player": player}
    component()(key=f"chart {player}", data=data)
