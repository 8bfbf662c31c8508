"""A personal head: the classifier's last layer, fitted in a second to one visitor's hand and room.

The network's pooled features stay as they are. What is linear in them changes: the weights of the classes, and those
that say whether there is a hand. Fitted are the most probable ones, with the shipped ones as the prior: logistic
regression with a penalty on the distance from them. A few pictures move them a little, many move them further, and
what no picture shows stays as it was. The head for single fingers stays, too: a count does not say which are raised.

>>> lessons = Lessons(counter)
>>> lessons.add(image, encode(3, "left"), round=1)
True
>>> head = fit(lessons)
>>> head.save(Path("my-hand.json"))
>>> counter(image, PersonalHead.load(Path("my-hand.json")))
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from handful.labels import CLASSES, FINGERS, NO_HAND, SIDE_UNKNOWN, count_of, decode_probabilities, mirror
from handful.logistic import Problem, cross_entropy, log_sum_exp, predict_folds, solve

if TYPE_CHECKING:
    from handful.counter import FingerCounter

Weights = dict[str, np.ndarray]
# Heads of the classifier, inputs of the graph whose defaults are the shipped ones: rows are outputs, columns are the
# features of a hand.
HEADS: dict[str, tuple[int | None, ...]] = {
    "classifier.head.weight": (len(CLASSES), None),
    "classifier.head.bias": (len(CLASSES),),
    "classifier.presence.weight": (1, None),
    "classifier.presence.bias": (1,),
    "classifier.fingers.weight": (len(FINGERS), None),
    "classifier.fingers.bias": (len(FINGERS),),
}
FITTED = tuple(name for name in HEADS if "fingers" not in name)  # what a personal head replaces
MAX_FILE_BYTES = 100_000  # a personal head has 15,000
FILE_KIND = "personal head"
CHOOSE = "Choose a file that PersonalHead.save wrote, see docs/teach.md."
MAX_WEIGHT = 1e3
CERTAIN = 100.0  # a logit
RAW_DATA = b"\x4a"  # the key of field 9: of bytes
# None below 1: what makes a head surer of hands makes it surer of things that no picture shows, too. From 0.5 on, false
# alarms in places that were not taught doubled.
TEMPERATURES = np.geomspace(1, 2, 21)
FOLDS = 3  # rounds beyond are merged: each takes time
MIN_HANDS = 4  # pictures


class BadHead(ValueError):
    """A personal head cannot be used; the message says why, and what to do."""


class CannotLearn(ValueError):
    """The pictures do not suffice to learn from; the message says what is missing."""


@dataclass(frozen=True)
class Figures:
    """How often pictures that were not learned from were predicted as labelled, before and after learning.

    Attributes:
        hands: pictures of a hand.
        correct_before, correct_after: those with the labelled count, and side if one is labelled.
        empty: pictures without a hand.
        alarms_before, alarms_after: those in which a hand was predicted.
        helped: whether there are fewer errors than before; or as many, but a lower cross-entropy.
    """

    hands: int
    correct_before: int
    correct_after: int
    empty: int
    alarms_before: int
    alarms_after: int
    helped: bool


NOT_MEASURED = Figures(0, 0, 0, 0, 0, 0, helped=False)


@dataclass(frozen=True, eq=False)  # arrays do not compare
class PersonalHead:
    """What a `FingerCounter` predicts one visitor's hands with.

    Attributes:
        weights: float32 arrays by their names in `HEADS`, which the graph takes as inputs.
        model: SHA-256 of the model file that they belong to.
        date: when they were fitted, "2026-11-29"; "" where this is not known, and nor are the figures.
        figures: what they are worth.
    """

    weights: Weights
    model: str
    date: str = ""
    figures: Figures = NOT_MEASURED

    def to_json(self) -> str:
        """Return the head as a small JSON file, without any picture."""
        weights = {name: round_digits(values.tolist()) for name, values in self.weights.items()}
        fields = {"handful": FILE_KIND, "model": self.model, "date": self.date, "figures": asdict(self.figures)}
        return json.dumps(fields | {"weights": weights}, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, data: bytes) -> "PersonalHead":
        """Read what `to_json` wrote.

        Raises:
            BadHead: it is too large, no personal head, or damaged.
        """
        if len(data) > MAX_FILE_BYTES:
            raise BadHead(f"This file is too large for a personal head, which has about 15 KB. {CHOOSE}")
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError):  # ValueError: or no UTF-8
            fields = None
        if not isinstance(fields, dict) or fields.get("handful") != FILE_KIND:
            raise BadHead(f"This is not a personal head. {CHOOSE}")
        try:
            weights = {name: parse_weights(fields["weights"][name], HEADS[name]) for name in FITTED}
            figures = Figures(**fields["figures"])
            types = Figures.__annotations__
            if not all(type(value) is types[name] and value >= 0 for name, value in asdict(figures).items()):
                raise ValueError("figures")
            fitted = date.fromisoformat(fields["date"]).isoformat()
            return cls(weights, str(fields["model"]), fitted, figures)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadHead(f"This personal head is damaged: its numbers cannot be used. {CHOOSE}") from error

    def save(self, file: Path) -> None:
        """Write the head to a JSON file."""
        file.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> "PersonalHead":
        """Read a file that `save` wrote.

        Raises:
            BadHead: it cannot be read, or is not a personal head.
        """
        try:
            if file.exists() and not file.is_file():  # a pipe or a device may never end
                raise OSError("it is not a file")
            with file.open("rb") as opened:
                data = opened.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a path with a null character
            raise BadHead(f"{file}: this file cannot be opened ({error}).") from error
        try:
            return cls.from_json(data)
        except BadHead as error:
            raise BadHead(f"{file}: {error}") from None


def round_digits(values: Any) -> Any:
    """Round the numbers of nested lists to the six significant digits that matter."""
    return [round_digits(value) for value in values] if isinstance(values, list) else float(f"{values:.6g}")


def parse_weights(values: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return numbers from JSON as float32 of a shape, in which None is any length.

    Raises:
        ValueError: they have another shape, or are not finite or small numbers.
    """
    weights = np.array(values)  # raises ValueError if lists differ in length
    numbers = shape_matches(weights.shape, shape) and weights.dtype.kind in "fi" and weights.size
    if not numbers or not (np.abs(weights) < MAX_WEIGHT).all():  # of NaN, no comparison holds
        raise ValueError("weights")
    return weights.astype(np.float32)


