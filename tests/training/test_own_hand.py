"""The user's own hand: recorded on the Teach page, read as a source, and trained on from the shipped model."""

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import training.export.export
from handful import MODEL, shared_counter
from handful.images import decode
from handful.labels import CLASSES, SIDE_UNKNOWN
from tests.builders import SAMPLES, Prompt, Shot, sample_shot, write_recording, write_rendered
from training.cli import main
from training.data.backgrounds import load_backgrounds
from training.data.registry import open_source
from training.data.scenes import SceneDataModule
from training.data.sources.own_hand import OwnHand
from training.errors import BadData
from training.export.cascade import Cascade
from training.export.export import load_cascade

ROOT = Path(__file__).parents[2]


def write_two_classes(folder: Path) -> Path:
    """Write a recording of two classes in three rounds of two images."""
    rounds = {1: (0, 1), 2: (2, 3), 3: (4, 5)}
    return write_recording(
        folder,
        {
            Prompt(round_, label): [sample_shot(label, number) for number in numbers]
            for round_, numbers in rounds.items()
            for label in ("3L", "5R")
        },
    )


@pytest.fixture
def data_folder(tmp_path) -> Path:
    return write_two_classes(tmp_path)


def unzip(recording: Path, folder: Path) -> None:
    """Unpack a recording into a folder, and delete it."""
    with zipfile.ZipFile(recording) as archive:
        archive.extractall(folder)
    recording.unlink()


# The source


def test_a_recording_has_images_sides_and_boxes(data_folder):
    frames = open_source("own", data_folder)
    assert [CLASSES[frame.targets[0]] for frame in frames] == ["3L"] * 6 + ["5R"] * 6
    frame = frames[0]
    assert frame.image.shape == (256, 256, 3)
    assert frame.boxes[0] == pytest.approx(sample_shot("3L").box, abs=0.1)
    assert frame.mask is None


def test_the_last_burst_of_each_class_is_held_out(data_folder):
    frames = OwnHand(data_folder / "own")
    assert frames.validation.tolist() == [False] * 4 + [True] * 2 + [False] * 4 + [True] * 2
    groups = list(zip(frames.groups, frames.validation.tolist(), strict=True))
    assert not {group for group, held_out in groups if held_out} & {group for group, held_out in groups if not held_out}


def test_recordings_may_be_several_and_unpacked(data_folder):
    write_recording(data_folder, {Prompt(n, "1L"): [sample_shot("1L", n)] for n in (1, 2)}, "yesterday.zip")
    unzip(data_folder / "own/yesterday.zip", data_folder / "own/yesterday")
    frames = OwnHand(data_folder / "own")
    assert len(frames) == 14
    assert [CLASSES[frame.targets[0]] for frame in frames][-2:] == ["1L"] * 2
    assert len(set(frames.groups)) == 8
    # The files whose changes make cached crops stale.
    assert {file.name for file in frames.files} == {"own-hand.zip", "0001.jpg", "0002.jpg"}
    assert {file.name for file in frames.extra_files} == {"own-hand.zip", "hands.csv"}


def test_a_count_may_be_recorded_without_its_side(tmp_path):
    frames = OwnHand(write_recording(tmp_path, {Prompt(n, "3"): [sample_shot("3L", n)] for n in (1, 2)}) / "own")
    assert [frame.targets.tolist() for frame in frames] == [[SIDE_UNKNOWN + 3]] * 2


@pytest.mark.parametrize("later", ["own-hand (1).zip", "today.zip"])
def test_no_image_is_both_trained_on_and_held_out_when_a_recording_was_downloaded_twice(data_folder, later):
    # Whichever is read first: the last round of one is not the last of the other.
    bursts = {Prompt(n, label): [sample_shot(label, n)] for n in range(1, 5) for label in ("3L", "5R")}
    (data_folder / "own/own-hand.zip").unlink()
    write_recording(data_folder, {prompt: shots for prompt, shots in bursts.items() if prompt.round < 4})
    write_recording(data_folder, bursts, later)
    frames = OwnHand(data_folder / "own")
    assert len(frames) == 8
    assert len({frame.image.tobytes() for frame in frames}) == 8
    assert frames.validation.sum() == 2


