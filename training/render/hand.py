"""The hand mesh: a rigged public model, its proportions and its poses (linear blend skinning).

The mesh is `generic-hand` of the npm package `@webxr-input-profiles/assets` (MIT, © Amazon): 1,159 vertices once its
texture seams are welded, the 25 joints of the WebXR Hand Input specification, and skinning weights. Only the left hand
is used: a right hand is its mirror image, so the sides differ in nothing else.

Units are millimetres. The coordinate frame is that of a left hand showing its palm, fingers up:

    x  to the viewer's right: from the thumb to the little finger
    y  up: from the wrist to the fingertips
    z  towards the viewer: out of the palm
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pygltflib
from scipy import sparse

from training import npm

PACKAGE, VERSION = "@webxr-input-profiles/assets", "1.0.20"
MEMBER = "dist/profiles/generic-hand/left.glb"
SHA256 = "bc67783144944ea1cda54d9247885825ea5fb9d4651469fe7d00be517a5c2b87"
CACHE = Path(__file__).parents[2] / "data" / "render"

BONES = ("metacarpal", "proximal", "intermediate", "distal", "tip")
# Joint order: the wrist, each finger from palm to tip, the forearm.
WRIST, FOREARM = 0, 25
CHAINS: tuple[tuple[int, ...], ...] = ((1, 2, 3, 4), *(tuple(range(5 * f, 5 * f + 5)) for f in range(1, 5)))
"""Joints of each finger, thumb first, from the metacarpal to the tip."""
WRIST_CREASE = -58.0  # mm, y where the hand ends and the forearm starts
# Forearm outline: distance below the wrist crease, then half the width and half the depth there, mm.
HALF_X = ((0, 60, 250, 400), (27, 28, 41, 43))
HALF_Z = ((0, 60, 250, 400), (19, 21, 36, 40))
SUBDIVISIONS = 2


def fetch_mesh(cache: Path = CACHE) -> Path:
    """Return the path of the hand's .glb, downloaded on first use (94 MB, of which 95 kB are kept).

    Raises:
        NoPackage: npm is missing or cannot fetch the package.
    """
    return npm.fetch_files(PACKAGE, VERSION, {MEMBER: SHA256}, cache)[0]


@dataclass(frozen=True, eq=False)
class Rig:
    """A hand with forearm in its rest pose, before subdivision. J = 26 joints."""

    points: np.ndarray  # (V, 3) float64, mm
    faces: np.ndarray  # (F, 3) int64, counter-clockwise seen from outside
    weights: np.ndarray  # (V, J) float64, skinning weights, rows sum to 1
    joints: np.ndarray  # (J, 4, 4) float64, joint frames as in WebXR: -z along the bone, +y out of the back
    radii: np.ndarray  # (J,) float64, mm, half the thickness of the bone that starts at a joint
    subdivide: sparse.csr_matrix  # (V', V), maps the rig's vertices to those of the subdivided surface
    fine_faces: np.ndarray  # (F', 3) int64, faces of the subdivided surface
    girth: np.ndarray  # (2,) width and depth of the forearm relative to HALF_X and HALF_Z


@dataclass(frozen=True)
class Shape:
    """Proportions of a hand relative to the mesh, as factors."""

    palm: np.ndarray  # (3,) x, y, z, whole hand
    length: np.ndarray  # (5,) per finger
    width: np.ndarray  # (5,) per finger

    @staticmethod
    def average() -> "Shape":
        return Shape(np.ones(3), np.ones(5), np.ones(5))


@dataclass(frozen=True)
class Pose:
    """Joint angles in degrees; all 0 is the rest pose, an open hand.

    Flexion is positive towards the palm, spread is positive towards the little finger.
    """

    fingers: np.ndarray  # (4, 4) index … little: knuckle flexion, spread, middle joint, end joint
    thumb: np.ndarray  # (5,) base joint: across the palm, out of the palm, twist; then the two flexions
    wrist: np.ndarray  # (2,) bend of the forearm towards the palm side and towards the little finger


def rotation(axis: int, degrees: float) -> np.ndarray:
    """Return the 4 × 4 rotation about a coordinate axis (0 x, 1 y, 2 z)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
    return matrix


