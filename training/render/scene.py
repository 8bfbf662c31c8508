"""The picture: skin, sleeve, light and camera around a posed hand, ray-traced by Mitsuba.

Camera frame, mm: x right, y up, z from the hand to the camera; the hand is near the origin.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import cv2
import drjit as dr
import mitsuba as mi
import numpy as np
from scipy.spatial import cKDTree

from training.render.hand import CHAINS, HALF_X, HALF_Z, WRIST_CREASE, Rig, normals, rotation

SIZE = 192

# The Monk Skin Tone scale, lightest to darkest, sRGB (skintone.google).
MONK = ("f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420")


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB 0 … 1 to linear light (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def gamma(light: np.ndarray) -> np.ndarray:
    """Linear light to sRGB 0 … 1."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


@cache
def start(variant: str) -> None:
    """Chooses Mitsuba's back end for this process, on one thread: hands are rendered side by side instead.

    Raises:
        ImportError: it needs LLVM, and there is none.
    """
    mi.set_variant(variant)
    dr.set_thread_count(1)
    mi.set_log_level(mi.LogLevel.Error)  # else it tells whenever it rounds the rays up to fill a grid


def monk(tone: int) -> np.ndarray:
    """Linear RGB (3,) of a Monk tone 1 … 10."""
    return linear(np.array([int(MONK[tone - 1][k : k + 2], 16) for k in (0, 2, 4)]) / 255)


@dataclass(frozen=True)
class Skin:
    """What a hand's skin looks like."""

    tone: np.ndarray  # (3,) linear RGB of the back of the hand
    red: float  # 0 … 1: how much redder fingertips, knuckles and palm are
    lines: float  # 0 … 1: how deep the lines of the palm and the joints are drawn
    roughness: float
    specular: float
    blotches: np.ndarray  # (K, 4) waves over the resting hand: direction × frequency (rad/mm) and phase


@dataclass(frozen=True)
class Sleeve:
    """A tube of cloth around the forearm; far down the arm, it is out of the picture."""

    start: float  # mm from the wrist crease
    length: float  # mm
    loose: float  # mm between skin and cloth
    folds: np.ndarray  # (K, 4) waves over angle and length: turns, rad/mm, phase, mm
    colour: np.ndarray  # (3,) linear RGB


@dataclass(frozen=True)
class Light:
    """The room: a soft gradient and lamps, all far away."""

    sky: np.ndarray  # (3,) linear RGB from above
    ground: np.ndarray  # (3,) from below
    lamps: np.ndarray  # (K, 7): direction x, y, z towards the lamp, its angular radius in radians, RGB
    exposure: float  # what the mean brightness of the hand is turned to, linear


@dataclass(frozen=True)
class View:
    """Where the camera looks from. Degrees; yaw and pitch are 0 straight onto the palm or the back."""

    back: bool
    yaw: float
    pitch: float
    tilt: float  # counter-clockwise in the picture
    distance: float  # mm


@dataclass(frozen=True)
class Maps:
    """Where on the smooth surface the skin is different, each (V',) 0 … 1, and its resting points."""

    rest: np.ndarray  # (V', 3) mm
    palm: np.ndarray
    lines: np.ndarray
    knuckles: np.ndarray
    tips: np.ndarray
    nails: np.ndarray
    hand: np.ndarray  # bool: not the forearm
    finger: np.ndarray  # int: which finger a point is on from its knuckle on, thumb first; -1 for none
    outer: np.ndarray  # bool: on the two bones of it that are farther out, which show whether it is raised