def test_missing_boxes_are_interpolated_within_a_burst_or_the_image_is_left_out(tmp_path):
    left, right = (Shot(sample_shot("3L").jpeg, box) for box in ((50, 50, 150, 150), (60, 50, 160, 150)))
    far, none = Shot(left.jpeg, (150, 150, 250, 250)), Shot(left.jpeg, None)
    write_recording(
        tmp_path,
        {
            Prompt(1, "3L"): [left, none, right],
            Prompt(2, "3L"): [left, none, far],
            Prompt(3, "3L"): [none, left, none],
        },
    )
    with pytest.warns(UserWarning, match="3 of 9 images are left out"):
        frames = OwnHand(tmp_path / "own")
    assert len(frames) == 6
    assert frames[1].boxes.tolist() == [[55, 50, 155, 150]]


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize(
    ("bursts", "message"),
    [
        ({}, "no hand detected"),
        ({Prompt(1, "3L"): [Shot(b"", None)]}, "no hand detected"),
        ({Prompt(1, "3L"): [Shot(b"", (0, 0, 9, 9))]}, "two rounds"),
    ],
)
def test_a_recording_without_hands_or_a_second_round_is_refused(tmp_path, bursts, message):
    with pytest.raises(BadData, match=message):
        OwnHand(write_recording(tmp_path, bursts) / "own")


def test_an_empty_folder_says_where_recordings_come_from(tmp_path):
    with pytest.raises(BadData, match=r"no recording here.*Teach page"):
        OwnHand(tmp_path)


@pytest.mark.parametrize("content", [b"not an archive", b""])
def test_a_file_that_is_no_recording_is_named(tmp_path, content):
    (tmp_path / "broken.zip").write_bytes(content)
    with pytest.raises(BadData, match=r"broken\.zip: not a recording"):
        OwnHand(tmp_path)


@pytest.mark.parametrize(
    "row",
    ["9X/1.jpg,1,0,0,9,9", "6/1.jpg,1,0,0,9,9", "3L/1.jpg,1,0,0,0,9", "3L/1.jpg,1,0,0,nan,9", "3L/1.jpg,1,9,9,0,0"],
)
def test_a_table_with_an_unknown_class_or_an_empty_box_is_refused(tmp_path, row):
    with zipfile.ZipFile(tmp_path / "broken.zip", "w") as archive:
        archive.writestr("hands.csv", f"file,round,x0,y0,x1,y1\n{row}\n")
    with pytest.raises(BadData, match=r"broken\.zip: not a recording"):
        OwnHand(tmp_path)


def test_a_missing_image_is_named(data_folder):
    unzip(data_folder / "own/own-hand.zip", data_folder / "own/unpacked")
    (data_folder / "own/unpacked/3L/0001.jpg").unlink()
    with pytest.raises(BadData, match=r"0001\.jpg.*hands\.csv"):
        OwnHand(data_folder / "own").frame(0)


def test_its_frames_without_the_hand_are_backgrounds(data_folder):
    train, validation = (load_backgrounds(data_folder, held_out, ["own"]) for held_out in (False, True))
    assert (len(train), len(validation)) == (2, 1)
    assert all(image.shape == (256, 256, 3) for image in train)
    assert load_backgrounds(data_folder) == []


# Training


def test_the_detector_trains_on_its_frames_with_cutouts_of_another_source(data_folder):
    with pytest.raises(BadData, match="no hands to cut out"):
        SceneDataModule({"own": 1}, str(data_folder)).setup("fit")
    write_rendered(data_folder / "render/train", 24)
    scenes = SceneDataModule({"own": 1, "rendered": 1}, str(data_folder), scenes=8)
    scenes.setup("fit")
    scene, boxes = scenes.train[0]
    assert scene.shape == (3, 160, 160)
    assert boxes.shape[1:] == (4,)
    assert len(scenes.held_out) >= 4