def _read_glb(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return points, faces, weights and joint frames of a .glb, in this module's axes and joint order."""
    gltf = pygltflib.GLTF2().load(path)
    blob = gltf.binary_blob()

    def read(index: int) -> np.ndarray:
        accessor = gltf.accessors[index]
        view = gltf.bufferViews[accessor.bufferView]
        kind = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}[accessor.componentType]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor.type]
        start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
        return np.frombuffer(blob, kind, accessor.count * width, start).reshape(accessor.count, width)

    primitive, skin = gltf.meshes[0].primitives[0], gltf.skins[0]
    names = {gltf.nodes[node].name: k for k, node in enumerate(skin.joints)}
    order = [names["wrist"]] + [names[f"thumb-{part}"] for part in ("metacarpal", "phalanx-proximal")]
    order += [names["thumb-phalanx-distal"], names["thumb-tip"]]
    for finger in ("index", "middle", "ring", "pinky"):
        order += [
            names[f"{finger}-finger-{bone if bone in ('metacarpal', 'tip') else 'phalanx-' + bone}"] for bone in BONES
        ]

    axes = np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]], float)  # in the file the palm faces x, fingers point along -y
    raw = read(primitive.attributes.POSITION).astype(float)
    _, first, welded = np.unique(raw.round(6), axis=0, return_index=True, return_inverse=True)
    points = raw[first] @ axes.T * 1000
    faces = welded.ravel()[read(primitive.indices).reshape(-1, 3)]
    weights = np.zeros((len(raw), len(order)))
    np.add.at(
        weights,
        (np.arange(len(raw))[:, None], read(primitive.attributes.JOINTS_0)),
        read(primitive.attributes.WEIGHTS_0),
    )
    weights = weights[first][:, order]
    weights /= weights.sum(1, keepdims=True)
    joints = np.linalg.inv(read(skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1).astype(float))[order]
    joints[:, :3] = axes @ joints[:, :3]
    joints[:, :3, 3] *= 1000
    return points, faces, weights, joints


def _boundary(faces: np.ndarray) -> np.ndarray:
    """Return the vertices of a mesh's only open edge loop, in order."""
    edges = {tuple(edge) for edge in np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).tolist()}
    following = {a: b for a, b in edges if (b, a) not in edges}
    loop = [min(following)]
    while (point := following[loop[-1]]) != loop[0]:
        loop.append(point)
    assert len(loop) == len(following)
    return np.array(loop)


