"""One's own hand: recorded on a page, read as a source, trained with from the model that comes with the repository."""

import base64
import zipfile
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import streamlit as st
import torch
import wandb
from streamlit.testing.v1 import AppTest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import training.export.cascade
from handful import CLASSES, MODEL, FingerCounter, shared_counter
from handful.images import decode
from tests.builders import write_rendered
from training.cli import main
from training.data import open_source
from training.data.backgrounds import places
from training.data.scenes import SceneDataModule
from training.data.sources.own_hand import OwnHand
from training.errors import BadData
from training.export.cascade import Reader
from training.export.cascade import onnx_weights as restore
from web import browser_camera as browser
from web import inference as metrics
from web.recording import MAX_BYTES, Ask, Recording, Shot, hand_of

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "assets/samples"


@cache
def shipped() -> FingerCounter:
    """The model that comes along, also while another test has the app's replaced."""
    return FingerCounter()


def shot(label: str, number: int = 0) -> Shot:
    """A bundled sample, recorded."""
    image = decode(SAMPLES / f"{label}_{number}.jpg")
    jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    return Shot(jpeg, hand_of(shipped()(image), label))


def record(folder: Path, bursts: dict[Ask, list[Shot]], name: str = "own-hand.zip") -> Path:
    """A recording, downloaded into the place of the source. Returns the data folder."""
    recording = Recording()
    recording.bursts |= bursts
    (folder / "own").mkdir(exist_ok=True)
    (folder / "own" / name).write_bytes(recording.archive())
    return folder


# The page


class Camera:
    """The component, without a browser: hands over what is given to it when the page runs next."""

    def __init__(self) -> None:
        self.burst: list[Shot] = []

    def __call__(self, key, *, asked, words, shots, wait, on_burst):
        self.asked, self.shots = asked, shots
        if self.burst:
            pictures = [base64.b64encode(shot.jpeg).decode() for shot in self.burst]
            st.session_state[key] = {"burst": {"asked": asked, "pictures": pictures}}
            self.burst = []
            on_burst()
            st.rerun()
        return {"running": False}


@pytest.fixture
def camera(monkeypatch) -> Camera:
    camera = Camera()
    monkeypatch.setattr(browser, "recorder", camera)
    return camera


def open_page() -> AppTest:
    page = AppTest.from_file(ROOT / "pages/teach.py", default_timeout=60).run()
    assert not page.exception
    return page


def press(page: AppTest, label: str) -> None:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception


def test_a_hand_is_asked_for_skipped_and_taken_back(camera):
    page = open_page()
    assert page.subheader[0].value == "Show 0 with your left hand"
    press(page, "Skip")
    assert page.subheader[0].value == "Show 0 with your right hand"
    press(page, "Again")
    assert page.subheader[0].value == "Show 0 with your left hand"
    assert (camera.asked, camera.shots) == ("1 0L", 3)


def test_what_was_chosen_is_asked_for_in_every_round_and_can_be_downloaded(camera, tmp_path):
    page = open_page()
    page.session_state["fingers asked"], page.session_state["each"] = [3], 6
    page.run()
    asked = []
    while page.subheader[0].value != "That is all":
        asked.append(camera.asked)
        camera.burst = [shot(camera.asked[2:], number) for number in (0, 1)]
        page.run()
        assert not page.exception
    assert asked == ["1 3L", "1 3R", "2 3L", "2 3R", "3 3L", "3 3R"]
    assert "**12 pictures**, a hand in each." in [text.value for text in page.markdown]
    (tmp_path / "own-hand.zip").write_bytes(page.session_state["recording"].archive())
    assert len(OwnHand(tmp_path)) == 12
    press(page, "Delete all")
    assert not page.get("download_button")
    assert page.subheader[0].value == "Show 3 with your left hand"


def test_a_picture_in_which_no_hand_was_found_is_kept_and_told(camera):
    page = open_page()
    wall = cv2.imencode(".jpg", np.full((480, 640, 3), 150, np.uint8))[1].tobytes()
    camera.burst = [shot("0L"), Shot(wall, None)]
    page.run()
    assert "In 1 of 2 pictures no hand was found" in page.warning[0].value
    assert [kept.box is None for kept in page.session_state["recording"].shots] == [False, True]
    assert page.session_state["recording"].shots[1].jpeg == wall


def test_pictures_that_are_damaged_or_too_large_are_refused_counted_and_asked_for_again(camera):
    page = open_page()
    refused = [metrics.REFUSED.labels("teach", kind)._value for kind in ("unknown format", "too large")]
    before = [count.get() for count in refused]
    for jpeg in (b"no picture", shot("0L").jpeg + bytes(MAX_BYTES)):
        camera.burst = [Shot(jpeg, None)]
        page.run()
        assert not page.exception
        assert not page.session_state["recording"].bursts
    assert [count.get() for count in refused] == [count + 1 for count in before]


# The source


