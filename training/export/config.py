"""Every threshold and scale of the exported cascade, in one place.

`python -m training calibrate` finds them for a pair of networks; the ONNX file carries them in its metadata.
"""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from training.errors import BadData


@dataclass(frozen=True)
class CascadeConfig:
    """Thresholds, scales and temperature of a `Cascade`. Scores and confidences are 0 … 1, scales are relative.

    Args:
        detector_scale: longer side of the letterboxed frame, relative to the detector's training size.
        crop_margin: side of the crop that is classified, in longer sides of the box. Less than in training (1.3):
            what is varied in size there looks larger than it is (Touvron et al., 2019, arXiv:1906.06423).
        crop_scale: side of its picture, relative to the classifier's training size.
        flip_confidence: a crop with less confidence (hand and class) is classified in a mirror, too; 0: none is.
        detector_power: exponent of the detector's score in the score of a hand, …
        presence_bias: … and what is added to the logit of presence there. On strangers, the detector is less sure of
            hands than of its own people's, the classifier is not: `python -m training fuse` compares both on sources
            that networks were trained without.
        threshold: score from which on the most likely hand of a frame is reported, …
        other_threshold: … and any other one: a person who looks at a finger counter shows it one hand.
        beside_threshold: … and a small one beside a hand, which may be a watch, a sleeve or an ornament.
        temperature: divides logits, so that confidence matches accuracy (Guo et al., 2017, arXiv:1706.04599).
    """

    detector_scale: float = 1.0
    crop_margin: float = 1.1
    crop_scale: float = 1.0
    flip_confidence: float = 0.95
    detector_power: float = 0.25
    presence_bias: float = -3.0
    threshold: float = 0.65
    other_threshold: float = 0.8
    beside_threshold: float = 0.9
    temperature: float = 0.85

    @property
    def candidate_score(self) -> float:
        """Score of the detector above which its hands are classified: with a lower one, none could pass a threshold."""
        return min(self.threshold, self.other_threshold) ** (1 / self.detector_power)

    def to_json(self) -> str:
        """Return the config as it is stored in the metadata of the ONNX file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_dict(cls, values: Any) -> "CascadeConfig":
        """Return the config that a dictionary describes; what it does not name keeps its default.

        Raises:
            BadData: it names something else, or a value is no number.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or not names >= set(values):
            raise BadData(f"A cascade config has the fields {', '.join(sorted(names))}.")
        for name, value in values.items():
            if not isinstance(value, (int, float)):
                raise BadData(f"{name} of a cascade config is a number, not {value!r}.")
        return replace(cls(), **values)

    @classmethod
    def load(cls, file: Path) -> "CascadeConfig":
        """Read a config that `python -m training calibrate` wrote.

        Raises:
            BadData: the file is missing or is no cascade config.
        """
        try:
            return cls.from_dict(yaml.safe_load(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise BadData(f"{file}: no such file. Make it: python -m training calibrate") from None
        except (OSError, yaml.YAMLError, UnicodeError, BadData) as error:
            raise BadData(f"{file}: not a cascade config. {error}") from None

    def save(self, file: Path) -> None:
        """Write the config as YAML, for `load`."""
        file.write_text(yaml.safe_dump(asdict(self), sort_keys=False), encoding="utf-8")
