"""The visitor's personal head on pages that predict on the server. The browser holds it: assets/browser/personal.js."""

from dataclasses import dataclass

import streamlit as st

from handful import shared_counter
from handful.personal import BadHead, PersonalHead
from web.browser_camera import component, heads_data

KEY = "personal chip"


@dataclass(frozen=True)
class Received:
    """What the browser last gave for this visit.

    Attributes:
        id: of the head; "" without one.
        head: to predict with.
        problem: why it cannot be used, in words.
    """

    id: str = ""
    head: PersonalHead | None = None
    problem: str = ""


def show_title(title: str) -> Received:
    """Show a page's title, beside it the visitor's personal head if there is one, and return that while it is on."""
    received = st.session_state.get("personal", Received())
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.title(title, width="content")
        component("personal_chip", ("live.css", "personal_chip.css"))(
            key=KEY,
            data={"module": "personal_chip.js", "heads": heads_data(), "known": received.id},
            on_head_change=receive,
            width="content",
        )
    if received.problem:
        st.error(received.problem)
    return received


def receive() -> None:
    """Take the head that the browser gives: {"id": …, "text": JSON of a `PersonalHead`}, both "" for none."""
    match st.session_state[KEY]["head"]:
        case {"id": str() as identifier, "text": str() as text}:
            head, problem = None, ""
            try:
                if text:
                    head = shared_counter().check(PersonalHead.from_json(text.encode(errors="replace")))
            except BadHead as error:
                problem = str(error)
            st.session_state["personal"] = Received(identifier, head, problem)
        case _:  # forged
            pass
