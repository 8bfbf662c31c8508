"""The Teach page: prompts, bursts of pictures from the camera, and the recording to download."""

import base64

import cv2
import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.app.pages import open_page
from tests.builders import sample_shot
from training.data.sources.own_hand import OwnHand
from web import browser_camera, metrics
from web.recording import MAX_JPEG_BYTES, Shot


class Camera:
    """Stand in for the browser component: hand over `burst` on the next run of the page."""

    def __init__(self) -> None:
        self.burst: list[Shot] = []

    def __call__(self, key, *, prompt, instruction, burst_size, countdown_s, on_burst):
        self.prompt, self.burst_size = prompt, burst_size
        if self.burst:
            pictures = [base64.b64encode(shot.jpeg).decode() for shot in self.burst]
            st.session_state[key] = {"burst": {"prompt": prompt, "pictures": pictures}}
            self.burst = []
            on_burst()
            st.rerun()
        return {"running": False}


@pytest.fixture
def camera(monkeypatch) -> Camera:
    camera = Camera()
    monkeypatch.setattr(browser_camera, "recorder", camera)
    return camera


def press(page: AppTest, label: str) -> None:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception


def test_a_prompt_can_be_skipped_and_the_last_burst_undone(camera):
    page = open_page("teach")
    assert page.subheader[0].value == "Show 0 fingers with your left hand"
    press(page, "Skip")
    assert page.subheader[0].value == "Show 0 fingers with your right hand"
    press(page, "Undo")
    assert page.subheader[0].value == "Show 0 fingers with your left hand"
    assert (camera.prompt, camera.burst_size) == ("1 0L", 3)


def test_the_chosen_classes_are_prompted_in_every_round_and_can_be_downloaded(camera, tmp_path):
    page = open_page("teach")
    page.session_state["fingers asked"], page.session_state["each"] = [3], 6
    page.run()
    prompts = []
    while page.subheader[0].value != "Recording complete":
        prompts.append(camera.prompt)
        camera.burst = [sample_shot(camera.prompt[2:], number) for number in (0, 1)]
        page.run()
        assert not page.exception
    assert prompts == ["1 3L", "1 3R", "2 3L", "2 3R", "3 3L", "3 3R"]
    assert "**12 pictures**, a hand in each." in [text.value for text in page.markdown]
    (tmp_path / "own-hand.zip").write_bytes(page.session_state["recording"].to_zip())
    assert len(OwnHand(tmp_path)) == 12
    press(page, "Delete all")
    assert not page.get("download_button")
    assert page.subheader[0].value == "Show 3 fingers with your left hand"


def test_pictures_without_a_detected_hand_are_recorded_with_a_warning(camera):
    page = open_page("teach")
    wall = cv2.imencode(".jpg", np.full((480, 640, 3), 150, np.uint8))[1].tobytes()
    camera.burst = [sample_shot("0L"), Shot(wall, None)]
    page.run()
    assert "No hand was detected in 1 of 2 pictures" in page.warning[0].value
    assert [shot.box is None for shot in page.session_state["recording"].shots] == [False, True]
    assert page.session_state["recording"].shots[1].jpeg == wall


def test_damaged_and_too_large_pictures_are_refused_counted_and_prompted_again(camera):
    page = open_page("teach")
    refused = [metrics.REFUSED.labels("teach", kind)._value for kind in ("unknown format", "too large")]
    before = [count.get() for count in refused]
    for jpeg in (b"not an image", sample_shot("0L").jpeg + bytes(MAX_JPEG_BYTES)):
        camera.burst = [Shot(jpeg, None)]
        page.run()
        assert not page.exception
        assert not page.session_state["recording"].bursts
    assert [count.get() for count in refused] == [count + 1 for count in before]