def predict(cascade: Cascade, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return box, probabilities and those of the fingers of the first hand that is predicted in a bundled sample."""
    with torch.inference_mode():
        boxes, _, _, probabilities, _, fingers, _ = cascade(torch.from_numpy(decode(SAMPLES / f"{name}.jpg")))
    return boxes[0].numpy(), probabilities[0].numpy(), fingers[0].numpy()


def test_networks_restored_from_the_shipped_model_predict_alike():
    cascade = load_cascade(MODEL)
    for label in CLASSES:
        box, probabilities, fingers = predict(cascade, f"{label}_3")
        hand = shared_counter()(decode(SAMPLES / f"{label}_3.jpg")).hands[0]
        assert box == pytest.approx(hand.box, abs=8)
        # The file is quantized: the cascade may stop at another pass.
        assert probabilities == pytest.approx(hand.probabilities, abs=0.1)
        assert fingers == pytest.approx(hand.finger_probabilities, abs=0.1)


def train(folder: Path) -> Path:
    """Train on a recording as docs/teach.md describes, a few steps; write the networks to cascade.pt.

    Not to ONNX, which takes a minute: see test_export.py and test_pipeline.py.
    """

    def save_networks(cascade: Cascade, metadata: dict[str, str]) -> onnx.ModelProto:
        torch.save(cascade, folder / "cascade.pt")
        model = onnx.load(MODEL)
        onnx.helper.set_model_props(model, metadata)
        return model

    run = folder / "run"
    fit = ["fit", "--config", "training/configs/own.yaml", "--data.folder", str(write_two_classes(folder))]
    fit += ["--data.sources", "{own: 48, bundled: 16}", "--data.empty", "8", "--data.batch_size", "24"]
    fit += ["--data.workers", "0", "--trainer.default_root_dir", str(run), "--trainer.max_epochs", "1"]
    fit += [
        "--trainer.accelerator",
        "cpu",
        "--trainer.log_every_n_steps",
        "1",
        "--trainer.enable_progress_bar",
        "false",
    ]
    export = ["export", "--detector", "model/handful.onnx", "--classifier", str(run / "best.ckpt"), "--log", "true"]
    export += ["--output", str(folder / "own.onnx")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(folder))
        patch.setattr(training.export.export, "to_onnx", save_networks)
        patch.setattr(training.export.export, "quantize", lambda model: None)
        main(fit)
        main(export)
    wandb.teardown()  # it reads the environment once per process
    return folder


@pytest.mark.slow
@pytest.mark.background(work=train)
def test_a_model_trained_on_a_recording_is_logged_credited_and_still_correct(background_result):
    (logged,) = background_result.glob("wandb/offline-run-*/*.wandb")
    assert b"own.onnx" in logged.read_bytes()
    events = EventAccumulator(str(background_result / "run/tensorboard/version_0"))
    events.Reload()
    assert {"lr-AdamW", "val/loss"} <= set(events.Tags()["scalars"])
    assert events.Images("val/worst")
    metadata = {entry.key: entry.value for entry in onnx.load(background_result / "own.onnx").metadata_props}
    assert "own hand" in metadata["data"]
    assert shared_counter().metadata["data"] in metadata["data"]
    credits = torch.load(background_result / "run/best.ckpt", weights_only=False)["provenance"]["data"]
    assert set(shared_counter().metadata["data"].split("; ")) < set(credits), "the weights it went on from"
    # A few steps at a low learning rate change probabilities, but no predicted class.
    trained, shipped = torch.load(background_result / "cascade.pt", weights_only=False).eval(), load_cascade(MODEL)
    for label in ("3L", "5R", "1L"):
        (_, after, _), (_, before, _) = (predict(cascade, f"{label}_6") for cascade in (trained, shipped))
        assert CLASSES[after.argmax()] == label
        assert not np.array_equal(after, before)