def _smooth(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@lru_cache(maxsize=2)
def maps(rig: Rig) -> Maps:
    """Draws the skin's maps on the resting hand, by distance to its joints."""
    rest = rig.subdivide @ rig.points
    normal = normals(rest, rig.fine_faces)
    weights = rig.subdivide @ rig.weights
    front = _smooth(-0.3, 0.8, normal[:, 2])
    lines, knuckles = np.zeros(len(rest)), np.zeros(len(rest))
    tips, nails = np.zeros(len(rest)), np.zeros(len(rest))
    palm = front * _smooth(WRIST_CREASE - 40, WRIST_CREASE + 25, rest[:, 1])
    for finger, chain in enumerate(CHAINS):
        own = weights[:, list(chain[0 if finger == 0 else 1 :])].sum(1)
        near = np.flatnonzero(own)
        own, at, facing = own[near], rest[near], normal[near]
        for joint in chain[1:-1]:
            local = (at - rig.joints[joint, :3, 3]) @ rig.joints[joint, :3, :3]
            inside = _smooth(1, -3, local[:, 1]) * own * np.exp(-((local[:, 2] / 1.3) ** 2))
            outside = _smooth(0, 4, local[:, 1]) * _smooth(0.2, 0.6, own)
            knuckles[near] = np.maximum(knuckles[near], outside * np.exp(-((local[:, 2] / 6) ** 2)))
            if joint == chain[1] or joint == chain[2]:
                wrinkle = 0.5 + 0.5 * np.cos(local[:, 2] * 2 * np.pi / 2.6)
                inside = np.maximum(inside, 0.6 * outside * wrinkle * np.exp(-((local[:, 2] / 4.5) ** 2)))
            lines[near] = np.maximum(lines[near], inside)
        end = rig.joints[chain[-1]]
        local = (at - end[:3, 3]) @ end[:3, :3]  # -z is ahead of the tip joint
        tips[near] = np.maximum(tips[near], own * _smooth(18, 4, local[:, 2]))
        radius = rig.radii[chain[-2]]
        oval = (local[:, 0] / (0.72 * radius)) ** 4 + ((local[:, 2] - 1.5) / 6.5) ** 4
        up = ((facing * end[:3, 1]).sum(1) > 0.35) * own
        nails[near] = np.maximum(nails[near], up * _smooth(1.2, 0.75, oval))
    near = np.flatnonzero(front)
    lines[near] = np.maximum(lines[near], front[near] * _palm_lines(rig, rest[near]))
    bone, whose, outer = weights.argmax(1), np.full(len(rest), -1), np.zeros(len(rest), bool)
    for finger, chain in enumerate(CHAINS):
        whose[np.isin(bone, chain[1:])] = finger
        outer |= np.isin(bone, chain[-3:])
    return Maps(rest, palm, lines, knuckles, tips, nails, rest[:, 1] > WRIST_CREASE, whose, outer)


def _palm_lines(rig: Rig, rest: np.ndarray) -> np.ndarray:
    """The three great lines of the palm, as quadratic curves between the joints."""
    head = rig.joints[:, :2, 3]
    index, middle, little, wrist = head[6], head[11], head[21], head[0]
    curves = [
        (little + (6, -8), middle + (2, -22), (index + middle) / 2 + (0, -4)),  # heart
        (index + (-12, -14), middle + (-4, -34), little + (2, -36)),  # head
        (index + (-12, -16), middle + (-2, -40), wrist + (2, 10)),  # life
    ]
    t = np.linspace(0, 1, 60)[:, None]
    depth = np.zeros(len(rest))
    for a, b, c in curves:
        points = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
        near, _ = cKDTree(points).query(rest[:, :2])
        depth = np.maximum(depth, np.exp(-((near / 1.2) ** 2)))
    return depth


def skin_colours(skin: Skin, m: Maps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base colour (V', 3), roughness (V',) and a height (V',) for the bumps, all float."""
    light = skin.tone.mean()
    # Palms and nails carry little melanin: on dark skin they are paler and redder than the back.
    dark = np.exp(-light / 0.12)
    palm = (1 - 0.16 * dark) * skin.tone * (1 + 0.5 * dark) + 0.16 * dark * np.array([0.42, 0.22, 0.15])
    colour = skin.tone + m.palm[:, None] * (palm - skin.tone)
    waves = np.sin(m.rest @ skin.blotches[:, :3].T + skin.blotches[:, 3]).mean(1)
    blush = np.clip(skin.red * (0.55 * m.palm + 0.5 * m.knuckles + 0.6 * m.tips + 0.5 * waves + 0.25), 0, 1)[:, None]
    colour = colour * (1 - blush * np.array([0.02, 0.26, 0.26]))
    colour = colour * (1 + 0.12 * waves[:, None])
    colour = colour * (1 - skin.lines * m.lines[:, None] * np.array([0.35, 0.5, 0.55]))
    nail = 0.65 * colour + 0.35 * np.array([0.62, 0.38, 0.32]) * (0.2 + 0.8 * min(1, light / 0.3))
    colour = colour + m.nails[:, None] * (nail - colour)
    rough = skin.roughness * (1 - 0.45 * m.nails)
    return np.clip(colour, 0.004, 0.9), np.clip(rough, 0.1, 1), waves - skin.lines * m.lines


def _mesh(name: str, points: np.ndarray, faces: np.ndarray, normal: np.ndarray, bsdf: dict, **attributes: np.ndarray):
    """A Mitsuba mesh; an attribute's name says its size, as in `vertex_color`."""
    properties = mi.Properties()
    properties["bsdf"] = mi.load_dict(bsdf)
    mesh = mi.Mesh(name, len(points), len(faces), has_vertex_normals=True, props=properties)
    for key, values in attributes.items():
        mesh.add_attribute(key, values.size // len(points), np.ascontiguousarray(values, np.float32).ravel())
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = np.ascontiguousarray(points, np.float32).ravel()
    parameters["vertex_normals"] = np.ascontiguousarray(normal, np.float32).ravel()
    parameters["faces"] = np.ascontiguousarray(faces, np.uint32).ravel()
    parameters.update()
    return mesh


def _sleeve_mesh(rig: Rig, sleeve: Sleeve, forearm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points and faces of the cloth in the hand's frame; `forearm` is its joint's move (4, 4) since rest."""
    around, along = 48, 40
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)
    down = np.concatenate([[2.5, 0.8, 0, 0.8], np.linspace(2.5, sleeve.length, along - 4)])
    out = np.concatenate([[-2.0, -1.6, 0, 1.2], np.full(along - 4, 1.6)])  # the hem, rounded, and its inside
    d, a = np.meshgrid(down, angle, indexing="ij")
    depth = sleeve.start + d
    half_x = rig.girth[0] * np.interp(depth, *HALF_X) + sleeve.loose + out[:, None]
    half_z = rig.girth[1] * np.interp(depth, *HALF_Z) + sleeve.loose + out[:, None]
    wave = sum(w[3] * np.sin(w[0] * a + w[1] * d + w[2]) for w in sleeve.folds) * np.minimum(1, d / 15 + 0.35)
    wrist = rig.joints[0, :3, 3]
    points = np.stack([(half_x + wave) * np.cos(a), -depth, (half_z + wave) * np.sin(a)], 2).reshape(-1, 3)
    points += (wrist[0], WRIST_CREASE, _wrist_z(rig))
    index = np.arange(along * around).reshape(along, around)
    p, q, r, s = index[:-1], np.roll(index, -1, 1)[:-1], index[1:], np.roll(index, -1, 1)[1:]
    faces = np.concatenate([np.stack([p, q, r], -1).reshape(-1, 3), np.stack([q, s, r], -1).reshape(-1, 3)])
    return points @ forearm[:3, :3].T + forearm[:3, 3], faces


def _wrist_z(rig: Rig) -> float:
    """z of the middle of the wrist: the mesh's wrist joint is nearer to the back."""
    return float(rig.points[np.abs(rig.points[:, 1] - WRIST_CREASE) < 6, 2].mean())


def environment(light: Light, height: int = 64) -> np.ndarray:
    """The room as a picture in all directions, (height, 2·height, 3) float32 linear RGB.

    Mitsuba's `envmap`: rows from up (+y) to down; measured: column 0 looks along -z, a quarter on along +x.
    """
    polar = (np.arange(height) + 0.5) / height * np.pi
    azimuth = (np.arange(2 * height) + 0.5) / (2 * height) * 2 * np.pi
    theta, phi = np.meshgrid(polar, azimuth, indexing="ij")
    direction = np.stack([np.sin(phi) * np.sin(theta), np.cos(theta), -np.cos(phi) * np.sin(theta)], -1)
    up = (0.5 + 0.5 * direction[..., 1:2]) ** 1.3
    room = light.ground * (1 - up) + light.sky * up
    for lamp in light.lamps:
        apart = np.arccos(np.clip(direction @ (lamp[:3] / np.linalg.norm(lamp[:3])), -1, 1))
        room = room + lamp[4:] * _smooth(lamp[3] * 1.3, lamp[3] * 0.7, apart)[..., None] / lamp[3] ** 2
    return room.astype(np.float32)


class Camera(NamedTuple):
    """What a hand is looked at with: the point on its axis at the view's distance (3,), mm, and how much it sees."""

    middle: np.ndarray
    half: float  # tangent of half the angle


@dataclass(frozen=True)
class Picture:
    """A rendered hand."""

    rgba: np.ndarray  # (size, size, 4) uint8, straight alpha
    box: np.ndarray  # (4,) float32: x0, y0, x1, y1 of the hand without forearm, pixels
    sight: np.ndarray  # (5,) float32: see `in_sight`
    camera: Camera


def render(
    rig: Rig,
    points: np.ndarray,
    forearm: np.ndarray,
    *,
    mirrored: bool,
    skin: Skin,
    sleeve: Sleeve,
    light: Light,
    view: View,
    seed: int,
    size: int = SIZE,
    samples: int = 9,
    margin: float = 0.25,
    camera: Camera | None = None,
) -> Picture:
    """Renders a posed left hand, or its mirror image.

    Args:
        points: the smooth surface (V', 3) from `hand.skin`.
        forearm: how the forearm's joint moved since rest (4, 4).
        margin: space around the hand on every side, as a share of the hand's longer side.
        samples: rays per pixel.
        camera: that of another picture, so that the same hand moves before it; by default one that shows all of it,
            in the middle.
    """
    m = maps(rig)
    cloth, cloth_faces = _sleeve_mesh(rig, sleeve, forearm)
    faces = rig.fine_faces
    turn = view_matrix(view)
    if mirrored:
        turn = turn @ np.diag([-1.0, 1, 1])
        faces, cloth_faces = faces[:, ::-1], cloth_faces[:, ::-1]
    points, cloth = points @ turn.T, cloth @ turn.T
    # Move the hand so that the middle of its box is on the camera's axis, then zoom until it fits.
    offset = camera.middle.copy() if camera else np.array([0, 0, points[m.hand, 2].mean()])
    for _ in range(1 if camera else 4):
        seen = points[m.hand] - offset
        flat = seen[:, :2] / (view.distance - seen[:, 2:])
        low, high = flat.min(0), flat.max(0)
        if not camera:
            offset[:2] += (low + high) / 2 * view.distance
    half = camera.half if camera else (high - low).max() / 2 * (1 + 2 * margin)
    box = np.concatenate([low * (1, -1), high * (1, -1)])[[0, 3, 2, 1]] / half * size / 2 + size / 2

    colour, rough, height = skin_colours(skin, m)
    scene = mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 3, "hide_emitters": True},
            "sensor": {
                "type": "perspective",
                "fov": float(np.degrees(2 * np.arctan(half))),
                "to_world": mi.ScalarTransform4f().look_at([0, 0, view.distance], [0, 0, 0], [0, 1, 0]),
                "film": {
                    "type": "hdrfilm",
                    "width": size,
                    "height": size,
                    "pixel_format": "rgba",
                    "rfilter": {"type": "gaussian"},
                },
                "sampler": {"type": "multijitter", "sample_count": samples},
            },
            "hand": _mesh(
                "hand",
                points - offset,
                faces,
                _bumped(points, faces, height),
                {
                    "type": "principled",
                    "base_color": {"type": "mesh_attribute", "name": "vertex_color"},
                    "roughness": {"type": "mesh_attribute", "name": "vertex_roughness"},
                    "specular": skin.specular,
                },
                vertex_color=colour,
                vertex_roughness=rough,
            ),
            "sleeve": _mesh(
                "sleeve",
                cloth - offset,
                cloth_faces,
                normals(cloth, cloth_faces),
                {
                    "type": "twosided",
                    "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": sleeve.colour.tolist()}},
                },
            ),
            "room": {"type": "envmap", "bitmap": mi.Bitmap(environment(light))},
        }
    )
    raw = np.array(mi.render(scene, seed=seed))
    sight = in_sight(points - offset, m, view.distance)
    return Picture(develop(raw, light.exposure), box.astype(np.float32), sight, Camera(offset, half))