def _add_forearm(
    points: np.ndarray, faces: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Replace the flat end of the wrist by a forearm of 400 mm."""
    cut = WRIST_CREASE - 8
    keep = (points[faces][:, :, 1] > cut).all(1)
    used, faces = np.unique(faces[keep], return_inverse=True)
    faces = faces.reshape(-1, 3)
    points, weights = points[used], weights[used]
    loop = _boundary(faces)
    edge = points[loop]
    centre = edge.mean(0)
    angle = np.arctan2(edge[:, 2] - centre[2], edge[:, 0] - centre[0])
    rings = []
    for down in (6, 14, 24, 38, 56, 80, 115, 160, 220, 300, 400):
        # Blend from the mesh's outline into an oval that widens towards the elbow.
        blend = np.exp(-down / 30)
        half_x, half_z = np.interp(down, *HALF_X), np.interp(down, *HALF_Z)
        oval = np.stack([half_x * np.cos(angle), np.zeros(len(loop)), half_z * np.sin(angle)], 1)
        ring = blend * (edge - centre) * (1, 0, 1) + (1 - blend) * oval
        rings.append(centre + ring - (0, down, 0) + (edge - centre) * (0, blend, 0))
    count, n = len(points), len(loop)
    indices = np.concatenate([loop, count + np.arange(n * len(rings))]).reshape(-1, n)
    for upper, lower in zip(indices[:-1], indices[1:], strict=True):
        # The loop runs clockwise seen from outside, so (next, this) is the edge as the new faces traverse it.
        a, b, c, d = upper, np.roll(upper, -1), lower, np.roll(lower, -1)
        faces = np.concatenate([faces, np.stack([b, a, c], 1), np.stack([b, c, d], 1)])
    points = np.concatenate([points, *rings])
    weights = np.concatenate([weights, np.tile(weights[loop].mean(0), (n * len(rings), 1))])
    bend = np.clip((WRIST_CREASE + 12 - points[:, 1]) / 34, 0, 1)
    bend = bend * bend * (3 - 2 * bend)
    weights = np.concatenate([weights * (1 - bend[:, None]), bend[:, None]], 1)
    return points, faces, weights


def _loop_subdivision(faces: np.ndarray, count: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Return the matrix to the finer vertices and their faces, for one step of Loop subdivision (1987).

    Open edges (the far end of the forearm) are not smoothed: they are never in the picture.
    """
    half = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    opposite = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
    edges, edge, sides = np.unique(np.sort(half, 1), axis=0, return_inverse=True, return_counts=True)
    edge = edge.ravel()
    inner = sides == 2
    # New vertices on edges: 3/8 of both ends and 1/8 of both opposite corners; on an open edge, its midpoint.
    rows = [np.repeat(np.arange(len(edges)), 2), edge[inner[edge]]]
    columns = [edges.ravel(), opposite[inner[edge]]]
    values = [np.repeat(np.where(inner, 3 / 8, 1 / 2), 2), np.full(inner[edge].sum(), 1 / 8)]
    on_edges = sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (len(edges), count)
    )
    # Old vertices: moved towards their neighbours with Warren's weights.
    both = np.concatenate([edges, edges[:, ::-1]])
    neighbours = sparse.csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), (count, count))
    valence = np.asarray(neighbours.sum(1)).ravel()
    beta = np.where(valence == 3, 3 / 16, 3 / (8 * np.maximum(valence, 1)))
    beta[np.unique(edges[~inner])] = 0
    on_points = sparse.diags(1 - valence * beta) + sparse.diags(beta) @ neighbours
    a, b, c = (edge + count).reshape(3, -1)
    finer = [[faces[:, 0], a, c], [a, faces[:, 1], b], [c, b, faces[:, 2]], [a, b, c]]
    return sparse.vstack([on_points, on_edges]).tocsr(), np.concatenate([np.stack(f, 1) for f in finer])


