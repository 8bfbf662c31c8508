"""Personal heads: what they learn from a few pictures, what cannot be learned, their files, whom they concern."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from handful import CLASSES, COUNTS, FingerCounter, shared_counter
from handful.cli import main
from handful.images import decode
from handful.labels import NO_HAND, SIDE_UNKNOWN, encode, mirror
from handful.personal import (
    FITTED,
    BadHead,
    CannotLearn,
    Lessons,
    PersonalHead,
    candidates,
    fit,
    sigmoid,
    with_biases,
    with_constant,
    with_heads,
)

SAMPLES = Path(__file__).parents[2] / "assets/samples"
ROUNDS = 3


@pytest.fixture(scope="module")
def counter() -> FingerCounter:
    return FingerCounter()


def sample(label: str, number: int) -> np.ndarray:
    return decode(SAMPLES / f"{label}_{number}.jpg")


def shift(target: int, by: int = 1) -> int:
    """Return the class of the same hand with a higher count; 0 follows 5."""
    return (target + by) % len(COUNTS) + target // len(COUNTS) * len(COUNTS)


def another_count(label: str) -> int:
    """Return the target of a code that the model does not know: each count stands for the next one."""
    return shift(CLASSES.index(label))


@pytest.fixture(scope="module")
def recording(counter):
    """Return lessons of three rounds, one picture a class in each, in which each count stands for the next one."""
    lessons = Lessons(counter)
    for number in range(ROUNDS):
        for label in CLASSES:
            assert lessons.add(sample(label, number), another_count(label), number)
    return lessons


def relabelled(lessons: Lessons, label) -> Lessons:
    """Return the same pictures with other targets: `label(place)`."""
    other = Lessons(lessons.counter)
    other.pictures = lessons.pictures
    other.places = [place._replace(target=label(place)) for place in lessons.places]
    return other


def part(lessons: Lessons, keep) -> Lessons:
    """Return the pictures whose places `keep` accepts."""
    other = Lessons(lessons.counter)
    other.places = [place for place in lessons.places if keep(place)]
    other.pictures = len({place.picture for place in other.places})
    return other


@pytest.fixture(scope="module")
def head(recording) -> PersonalHead:
    return fit(recording)


# Learning


def test_a_head_learns_another_way_to_count_from_three_pictures_a_class(counter, head):
    figures = head.figures
    assert (figures.hands, figures.empty) == (ROUNDS * len(CLASSES), 0)
    assert figures.correct_before < 0.2 * figures.hands
    assert figures.correct_after > 0.7 * figures.hands
    assert figures.helped
    new = [(label, counter(sample(label, number), head).hands) for label in CLASSES for number in (6, 9)]
    right = sum(encode(hands[0].fingers, hands[0].side) == another_count(label) for label, hands in new if hands)
    assert right > 0.7 * len(new), "the whole pipeline, on pictures that were not learned from"


def test_gradcam_follows_the_head(counter, head):
    [before], [after] = (counter(sample("3L", 6), personal).hands for personal in (None, head))
    weights = counter.heads["classifier.head.weight"]
    change = head.weights["classifier.head.weight"] - weights
    assert np.abs(change).max() > 0.01
    np.testing.assert_array_equal(before.features, after.features)
    assert not np.allclose(before.gradcam_maps, after.gradcam_maps, atol=1e-3)


def test_contradictory_labels_do_not_help(recording):
    """Each hand has its own count in the first round, and others in the next ones."""
    figures = fit(relabelled(recording, lambda place: shift(place.target, 2 * place.round - 1))).figures
    assert 0 < figures.correct_before <= 0.4 * figures.hands
    assert figures.correct_after < figures.correct_before
    assert not figures.helped


def test_the_count_can_be_learned_without_the_side(counter, recording):
    sides_unknown = relabelled(recording, lambda place: SIDE_UNKNOWN + place.target % 6)
    head = fit(sides_unknown)
    assert head.figures.correct_after > 0.7 * head.figures.hands
    sides = [[hand.side for hand in counter(sample(label, 6), one).hands] for one in (None, head) for label in CLASSES]
    same = [before == after for before, after in zip(sides[:12], sides[12:], strict=True)]
    assert np.mean(same) > 0.7, "sides are those of the shipped model"


def test_one_hand_teaches_the_other(counter, recording):
    """Mirror images are learned from, too."""

    def is_left(place):
        return (mirror(place.target) if place.mirrored else place.target) < len(COUNTS)

    head = fit(part(recording, is_left))
    taught = [
        [hand.label for hand in counter(sample(label, number), head).hands] == [CLASSES[another_count(label)]]
        for label in CLASSES
        for number in (6, 9)
        if label.endswith("R")
    ]
    assert np.mean(taught) > 0.6


def test_what_is_no_hand_in_a_room_is_learned(counter, recording):
    """A thing that the model takes for a hand: here, a hand."""
    thing = sample("0R", 7)
    lessons = relabelled(recording, lambda place: place.target)
    lessons.places = list(recording.places)
    for number in range(ROUNDS):
        for shift in range(4):
            lessons.add(np.roll(thing, 2 * shift, 1), NO_HAND, number)
    assert counter(thing).hands
    head = fit(lessons)
    assert (head.figures.empty, head.figures.alarms_before) == (12, 12)
    assert head.figures.alarms_after <= 6
    assert not counter(np.roll(thing, 3, 1), head).hands
    assert counter(sample("5L", 8), head).hands, "hands are still hands"


def test_without_pictures_of_the_room_what_is_a_hand_stays(counter, head):
    for part in ("weight", "bias"):
        name = f"classifier.presence.{part}"
        np.testing.assert_array_equal(head.weights[name], counter.heads[name])


def test_the_same_pictures_give_the_same_head(recording, head):
    again = fit(recording)
    assert again.figures == head.figures
    for name in FITTED:
        np.testing.assert_array_equal(again.weights[name], head.weights[name])


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (lambda place: place.target in (3, 9), "two different counts"),
        (lambda place: place.round == 0, "second"),
        (lambda place: place.picture < 3, "hardly any picture"),
        (lambda place: False, "hardly any picture"),
    ],
    ids=["one class", "one round", "three pictures", "nothing"],
)
def test_too_little_to_learn_from_is_refused_in_words(recording, keep, words):
    with pytest.raises(CannotLearn, match=words):
        fit(part(recording, keep))


def test_a_hundred_pictures_without_a_hand_are_refused_in_words(counter):
    lessons = Lessons(counter)
    lessons.add(np.full((120, 160, 3), 128, np.uint8), encode(3, "left"), 0)
    lessons.places *= 100
    lessons.places = [place._replace(picture=number // 2) for number, place in enumerate(lessons.places)]
    with pytest.raises(CannotLearn, match="More light"):
        fit(lessons)


def test_five_hundred_pictures_can_be_learned_from(recording):
    lessons = relabelled(recording, lambda place: place.target)
    size = recording.pictures
    lessons.places = [p._replace(picture=p.picture + k * size) for k in range(14) for p in recording.places]
    lessons.pictures = 14 * size
    assert fit(lessons).figures.hands == 14 * size > 500


# Files


def test_a_head_is_a_small_file_without_pictures(counter, head, tmp_path):
    head.save(tmp_path / "my-hand.json")
    assert (tmp_path / "my-hand.json").stat().st_size < 20_000
    loaded = PersonalHead.load(tmp_path / "my-hand.json")
    assert (loaded.model, loaded.date, loaded.figures) == (counter.sha256, head.date, head.figures)
    for label in CLASSES:
        hands = (counter(sample(label, 6), personal).hands for personal in (head, loaded))
        for one, other in zip(*hands, strict=True):
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-3)


def changed(head: PersonalHead, **fields) -> bytes:
    return json.dumps(json.loads(head.to_json()) | fields).encode()


def with_weights(head: PersonalHead, name: str, values: list) -> bytes:
    return changed(head, weights=json.loads(head.to_json())["weights"] | {f"classifier.{name}": values})


def with_figures(head: PersonalHead, **figures) -> bytes:
    return changed(head, figures=json.loads(head.to_json())["figures"] | figures)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda head: b"", "not a personal head"),
        (lambda head: b"\xff\xd8\xff\xe0 a JPEG", "not a personal head"),
        (lambda head: b"[1, 2]", "not a personal head"),
        (lambda head: b"[" * 50_000, "not a personal head"),
        (lambda head: b'{"handful": "a recording"}', "not a personal head"),
        (lambda head: head.to_json().encode()[:-50], "not a personal head"),
        (lambda head: b" " * 10_000_000, "too large"),
        (lambda head: changed(head, weights={}), "damaged"),
        (lambda head: changed(head, weights=[]), "damaged"),
        (lambda head: changed(head, figures={"hands": 3}), "damaged"),
        (lambda head: with_figures(head, hands=-1), "damaged"),
        (lambda head: with_figures(head, hands="<b>3</b>"), "damaged"),
        (lambda head: changed(head, date="<script>"), "damaged"),
        (lambda head: with_weights(head, "head.bias", [float("nan")] * 12), "damaged"),
        (lambda head: with_weights(head, "head.bias", [1e30] * 12), "damaged"),
        (lambda head: with_weights(head, "head.bias", ["1"] * 12), "damaged"),
        (lambda head: with_weights(head, "head.bias", [10**400] * 12), "damaged"),
        (lambda head: with_weights(head, "head.bias", [0.0] * 13), "damaged"),
        (lambda head: with_weights(head, "presence.weight", [0.0] * 112), "damaged"),
        (lambda head: with_weights(head, "presence.weight", [[]]), "damaged"),
        (lambda head: with_weights(head, "head.weight", [[0.0] * 112] * 11 + [[0.0] * 111]), "damaged"),
    ],
    ids=range(21),
)
def test_what_is_no_personal_head_is_refused_in_words(head, make, words, tmp_path):
    file = tmp_path / "my-hand.json"
    file.write_bytes(make(head))
    with pytest.raises(BadHead, match=f"my-hand.json: .*{words}.* Choose a file that PersonalHead.save wrote"):
        PersonalHead.load(file)


@pytest.mark.timeout(60)
def test_a_file_that_cannot_be_opened_is_refused_in_words(tmp_path):
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "none.json", tmp_path, tmp_path / "pipe"):
        with pytest.raises(BadHead, match="cannot be opened"):
            PersonalHead.load(file)


def test_a_head_for_another_model_is_refused_in_words(counter, head):
    narrow = {name: values[..., :-1] if name.endswith("weight") else values for name, values in head.weights.items()}
    for other in (replace(head, model="0" * 64), replace(head, weights=narrow)):
        with pytest.raises(BadHead, match="another model"):
            counter(sample("3L", 5), other)
        with pytest.raises(BadHead, match="another model"):
            FingerCounter(personal=other)


def test_a_model_file_can_have_the_head_in_it(counter, head, tmp_path):
    file = tmp_path / "taught.onnx"
    file.write_bytes(with_heads(counter.path.read_bytes(), head.weights))
    taught = FingerCounter(file)
    for label in CLASSES:
        for one, other in zip(counter(sample(label, 6), head).hands, taught(sample(label, 6)).hands, strict=True):
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
            np.testing.assert_allclose(one.gradcam_maps, other.gradcam_maps, atol=1e-4)


# Whom it concerns


def labels(counter, head=None):
    return [[hand.label for hand in counter(sample(label, 6), head).hands] for label in CLASSES]


def test_a_head_concerns_one_call_only(counter, head, recording):
    """Two visitors at once, and one without a head, who share the counter."""
    other = fit(relabelled(recording, lambda place: shift(place.target)))
    heads = [None, head, other]
    expected = [labels(counter, one) for one in heads]
    assert len({str(one) for one in expected}) == 3
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda one: labels(counter, one), heads * 4)) == expected * 4


def test_a_counter_can_be_made_with_a_head(counter, head):
    own = FingerCounter(personal=head)
    assert labels(own) == labels(counter, head) != labels(counter)


def test_command_line_predicts_with_a_head(head, tmp_path, capsys):
    head.save(tmp_path / "my-hand.json")
    picture = str(SAMPLES / "3L_0.jpg")
    assert main([picture, "--personal", str(tmp_path / "my-hand.json")]) == 0
    assert main([picture]) == 0
    taught, shipped = (json.loads(line)["total"] for line in capsys.readouterr().out.splitlines())
    assert (taught, shipped) == (4, 3)
    assert main([picture, "--personal", picture]) == 1
    assert re.fullmatch(r"handful: .*3L_0.jpg: This is not a personal head\. .*\n", capsys.readouterr().err)


@pytest.mark.parametrize("damaged", [False, True])
def test_the_environment_names_a_head(head, damaged, tmp_path, monkeypatch, caplog):
    file = tmp_path / "my-hand.json"
    head.save(file)
    if damaged:
        file.write_text("{}")
    monkeypatch.setenv("HANDFUL_PERSONAL", str(file))
    shared_counter.cache_clear()
    try:
        assert shared_counter()(sample("3L", 0)).total == (3 if damaged else 4)
        assert ("HANDFUL_PERSONAL is not used" in caplog.text) == damaged
    finally:
        shared_counter.cache_clear()


@pytest.mark.parametrize("name", ["3L_0", "1R_0", "5L_2"])
def test_the_score_of_a_hand_is_that_of_its_place_times_its_presence(name):
    counter, image = shared_counter(), decode(f"assets/samples/{name}.jpg")
    scores, features = counter.session.run(["scores", "features"], {"image": image})
    place = candidates(counter, image)
    assert np.allclose(place.features[0], features[0], atol=1e-4)
    logit = (with_constant(features) @ with_biases(counter.heads, "classifier.presence").T)[0, 0]
    bias = json.loads(counter.metadata["cascade"])["presence_bias"]
    assert place.scores[0] * sigmoid(logit + bias) == pytest.approx(scores[0], abs=1e-3)