def shape_matches(shape: Sequence[int | str], expected: tuple[int | None, ...]) -> bool:
    """Return whether a shape, in which names stand for variable dimensions, is the expected one: None is any length."""
    return len(shape) == len(expected) and all(n in (None, m) for n, m in zip(expected, shape, strict=True))


def read_heads(model: Path) -> Weights:
    """Return the shipped heads of a model file, float32: onnxruntime has no way to read them."""
    data = model.read_bytes()
    heads = {name: np.frombuffer(data[find_values(data, name)], "<f4") for name in HEADS}
    return {name: values.reshape([size or -1 for size in HEADS[name]]) for name, values in heads.items()}


def with_heads(model: bytes, weights: Weights) -> bytes:
    """Return a model file with other heads, for a runtime that cannot take them as inputs: onnxruntime-web."""
    data = bytearray(model)
    for name, values in weights.items():
        data[find_values(data, name)] = values.astype("<f4").tobytes()
    assert len(data) == len(model), "the same shapes"
    return bytes(data)


def find_values(model: bytes | bytearray, name: str) -> slice:
    """Return where a model file has a tensor's values, float32.

    They follow its name, as protocol buffers are written in order of their fields: `TensorProto.name` is field 8,
    `raw_data` field 9, which starts with its length.
    """
    start = model.index(name.encode() + RAW_DATA) + len(name) + 1
    length = shift = 0
    while True:  # seven bits a byte, the lowest first
        byte, start = model[start], start + 1
        length, shift = length | (byte & 127) << shift, shift + 7
        if byte < 128:
            return slice(start, start + length)


# What is learned from


class Place(NamedTuple):
    """A place in a picture, or in its mirror image, that may be a hand.

    Attributes:
        features: (112,) float32; zeros where the detector found nothing.
        score: the detector's factor of the score of a hand, 0-1; 0 where it found nothing.
        target: a class, a count with the side unknown, or `NO_HAND`; see `handful.labels`.
        round: in which it was recorded: in each, hands are shown anew.
        picture: number of the picture.
        mirrored: whether it is in the mirror image.
    """

    features: np.ndarray
    score: float
    target: int
    round: int
    picture: int
    mirrored: bool