def record_two(folder: Path) -> Path:
    """Two classes in three rounds of two pictures."""
    rounds = {1: (0, 1), 2: (2, 3), 3: (4, 5)}
    return record(
        folder, {Ask(n, label): [shot(label, k) for k in two] for n, two in rounds.items() for label in ("3L", "5R")}
    )


@pytest.fixture
def recorded(tmp_path) -> Path:
    return record_two(tmp_path)


def test_a_recording_is_read_with_its_sides_boxes_and_pictures(recorded):
    hands = open_source("own", recorded)
    assert [CLASSES[hands.frame(i).targets[0]] for i in range(len(hands))] == ["3L"] * 6 + ["5R"] * 6
    frame = hands.frame(0)
    assert frame.image.shape == (256, 256, 3)
    assert frame.boxes[0] == pytest.approx(shot("3L").box, abs=0.1)
    assert frame.mask is None


def test_the_last_burst_of_each_class_is_kept_whole_for_validation(recorded):
    hands = OwnHand(recorded / "own")
    assert hands.validation.tolist() == [False] * 4 + [True] * 2 + [False] * 4 + [True] * 2
    split = {group for group, held in zip(hands.groups, hands.validation, strict=True) if held}
    assert not split & {group for group, held in zip(hands.groups, hands.validation, strict=True) if not held}


def test_it_may_be_unpacked_and_there_may_be_several(recorded):
    record(recorded, {Ask(n, "1L"): [shot("1L", n)] for n in (1, 2)}, "yesterday.zip")
    with zipfile.ZipFile(recorded / "own/yesterday.zip") as archive:
        archive.extractall(recorded / "own/yesterday")
    (recorded / "own/yesterday.zip").unlink()
    hands = OwnHand(recorded / "own")
    assert len(hands) == 14
    assert [CLASSES[frame.targets[0]] for frame in hands][-2:] == ["1L"] * 2
    assert len(set(hands.groups)) == 8
    # A picture that is replaced is another set to cut out.
    assert {file.name for file in hands.files} == {"own-hand.zip", "0001.jpg", "0002.jpg"}
    assert {file.name for file in hands.also} == {"own-hand.zip", "hands.csv"}


@pytest.mark.parametrize("grown", ["own-hand (1).zip", "today.zip"])
def test_of_a_recording_that_grew_between_two_downloads_nothing_is_both_learned_and_kept(recorded, grown):
    """Whichever is read first: what was the last round of one is not that of the other."""
    bursts = {Ask(n, label): [shot(label, n)] for n in range(1, 5) for label in ("3L", "5R")}
    (recorded / "own/own-hand.zip").unlink()
    record(recorded, {ask: shots for ask, shots in bursts.items() if ask.round < 4})
    record(recorded, bursts, grown)
    hands = OwnHand(recorded / "own")
    assert len(hands) == 8
    pictures = [hands.frame(i).image.tobytes() for i in range(8)]
    assert len(set(pictures)) == 8
    assert hands.validation.sum() == 2


def test_pictures_without_a_box_get_that_of_their_neighbours_or_are_left_out_and_counted(tmp_path):
    left, right = (Shot(shot("3L").jpeg, box) for box in ((50, 50, 150, 150), (60, 50, 160, 150)))
    far, none = Shot(left.jpeg, (150, 150, 250, 250)), Shot(left.jpeg, None)
    record(
        tmp_path, {Ask(1, "3L"): [left, none, right], Ask(2, "3L"): [left, none, far], Ask(3, "3L"): [none, left, none]}
    )
    with pytest.warns(UserWarning, match="3 of 9 pictures are left out"):
        hands = OwnHand(tmp_path / "own")
    assert len(hands) == 6
    assert hands.frame(1).boxes.tolist() == [[55, 50, 155, 150]]


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize(
    ("bursts", "says"),
    [
        ({}, "no hand was found"),
        ({Ask(1, "3L"): [Shot(b"", None)]}, "no hand was found"),
        ({Ask(1, "3L"): [Shot(b"", (0, 0, 9, 9))]}, "two rounds"),
    ],
)
def test_a_recording_that_nothing_can_be_learned_from_says_so(tmp_path, bursts, says):
    with pytest.raises(BadData, match=says):
        OwnHand(record(tmp_path, bursts) / "own")


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_what_is_no_recording_is_told_by_name(tmp_path, content):
    with pytest.raises(BadData, match=r"no recording here.*Record page"):
        OwnHand(tmp_path)
    (tmp_path / "broken.zip").write_bytes(content)
    with pytest.raises(BadData, match=r"broken\.zip: not a recording"):
        OwnHand(tmp_path)
    for row in "9X/1.jpg,1,0,0,9,9", "3L/1.jpg,1,0,0,0,9", "3L/1.jpg,1,0,0,nan,9", "3L/1.jpg,1,9,9,0,0":
        with zipfile.ZipFile(tmp_path / "broken.zip", "w") as archive:
            archive.writestr("hands.csv", f"file,round,x0,y0,x1,y1\n{row}\n")
        with pytest.raises(BadData, match=r"broken\.zip: not a recording"):
            OwnHand(tmp_path)


