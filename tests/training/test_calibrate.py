"""Calibration: thresholds, scales and temperature of the cascade, found on frames that nothing else uses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import training.evaluation.ablate
import training.evaluation.calibrate
from handful import CLASSES, MODEL
from handful.images import decode
from tests.builders import write_rendered
from training.cli import main
from training.data.frames import Frame
from training.data.registry import SOURCES, open_calibration
from training.errors import BadData
from training.evaluation.calibrate import CascadeRunner, MemoizedNetwork, calibrate, load_runner, spread
from training.export import onnx_weights
from training.export.cascade import Cascade
from training.export.config import CascadeConfig

SAMPLES = MODEL.parents[1] / "assets/samples"
CONFIG = CascadeConfig()


def frame_of(label: str, number: int) -> Frame:
    """Return a bundled sample as a labelled frame; its box is what the shipped model finds, which is all it needs."""
    image = decode(SAMPLES / f"{label}_{number}.jpg")
    return Frame(image, np.float32([[60, 30, 200, 230]]), np.array([CLASSES.index(label)]))


@pytest.fixture(scope="module")
def networks():
    return onnx_weights.detector().eval(), onnx_weights.classifier().eval()


@pytest.fixture(scope="module")
def runner(networks):
    hands = [frame_of(label, 0) for label in ("0L", "1R", "3L", "5R")]
    empty = Frame(np.full((120, 160, 3), 128, np.uint8), np.empty((0, 4), np.float32), np.empty(0, int))
    return CascadeRunner(*networks, 112, {"hands": hands, "empty": [empty]})


def test_the_runner_predicts_what_the_cascade_predicts(runner, networks):
    frame = runner.sources["hands"][2]
    boxes, probabilities = runner.predict(CONFIG, frame)
    with torch.inference_mode():
        expected, _, _, expected_probabilities, *_ = Cascade(*networks, 112, CONFIG).eval()(frame.image)
    torch.testing.assert_close(boxes, expected)
    torch.testing.assert_close(probabilities, expected_probabilities)


def test_results_name_accuracy_and_cost(runner):
    result = runner.run(CONFIG)
    assert result.by_source == {"hands": 1.0, "empty": 1.0}
    assert runner.run(replace(CONFIG, threshold=1.0, other_threshold=1.0)).by_source == {"hands": 0.0, "empty": 1.0}
    expensive = runner.run(replace(CONFIG, crop_scale=1.25 * CONFIG.crop_scale, flip_confidence=1.1))
    assert expensive.cost > 1.5 * result.cost
    assert expensive.utility < result.utility, "passes that bring nothing are not worth their price"


def test_a_network_is_not_run_twice_on_an_input():
    calls = []

    class Network(torch.nn.Module):
        def forward(self, batch):
            calls.append(len(batch))
            return batch.sum((1, 2, 3))

    memoized = MemoizedNetwork(Network())
    batch = torch.rand(3, 3, 4, 5)
    for _ in range(2):
        torch.testing.assert_close(memoized(batch), batch.sum((1, 2, 3)))
    assert calls == [1, 1, 1]
    assert memoized.pixels == 2 * 3 * 20
    memoized(batch.reshape(3, 3, 5, 4))
    assert len(calls) == 6, "the same numbers in another shape are another input"


def test_the_temperature_makes_confidence_match_accuracy(runner, monkeypatch):
    rng = np.random.default_rng(0)
    sharp, frames = 2.5, []
    for _ in range(400):
        logits = rng.normal(size=12)
        target = rng.choice(12, p=np.exp(logits) / np.exp(logits).sum())
        frames.append((torch.tensor(sharp * logits / CONFIG.temperature).softmax(0), target))
    box = torch.tensor([[0, 0, 9, 9.0]])
    labelled = [(None, box, np.array([target])) for _, target in frames]
    monkeypatch.setattr(runner, "sources", {"drawn": [type(runner.sources["hands"][0])(*one) for one in labelled]})
    outputs = iter(probabilities[None] for probabilities, _ in frames)
    monkeypatch.setattr(runner, "predict", lambda config, frame: (box, next(outputs)))
    assert runner.best_temperature(CONFIG) == pytest.approx(sharp, rel=0.15)


def test_calibrate_refuses_a_field_that_is_not_searched(tmp_path):
    with pytest.raises(SystemExit, match="beside_threshold: not searched for"):
        main(["calibrate", "--fields", "[threshold, beside_threshold]", "--folder", str(tmp_path)])


def test_calibrate_writes_the_config_with_the_highest_utility(runner, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.evaluation.calibrate, "load_runner", lambda *_: runner)
    search = {"threshold": (0.99,), "flip_confidence": (1.1,), "crop_scale": (0.625,)}
    monkeypatch.setattr(training.evaluation.calibrate, "SEARCH", search)
    monkeypatch.setattr(runner, "best_temperature", lambda config: 1 + config.crop_scale)
    calibrate(MODEL, MODEL, output=tmp_path / "runs/cascade.yaml", fields=tuple(search))
    config = CascadeConfig.load(tmp_path / "runs/cascade.yaml")
    assert config.threshold == CONFIG.threshold, "a threshold that misses every hand is not chosen"
    assert config.flip_confidence == CONFIG.flip_confidence, "nor are passes that bring nothing"
    assert config.crop_scale == 0.625, "what costs less and brings as much is"
    assert config.temperature == 1.625, "the temperature is that of the config which was found"
    assert "of frames correct" in capsys.readouterr().out


def test_ablate_prints_a_row_for_each_stage(runner, monkeypatch, capsys):
    monkeypatch.setattr(training.evaluation.ablate, "load_runner", lambda *_: runner)
    training.evaluation.ablate.ablate()
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert [cell.strip() for cell in rows[0]] == ["Frames correct", "mean", "hands", "empty", "passes"]
    cost = {row[0].strip(): float(row[-1]) for row in rows[2:]}
    assert "without flip TTA" in cost
    assert cost["crops of 128 pixels"] > cost["crops of 96 pixels"]
    assert rows[2][1].strip() == "100.0%"


def test_the_calibration_split_shares_nothing_with_training_and_evaluation(tmp_path):
    for source in SOURCES.values():
        if source.calibration == "validation":
            assert not source.held_out or source.held_out_path, f"{source.name}: its validation frames are evaluated"
        elif source.calibration:
            assert source.calibration not in (source.path, source.held_out_path)
    write_rendered(tmp_path / "render/calibration", 24)
    opened = open_calibration(tmp_path)
    assert list(opened) == ["rendered"]
    assert len(opened["rendered"][1]) == 24


def test_without_a_calibration_split_the_way_to_it_is_named(tmp_path):
    with pytest.raises(BadData, match="python -m training data"):
        load_runner(MODEL, MODEL, tmp_path, 10)


def test_frames_are_spread_evenly():
    assert spread(range(10), 4).tolist() == [0, 3, 6, 9]
    assert spread(range(3), 10).tolist() == [0, 1, 2]
