"""The entry point of all pages: browser tab, logo, style sheet and navigation."""

from pathlib import Path

import streamlit as st

from handful.overlay import browser_colors

ASSETS = Path(__file__).parents[1] / "assets"

# Before the navigation: without an icon, the browser would fetch that of each page from Google.
st.set_page_config(page_icon=ASSETS / "icon.svg", layout="wide")
page = st.navigation(
    [
        st.Page("live.py", title="Live", icon=":material/videocam:", default=True),
        st.Page("pictures.py", title="Pictures", icon=":material/photo_library:"),
        st.Page("videos.py", title="Videos", icon=":material/movie:"),
        st.Page("samples.py", title="Samples", icon=":material/grid_view:"),
        st.Page("teach.py", title="Teach", icon=":material/photo_camera:"),
        st.Page("evaluation.py", title="Evaluation", icon=":material/analytics:"),
        st.Page("about.py", title="About", icon=":material/info:"),
    ],
    position="top",
)
st.set_page_config(f"{page.title} · Handful")
st.logo(ASSETS / "logo.svg", size="large")
sides = "".join(f"--{side}: {color};" for side, color in browser_colors()["sides"].items())
st.html(f"<style>:root {{ {sides} }}</style>")
st.html(ASSETS / "style.css")
st.html(ASSETS / "browser/bars.css")
st.html(ASSETS / "menu.html", unsafe_allow_javascript=True)
page.run()