class Candidates(NamedTuple):
    """All places of a picture that may be a hand: `Place.score` of each (K,), 0-1, and features (K, 112) float32."""

    scores: np.ndarray
    features: np.ndarray


class Lessons:
    """Collect what a head is fitted on: the features of hands, and of what is none. It keeps no pictures.

    Attributes:
        counter: with the model that is taught.
        places: what was found, at least one place a picture and mirror image.
        pictures: how many were added.
    """

    def __init__(self, counter: "FingerCounter"):
        self.counter = counter
        self.places: list[Place] = []
        self.pictures = 0

    def add(self, image: np.ndarray, target: int, round: int) -> bool:
        """Add a picture of one hand, or of none, (H, W, 3) uint8 RGB; see `Place` for its target and round.

        Returns whether anything in it may be a hand.
        """
        return self.add_candidates([candidates(self.counter, one) for one in (image, image[:, ::-1])], target, round)

    def add_candidates(self, both: Sequence[Candidates], target: int, round: int) -> bool:
        """Add a picture by the `candidates` of it and of its mirror image, in this order; see `add`."""
        found = False
        for mirrored, (scores, features) in enumerate(both):
            found |= len(scores) > 0
            if not len(scores):
                scores, features = np.zeros(1), np.zeros((1, features.shape[1]), np.float32)
            elif target != NO_HAND:  # what the other places are is not known
                presence = sigmoid(with_constant(features) @ with_biases(self.counter.heads, "classifier.presence").T)
                best = [int((scores * presence[:, 0]).argmax())]
                scores, features = scores[best], features[best]
            label = mirror(target) if mirrored else target
            places = zip(features, scores.tolist(), strict=True)
            self.places += [Place(*place, label, round, self.pictures, bool(mirrored)) for place in places]
        self.pictures += 1
        return found


def candidates(counter: "FingerCounter", image: np.ndarray) -> Candidates:
    """Return all places of a picture, (H, W, 3) uint8 RGB, that may be a hand.

    The graph scores a place by the product of the detector's factor and of the presence of a hand. It gets heads for
    which everything is a hand.
    """
    weights = {name: np.zeros_like(counter.heads[name]) for name in FITTED}
    weights["classifier.head.bias"][0] = weights["classifier.presence.bias"][0] = CERTAIN
    scores, features = counter.session.run(["scores", "features"], {"image": image, **weights})
    return Candidates(scores, features)


# Fitting


def fit(lessons: Lessons) -> PersonalHead:
    """Fit a personal head to two rounds of pictures or more.

    Each round is also predicted by a head that was fitted on the others only: that gives the temperature, and says in
    `PersonalHead.figures` whether learning helped.

    Raises:
        CannotLearn: there is a single round or a single count, or hands were found in hardly any picture.
    """
    return fit_and_compare(lessons).head


class Comparison(NamedTuple):
    """A head, and the numbers of the pictures that are predicted as labelled: before, and by a head that was fitted on
    other rounds only.
    """

    head: PersonalHead
    before: set[int]
    after: set[int]


def fit_and_compare(lessons: Lessons) -> Comparison:
    """Fit a personal head as `fit` does, and return which pictures it changed."""
    counter = lessons.counter
    config = json.loads(counter.metadata["cascade"])
    classes, presence = problems(lessons)
    class_logits, presence_logits = predict_folds(classes), predict_folds(presence)
    temperature = min(TEMPERATURES, key=lambda t: cross_entropy(class_logits / t, classes.allowed))
    class_logits /= temperature
    shipped_logits, shipped_presence = (problem.features @ problem.prior.T for problem in (classes, presence))
    before = find_correct(lessons, shipped_logits, shipped_presence, config)
    after = find_correct(lessons, class_logits, presence_logits, config)
    hands = {place.picture for place in lessons.places if place.target != NO_HAND}
    empty = {place.picture for place in lessons.places} - hands
    # As many errors, but more certain where it is right: that helps, too.
    losses = [cross_entropy(logits, classes.allowed) for logits in (shipped_logits, class_logits)]
    figures = Figures(
        hands=len(hands),
        correct_before=len(hands & before),
        correct_after=len(hands & after),
        empty=len(empty),
        alarms_before=len(empty - before),
        alarms_after=len(empty - after),
        helped=(-len(after), losses[1]) < (-len(before), losses[0]),
    )
    class_weights = solve(classes) * config["temperature"] / temperature
    no_hand, hand = solve(presence)
    weights = {
        "classifier.head.weight": class_weights[:, :-1],
        "classifier.head.bias": class_weights[:, -1],
        "classifier.presence.weight": (hand - no_hand)[None, :-1],
        "classifier.presence.bias": (hand - no_hand)[-1:],
    }
    weights = {name: np.ascontiguousarray(values, np.float32) for name, values in weights.items()}
    head = PersonalHead(weights, counter.sha256, datetime.now(UTC).date().isoformat(), figures)
    return Comparison(head, before, after)