def in_sight(points: np.ndarray, m: Maps, distance: float) -> np.ndarray:
    """How much of each finger's outer two bones no other part of the hand hides: (5,) float32, thumb first, 0 … 1.

    A depth buffer of the surface's points: the camera sees those that are the foremost of their cell, and those close
    behind it or on the same finger.

    Args:
        points: the smooth surface (V', 3), mm, before a camera on the z axis.
        distance: of the camera, mm.
    """
    # mm at the hand: a cell's side, about twice as far as points lie apart, and how far behind is the same surface.
    cell, close = 3, 5
    depth = distance - points[:, 2]
    column, row = np.floor(points[:, :2] * (distance / depth / cell)[:, None]).astype(int).T
    cells = column * 2**20 + row
    order = np.lexsort((depth, cells))
    foremost = order[np.searchsorted(cells[order], cells)]
    seen = (m.finger[foremost] == m.finger) | (depth - depth[foremost] < close)
    return np.array([seen[m.outer & (m.finger == finger)].mean() for finger in range(5)], np.float32)


def view_matrix(view: View) -> np.ndarray:
    """3 × 3 rotation from the hand's frame to the camera's."""
    around = rotation(1, view.yaw + (180 if view.back else 0))
    return (rotation(2, view.tilt) @ rotation(0, view.pitch) @ around)[:3, :3]