def subdivision(faces: np.ndarray, count: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Return the matrix from `count` vertices to those of the subdivided surface, and its faces."""
    matrix, fine = sparse.identity(count, format="csr"), faces
    for _ in range(SUBDIVISIONS):
        step, fine = _loop_subdivision(fine, matrix.shape[0])
        matrix = step @ matrix
    return matrix.tocsr(), fine


def bone_radii(points: np.ndarray, weights: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Return half the thickness (J,), mm, of the bone that starts at each joint in the rest pose; 0 if none does."""
    heads = joints[:, :3, 3]
    radii = np.zeros(len(joints))
    for chain in CHAINS:
        for joint, end in zip(chain[:-1], chain[1:], strict=True):
            skin = points[weights[:, joint] > 0.6]
            along = heads[end] - heads[joint]
            t = np.clip((skin - heads[joint]) @ along / (along @ along), 0, 1)
            if len(skin):
                radii[joint] = np.median(np.linalg.norm(skin - heads[joint] - t[:, None] * along, axis=1))
    return radii


@cache
def load_rig() -> Rig:
    """Load the hand mesh, downloading it on first use."""
    points, faces, weights, joints = _read_glb(fetch_mesh())
    points, faces, weights = _add_forearm(points, faces, weights)
    joints = np.concatenate([joints, joints[:1]])  # the forearm rotates about the wrist
    radii = bone_radii(points, weights, joints)
    return Rig(points, faces, weights, joints, radii, *subdivision(faces, len(points)), girth=np.ones(2))


def scaled_joints(rig: Rig, shape: Shape) -> np.ndarray:
    """Return the joint frames (J, 4, 4) of the rest pose for other proportions."""
    joints = rig.joints.copy()
    joints[:, :3, 3] *= shape.palm
    for finger, chain in enumerate(CHAINS):
        for before, joint in zip(chain[:-1], chain[1:], strict=True):
            if before == chain[0] and finger:
                continue  # the metacarpals of the four fingers are part of the palm
            step = (rig.joints[joint, :3, 3] - rig.joints[before, :3, 3]) * shape.palm
            joints[joint, :3, 3] = joints[before, :3, 3] + step * shape.length[finger]
    return joints


def chain_frames(rest: np.ndarray, chain: tuple[int, ...], rotations: list[np.ndarray]) -> list[np.ndarray]:
    """Return the joint frames of one finger after rotating each joint in its local frame (forward kinematics).

    Args:
        rest: joint frames of the rest pose (J, 4, 4).
        chain: joints of the finger, see CHAINS.
        rotations: 4 × 4 rotations of the chain's first joints; the others do not rotate.
    """
    frames, motion = [], np.eye(4)
    for k, joint in enumerate(chain):
        frame = motion @ rest[joint]
        if k < len(rotations):
            frame = frame @ rotations[k]
        motion = frame @ np.linalg.inv(rest[joint])
        frames.append(frame)
    return frames


def finger_rotations(angles: np.ndarray) -> list[np.ndarray]:
    """Return the joint rotations of a finger, metacarpal first, for a row of `Pose.fingers`."""
    knuckle, spread, middle, end = angles
    return [np.eye(4), rotation(1, spread) @ rotation(0, -knuckle), rotation(0, -middle), rotation(0, -end)]


def thumb_rotations(angles: np.ndarray) -> list[np.ndarray]:
    """Return the joint rotations of the thumb for `Pose.thumb`."""
    across, out, twist, middle, end = angles
    base = rotation(1, -out) @ rotation(0, -across) @ rotation(2, twist)
    return [base, rotation(0, -middle), rotation(0, -end)]


def posed_joints(rest: np.ndarray, pose: Pose) -> np.ndarray:
    """Return the joint frames (J, 4, 4) of a pose."""
    frames = rest.copy()
    for finger, chain in enumerate(CHAINS):
        rotations = finger_rotations(pose.fingers[finger - 1]) if finger else thumb_rotations(pose.thumb)
        frames[list(chain)] = chain_frames(rest, chain, rotations)
    frames[FOREARM] = rest[FOREARM] @ rotation(0, -pose.wrist[0]) @ rotation(1, -pose.wrist[1])
    return frames


def pose_mesh(rig: Rig, shape: Shape, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Return the subdivided surface (V', 3) and joint frames (J, 4, 4) of a posed hand (linear blend skinning)."""
    frames = posed_joints(scaled_joints(rig, shape), pose)
    # The palm's factors scale the rest pose; a finger's scale along and across its bones.
    bind = rig.joints.copy()
    bind[:, :3, 3] *= shape.palm
    scale = np.tile(np.eye(4), (len(frames), 1, 1))
    for finger, chain in enumerate(CHAINS):
        across, along = shape.width[finger], shape.length[finger]
        scale[list(chain[1 if finger else 0 :])] = np.diag([across, across, along, 1])
    transforms = frames @ scale @ np.linalg.inv(bind)
    points = np.concatenate([rig.points * shape.palm, np.ones((len(rig.points), 1))], 1)
    posed = np.einsum("vj,jab,vb->va", rig.weights, transforms, points, optimize=True)[:, :3]
    return rig.subdivide @ posed, frames


def normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit vertex normals (V, 3), faces weighted by area."""
    corners = points[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.stack(
        [sum(np.bincount(faces[:, k], cross[:, axis], len(points)) for k in range(3)) for axis in range(3)], 1
    )
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