def problems(lessons: Lessons) -> tuple[Problem, Problem]:
    """Return what the head of the classes and the head of presence (no hand, hand) are fitted on.

    Raises:
        CannotLearn: see `fit`.
    """
    places, heads = lessons.places, lessons.counter.heads
    targets = np.array([place.target for place in places])
    found = np.array([place.score > 0 for place in places], bool)
    hands = found & (targets != NO_HAND)
    if len({place.picture for place, hand in zip(places, hands, strict=True) if hand}) < MIN_HANDS:
        raise CannotLearn("Hands were found in hardly any picture. More light helps, or a hand nearer to the camera.")
    if len(set(count_of(targets[hands]).tolist())) < 2:
        raise CannotLearn("All pictures show the same count. Record two different counts at least.")
    rounds = np.array([place.round for place in places])
    _, folds = np.unique(rounds, return_inverse=True)
    if len(set(folds[hands].tolist())) < 2:
        raise CannotLearn("There is a single round. Record a second one, which shows whether learning helped.")
    features = with_constant(np.array([place.features for place in places], float))
    classes = np.arange(len(CLASSES))
    same_side = (targets[:, None] >= SIDE_UNKNOWN) | (classes == targets[:, None])
    allowed = hands[:, None] & same_side & (count_of(classes) == count_of(targets)[:, None])
    temperature = json.loads(lessons.counter.metadata["cascade"])["temperature"]
    class_prior = with_biases(heads, "classifier.head") / temperature
    presence_prior = with_biases(heads, "classifier.presence")
    # Without a picture of the room, everything would become a hand: that head stays as it is.
    empty = found & (targets == NO_HAND)
    is_hand = np.stack([empty, hands & empty.any()], 1)
    prior = np.concatenate([np.zeros_like(presence_prior), presence_prior])
    return Problem(features, allowed, folds % FOLDS, class_prior), Problem(features, is_hand, folds % FOLDS, prior)


def find_correct(
    lessons: Lessons, class_logits: np.ndarray, presence_logits: np.ndarray, cascade: dict[str, float]
) -> set[int]:
    """Return the numbers of the pictures that would be predicted as labelled: a hand as its class, none as none.

    Args:
        lessons: with N places.
        class_logits: (N, 12), divided by the temperature.
        presence_logits: (N, 2) of no hand and of a hand.
        cascade: the model's `CascadeConfig`, which has the threshold of a hand's score.
    """
    probabilities = np.exp(class_logits - log_sum_exp(class_logits))
    bias = cascade.get("presence_bias", 0.0)  # older models have none
    presence = sigmoid(presence_logits[:, 1] - presence_logits[:, 0] + bias)
    correct = {place.picture for place in lessons.places if place.target == NO_HAND}
    for i, place in enumerate(lessons.places):
        if place.mirrored or place.score * presence[i] <= cascade["threshold"]:
            continue
        if place.target == NO_HAND:
            correct.discard(place.picture)
        elif (predicted := decode_probabilities(probabilities[i])) == place.target or (
            place.target >= SIDE_UNKNOWN and count_of(predicted) == count_of(place.target)
        ):
            correct.add(place.picture)
    return correct


def with_constant(features: np.ndarray) -> np.ndarray:
    """Append a 1 to each row of features (N, 112), for the bias: (N, 113) float64."""
    return np.hstack([features, np.ones((len(features), 1))])


def with_biases(heads: Weights, name: str) -> np.ndarray:
    """Return weights and biases of a head in one matrix, (C, 113) float64."""
    return np.hstack([heads[f"{name}.weight"], heads[f"{name}.bias"][:, None]]).astype(float)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return probabilities from logits, without overflow."""
    return np.exp(-np.logaddexp(0, -logits))