def _bumped(points: np.ndarray, faces: np.ndarray, height: np.ndarray, depth: float = 0.35) -> np.ndarray:
    """Normals (V', 3) as if the surface were raised by height × depth mm, which it is not: only light tells."""
    normal = normals(points, faces)
    return normals(points + normal * (height * depth)[:, None], faces)


def develop(raw: np.ndarray, exposure: float) -> np.ndarray:
    """Linear RGBA (premultiplied) to uint8 sRGB with straight alpha.

    Partly automatic exposure, as cameras do: a dark hand is lifted, and still is darker than a light one.
    """
    alpha = np.clip(raw[..., 3:], 0, 1)
    colour = raw[..., :3] / np.maximum(alpha, 1e-4)
    mean = (raw[..., :3].mean(2) * (alpha[..., 0] > 0.5)).sum() / max(1, (alpha > 0.5).sum())
    colour = colour * (exposure / 0.25) * (0.25 / max(mean, 1e-6)) ** 0.6
    rgb = gamma(1 - np.exp(-1.15 * colour)) * (alpha > 1 / 255)  # highlights roll off, as on film
    rgba = np.round(np.concatenate([rgb, alpha], 2) * 255).astype(np.uint8)
    # As near to the noiseless picture as three times the rays, for less than a millisecond. And without the
    # grain, that no rendered hand can be told from its background by it.
    smooth = cv2.bilateralFilter(np.ascontiguousarray(rgba[..., :3]), 5, 35, 1.5)
    rgba[..., :3] = np.where(rgba[..., 3:] > 0, smooth, 0)
    return rgba