def test_a_picture_that_is_gone_is_told_by_name(recorded):
    with zipfile.ZipFile(recorded / "own/own-hand.zip") as archive:
        archive.extractall(recorded / "own/unpacked")
    (recorded / "own/own-hand.zip").unlink()
    (recorded / "own/unpacked/3L/0001.jpg").unlink()
    with pytest.raises(BadData, match=r"0001\.jpg.*hands\.csv"):
        OwnHand(recorded / "own").frame(0)


def test_its_rooms_without_the_hand_are_places(recorded):
    kept, held = places(recorded, sources=["own"]), places(recorded, True, ["own"])
    assert (len(kept), len(held)) == (2, 1)
    assert all(place.shape == (256, 256, 3) for place in kept)
    assert places(recorded) == []


# Training


def test_the_detector_takes_frames_of_it_and_hands_to_cut_out_from_elsewhere(recorded):
    with pytest.raises(BadData, match="no hands to cut out"):
        SceneDataModule(("own",), str(recorded)).setup("fit")
    write_rendered(recorded / "render/train", 24)
    scenes = SceneDataModule(("own", "rendered"), str(recorded), scenes=8)
    scenes.setup("fit")
    frames, boxes = scenes.train[0]
    assert frames.shape == (3, 160, 160)
    assert boxes.shape[1:] == (4,)
    assert len(scenes.held) >= 4


def test_the_networks_of_the_shipped_model_are_restored_from_it():
    reader = Reader(restore.detector(), restore.classifier(), 128).eval()
    for label in CLASSES:
        image = decode(SAMPLES / f"{label}_3.jpg")
        hand = shared_counter()(image).hands[0]
        with torch.inference_mode():
            boxes, _, _, probabilities, _ = reader(torch.from_numpy(image))
        assert boxes[0].numpy() == pytest.approx(hand.box, abs=8)
        # The file reckons in 8 bits from layer to layer, so that a look may be sure enough here and not there.
        assert probabilities[0].numpy() == pytest.approx(hand.probabilities, abs=0.1)


def train(folder: Path) -> Path:
    """A recording, and in the same folder what docs/own.md makes of it, by a little of the training.

    The networks go into reader.pt, and not into a file of their own: that takes a minute, see tests/test_export.py and
    tests/test_pipeline.py.
    """

    def kept(reader: Reader, metadata: dict[str, str]) -> onnx.ModelProto:
        torch.save(reader, folder / "reader.pt")
        model = onnx.load(MODEL)
        onnx.helper.set_model_props(model, metadata)
        return model

    run = folder / "run"
    fit = [
        "fit",
        "--config",
        "training/configs/own.yaml",
        "--data.folder",
        str(record_two(folder)),
        "--data.workers",
        "0",
    ]
    fit += ["--data.sources", "{own: 48, bundled: 16}", "--data.empty", "8", "--data.batch_size", "24"]
    fit += ["--checkpoint.dirpath", str(run), "--trainer.default_root_dir", str(run)]
    fit += ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1"]
    fit += ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", str(run)]
    fit += ["--trainer.enable_progress_bar", "false"]
    export = ["export", "--detector", "model/handful.onnx", "--classifier", str(run / "best.ckpt"), "--log", "true"]
    export += ["--output", str(folder / "own.onnx")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(folder))
        patch.setattr(training.export.cascade, "to_onnx", kept)
        patch.setattr(training.export.cascade, "quantize", lambda model: None)
        main(fit)
        main(export)
    wandb.teardown()  # it reads the environment once a process
    return folder


@pytest.mark.slow
@pytest.mark.ahead(work=train)
def test_from_a_recording_to_a_model_that_reads(ahead):
    (logged,) = ahead.glob("wandb/offline-run-*/*.wandb")
    assert b"own.onnx" in logged.read_bytes()
    events = EventAccumulator(str(ahead / "run/lightning_logs/version_0"))
    events.Reload()
    assert {"lr-AdamW", "val/loss"} <= set(events.Tags()["scalars"])
    assert events.Images("val/worst")
    data = {one.key: one.value for one in onnx.load(ahead / "own.onnx").metadata_props}["data"]
    assert "own hand" in data
    assert shared_counter().metadata["data"] in data
    # A few steps at a low rate: what it could read, it still can, though no longer as sure.
    reader = torch.load(ahead / "reader.pt", weights_only=False).eval()
    before = Reader(restore.detector(), restore.classifier(), 128).eval()
    for label in ("3L", "5R", "1L"):
        with torch.inference_mode():
            told, once = (one(torch.from_numpy(decode(SAMPLES / f"{label}_6.jpg")))[3] for one in (reader, before))
        assert CLASSES[told.argmax()] == label
        assert not torch.equal(told, once)
