"""Teach: record the visitor's hand and room, learn from it, and use what was learned. All of it runs in the browser."""

import streamlit as st

from web import browser_camera

if browser_camera.teach("teach"):
    st.switch_page("live.py")
