"""Ways to combine the scores of detector and classifier, compared on hands of strangers."""

import pytest
import torch

from training.cli import main
from training.evaluation.fuse import Candidates, Fold


def candidates(*places: tuple[float, float]) -> Candidates:
    scores, presence = torch.tensor(places).reshape(-1, 2).unbind(1)
    return Candidates(scores, presence, torch.zeros(len(places), 4))


def test_the_threshold_is_what_one_face_in_a_hundred_exceeds():
    faces = [candidates((0.9, -3.0)), *[candidates((0.5, -3.0))] * 100]
    fold = Fold(faces, {"spin": [candidates((0.6, -3.0)), candidates((0.4, -3.0)), candidates()]})
    assert fold.recall(0.5, 0.0) == {"spin": pytest.approx(1 / 3)}, "above all faces but one"


def test_with_a_low_power_a_hand_that_the_classifier_is_sure_of_needs_little_of_the_detector():
    faces = [candidates((0.9, 0.0))] * 100
    fold = Fold(faces, {"spin": [candidates((0.2, 8.0))], "rps": [candidates((0.2, 8.0), (0.95, -9.0))]})
    assert fold.recall(1.0, 0.0) == {"spin": 0, "rps": 0}
    assert fold.recall(0.25, -3.0) == {"spin": 1, "rps": 1}


def test_without_models_that_left_a_source_out_nothing_can_be_compared(tmp_path):
    with pytest.raises(SystemExit, match="no models here"):
        main(["fuse", "--runs", str(tmp_path)])
