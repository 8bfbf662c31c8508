"""Benchmark of personal heads: what is learned from and what is tested, on bundled samples with other labels."""

import numpy as np
import pytest

from benchmarks import teach
from handful import CLASSES, FingerCounter
from handful.images import decode
from handful.labels import SIDE_UNKNOWN, count_of
from tests.builders import SAMPLES


@pytest.fixture
def session() -> teach.Session:
    """Return a session in which each count is labelled as the next one: the shipped model is always wrong."""
    labels = [(label, number) for label in CLASSES for number in range(6)]
    pictures = [
        (decode(SAMPLES / f"{label}_{number}.jpg"), SIDE_UNKNOWN + (int(label[0]) + 1) % 6) for label, number in labels
    ]
    return teach.Session("digits", "samples", FingerCounter(), pictures)


@pytest.mark.parametrize("start", range(teach.STARTS))
@pytest.mark.parametrize("size", teach.SIZES)
def test_no_picture_is_learned_from_and_tested(session, size, start):
    learned, tested = teach.split(session.pictures, size, start)
    assert not set(learned) & set(tested)
    assert set(learned) | set(tested) == set(range(len(session.pictures)))
    counts = [count_of(session.pictures[number][1]) for number in learned]
    assert np.bincount(counts).tolist() == [min(size, 6)] * 6, "half of the pictures stay for the test"
    assert set(learned.values()) == set(range(min(size, teach.ROUNDS)))


def test_personal_heads_are_measured_beside_others(session, monkeypatch):
    monkeypatch.setattr(teach, "sessions", lambda root, frames: [session])
    monkeypatch.setattr(teach, "SIZES", (3, 5))
    monkeypatch.setattr(teach, "STARTS", 1)
    monkeypatch.setattr(teach, "MAX_TESTED", 24)
    results = teach.run()
    three, five = teach.curve(results)
    assert (three["size"], three["learned"], five["learned"]) == (3, 18, 30)
    for row in (three, five):
        assert row["errors"]["shipped"] > 0.8
        assert row["errors"]["personal"] == row["errors"]["always"] < 0.3
        assert max(row["errors"][name] for name in ("nearest neighbours", "logistic regression")) < 0.5
        assert row["worse"] == 0
    report = teach.report(results)
    assert f"{five['errors']['personal']:.1%}" in report
    assert "Time to fit" in report
