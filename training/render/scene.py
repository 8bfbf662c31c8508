"""Ray-trace a posed hand with Mitsuba: skin, sleeve, light and camera.

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

SIZE = 192  # pixels

# Monk Skin Tone scale, lightest to darkest, sRGB (skintone.google).
MONK_TONES = ("f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420")


def srgb_to_linear(srgb: np.ndarray) -> np.ndarray:
    """Convert sRGB 0 … 1 to linear light (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """Convert linear light to sRGB 0 … 1."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


@cache
def init_mitsuba(variant: str) -> None:
    """Select Mitsuba's back end for this process, with one thread: hands are rendered in parallel processes.

    Raises:
        ImportError: the back end needs LLVM, and none is found.
    """
    mi.set_variant(variant)
    dr.set_thread_count(1)
    mi.set_log_level(mi.LogLevel.Error)  # it warns whenever it rounds the sample count up to fill a grid


def monk_tone(tone: int) -> np.ndarray:
    """Return the linear RGB (3,) of a Monk tone, 1 … 10."""
    return srgb_to_linear(np.array([int(MONK_TONES[tone - 1][k : k + 2], 16) for k in (0, 2, 4)]) / 255)


@dataclass(frozen=True)
class Skin:
    """Appearance of the skin."""

    tone: np.ndarray  # (3,) linear RGB of the back of the hand
    red: float  # 0 … 1, additional redness of fingertips, knuckles and palm
    lines: float  # 0 … 1, depth of the lines of palm and joints
    roughness: float
    specular: float
    blotches: np.ndarray  # (K, 4), waves over the rest pose: direction × frequency (rad/mm), and phase


@dataclass(frozen=True)
class Sleeve:
    """A tube of cloth around the forearm, outside the picture where it starts far down the arm."""

    start: float  # mm from the wrist crease
    length: float  # mm
    loose: float  # mm, gap between skin and cloth
    folds: np.ndarray  # (K, 4), waves over angle and length: turns, rad/mm, phase, amplitude in mm
    colour: np.ndarray  # (3,) linear RGB


@dataclass(frozen=True)
class Light:
    """The room: a vertical gradient and distant lamps."""

    sky: np.ndarray  # (3,) linear RGB from above
    ground: np.ndarray  # (3,) linear RGB from below
    lamps: np.ndarray  # (K, 7), direction x, y, z to the lamp, angular radius in radians, linear RGB
    exposure: float  # target of the hand's mean brightness, linear


@dataclass(frozen=True)
class View:
    """Camera direction in degrees; yaw and pitch are 0 in a frontal view of the palm or the back."""

    back: bool
    yaw: float
    pitch: float
    tilt: float  # counter-clockwise in the picture
    distance: float  # mm


@dataclass(frozen=True)
class SkinMaps:
    """Per-vertex masks of the subdivided surface, (V',) 0 … 1 unless noted, and its vertices in the rest pose."""

    rest: np.ndarray  # (V', 3) mm
    palm: np.ndarray
    lines: np.ndarray
    knuckles: np.ndarray
    tips: np.ndarray
    nails: np.ndarray
    hand: np.ndarray  # bool, not the forearm
    finger: np.ndarray  # int, finger of the vertex beyond the knuckle, thumb first; -1 for none
    outer: np.ndarray  # bool, on the finger's two outer bones, which show whether it is raised


def _smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@lru_cache(maxsize=2)
def skin_maps(rig: Rig) -> SkinMaps:
    """Compute the masks of the skin from distances to the joints in the rest pose."""
    rest = rig.subdivide @ rig.points
    normal = normals(rest, rig.fine_faces)
    weights = rig.subdivide @ rig.weights
    front = _smoothstep(-0.3, 0.8, normal[:, 2])
    lines, knuckles = np.zeros(len(rest)), np.zeros(len(rest))
    tips, nails = np.zeros(len(rest)), np.zeros(len(rest))
    palm = front * _smoothstep(WRIST_CREASE - 40, WRIST_CREASE + 25, rest[:, 1])
    for finger, chain in enumerate(CHAINS):
        own = weights[:, list(chain[0 if finger == 0 else 1 :])].sum(1)
        near = np.flatnonzero(own)
        own, at, facing = own[near], rest[near], normal[near]
        for joint in chain[1:-1]:
            local = (at - rig.joints[joint, :3, 3]) @ rig.joints[joint, :3, :3]
            inside = _smoothstep(1, -3, local[:, 1]) * own * np.exp(-((local[:, 2] / 1.3) ** 2))
            outside = _smoothstep(0, 4, local[:, 1]) * _smoothstep(0.2, 0.6, own)
            knuckles[near] = np.maximum(knuckles[near], outside * np.exp(-((local[:, 2] / 6) ** 2)))
            if joint == chain[1] or joint == chain[2]:
                wrinkle = 0.5 + 0.5 * np.cos(local[:, 2] * 2 * np.pi / 2.6)
                inside = np.maximum(inside, 0.6 * outside * wrinkle * np.exp(-((local[:, 2] / 4.5) ** 2)))
            lines[near] = np.maximum(lines[near], inside)
        end = rig.joints[chain[-1]]
        local = (at - end[:3, 3]) @ end[:3, :3]  # -z is beyond the tip joint
        tips[near] = np.maximum(tips[near], own * _smoothstep(18, 4, local[:, 2]))
        radius = rig.radii[chain[-2]]
        oval = (local[:, 0] / (0.72 * radius)) ** 4 + ((local[:, 2] - 1.5) / 6.5) ** 4
        up = ((facing * end[:3, 1]).sum(1) > 0.35) * own
        nails[near] = np.maximum(nails[near], up * _smoothstep(1.2, 0.75, oval))
    near = np.flatnonzero(front)
    lines[near] = np.maximum(lines[near], front[near] * _palm_lines(rig, rest[near]))
    bone, finger_of, outer = weights.argmax(1), np.full(len(rest), -1), np.zeros(len(rest), bool)
    for finger, chain in enumerate(CHAINS):
        finger_of[np.isin(bone, chain[1:])] = finger
        outer |= np.isin(bone, chain[-3:])
    return SkinMaps(rest, palm, lines, knuckles, tips, nails, rest[:, 1] > WRIST_CREASE, finger_of, outer)


def _palm_lines(rig: Rig, rest: np.ndarray) -> np.ndarray:
    """Return the depth (V',) of the three major palm lines, quadratic Bézier curves between the joints."""
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


def skin_colours(skin: Skin, m: SkinMaps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return linear base colour (V', 3), roughness (V',) and bump height (V',), all float."""
    light = skin.tone.mean()
    # Palms and nails have little melanin: on dark skin they are lighter and redder than the back.
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
    """Build a Mitsuba mesh; attribute names start with vertex_ or face_, as Mitsuba requires."""
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
    """Return points and faces of the cloth; `forearm` is the transform (4, 4) of the forearm from its rest pose."""
    around, along = 48, 40
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)
    down = np.concatenate([[2.5, 0.8, 0, 0.8], np.linspace(2.5, sleeve.length, along - 4)])
    out = np.concatenate([[-2.0, -1.6, 0, 1.2], np.full(along - 4, 1.6)])  # the rounded hem and its inside
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
    """Return z of the wrist's centre: the wrist joint itself is closer to the back."""
    return float(rig.points[np.abs(rig.points[:, 1] - WRIST_CREASE) < 6, 2].mean())


def environment_map(light: Light) -> np.ndarray:
    """Return the room as an equirectangular map (64, 128, 3), float32 linear RGB.

    Layout of Mitsuba's `envmap`: rows from up (+y) to down; column 0 is -z, a quarter of the width on is +x (measured).
    """
    height = 64
    polar = (np.arange(height) + 0.5) / height * np.pi
    azimuth = (np.arange(2 * height) + 0.5) / (2 * height) * 2 * np.pi
    theta, phi = np.meshgrid(polar, azimuth, indexing="ij")
    direction = np.stack([np.sin(phi) * np.sin(theta), np.cos(theta), -np.cos(phi) * np.sin(theta)], -1)
    up = (0.5 + 0.5 * direction[..., 1:2]) ** 1.3
    room = light.ground * (1 - up) + light.sky * up
    for lamp in light.lamps:
        angle = np.arccos(np.clip(direction @ (lamp[:3] / np.linalg.norm(lamp[:3])), -1, 1))
        room = room + lamp[4:] * _smoothstep(lamp[3] * 1.3, lamp[3] * 0.7, angle)[..., None] / lamp[3] ** 2
    return room.astype(np.float32)


class Framing(NamedTuple):
    """What part of the scene is in the picture."""

    centre: np.ndarray  # (3,) mm, point of the scene on the camera's axis
    half_width: float  # tangent of half the field of view


class Rendering(NamedTuple):
    """A rendered hand and its labels."""

    rgba: np.ndarray  # (size, size, 4) uint8, straight alpha
    box: np.ndarray  # (4,) float32, x0, y0, x1, y1 of the hand without forearm, pixels
    visible_fraction: np.ndarray  # (5,) float32, see `finger_visibility`
    framing: Framing


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
    framing: Framing | None = None,
) -> Rendering:
    """Render a posed left hand or its mirror image.

    Args:
        rig: the hand in its rest pose.
        points: its posed surface (V', 3) from `pose_mesh`.
        forearm: transform (4, 4) of the forearm from its rest pose.
        mirrored: render a right hand.
        skin: appearance of the skin.
        sleeve: the sleeve on the forearm.
        light: the room.
        view: camera direction and distance.
        seed: of the ray tracer's noise.
        size: width and height of the picture, pixels.
        samples: rays per pixel.
        margin: space around the hand on every side, as a fraction of the hand's longer side.
        framing: that of another rendering, for a moving hand in front of a fixed camera; by default the whole hand,
            centred.
    """
    maps = skin_maps(rig)
    cloth, cloth_faces = _sleeve_mesh(rig, sleeve, forearm)
    faces = rig.fine_faces
    turn = view_matrix(view)
    if mirrored:
        turn = turn @ np.diag([-1.0, 1, 1])
        faces, cloth_faces = faces[:, ::-1], cloth_faces[:, ::-1]
    points, cloth = points @ turn.T, cloth @ turn.T
    framing, box = _frame_hand(points[maps.hand], view.distance, margin, framing)
    points, cloth = points - framing.centre, cloth - framing.centre

    colour, rough, height = skin_colours(skin, maps)
    skin_bsdf = {
        "type": "principled",
        "base_color": {"type": "mesh_attribute", "name": "vertex_color"},
        "roughness": {"type": "mesh_attribute", "name": "vertex_roughness"},
        "specular": skin.specular,
    }
    cloth_bsdf = {"type": "diffuse", "reflectance": {"type": "rgb", "value": sleeve.colour.tolist()}}
    scene = mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 3, "hide_emitters": True},
            "sensor": _sensor(framing, view, size, samples),
            "hand": _mesh(
                "hand",
                points,
                faces,
                _bump_normals(points, faces, height),
                skin_bsdf,
                vertex_color=colour,
                vertex_roughness=rough,
            ),
            "sleeve": _mesh(
                "sleeve", cloth, cloth_faces, normals(cloth, cloth_faces), {"type": "twosided", "bsdf": cloth_bsdf}
            ),
            "room": {"type": "envmap", "bitmap": mi.Bitmap(environment_map(light))},
        }
    )
    raw = np.array(mi.render(scene, seed=seed))
    box = (box * size / 2 + size / 2).astype(np.float32)
    return Rendering(develop(raw, light.exposure), box, finger_visibility(points, maps, view.distance), framing)


def _sensor(framing: Framing, view: View, size: int, samples: int) -> dict:
    """Return the Mitsuba description of the camera."""
    return {
        "type": "perspective",
        "fov": float(np.degrees(2 * np.arctan(framing.half_width))),
        "to_world": mi.ScalarTransform4f().look_at([0, 0, view.distance], [0, 0, 0], [0, 1, 0]),
        "film": {
            "type": "hdrfilm",
            "width": size,
            "height": size,
            "pixel_format": "rgba",
            "rfilter": {"type": "gaussian"},
        },
        "sampler": {"type": "multijitter", "sample_count": samples},
    }


def _frame_hand(
    hand: np.ndarray, distance: float, margin: float, framing: Framing | None
) -> tuple[Framing, np.ndarray]:
    """Return the framing that centres a hand (V, 3), unless one is given, and the hand's box (4,) in it, -1 … 1."""
    offset = framing.centre if framing else np.array([0, 0, hand[:, 2].mean()])
    for _ in range(1 if framing else 4):  # perspective: centring shifts the box, so iterate
        relative = hand - offset
        flat = relative[:, :2] / (distance - relative[:, 2:])
        low, high = flat.min(0), flat.max(0)
        if not framing:
            offset[:2] += (low + high) / 2 * distance
    half = framing.half_width if framing else (high - low).max() / 2 * (1 + 2 * margin)
    box = np.concatenate([low * (1, -1), high * (1, -1)])[[0, 3, 2, 1]] / half
    return Framing(offset, half), box


def finger_visibility(points: np.ndarray, maps: SkinMaps, distance: float) -> np.ndarray:
    """Return the fraction of each finger's two outer bones that no other part of the hand occludes.

    A point-based depth buffer: a vertex is visible if it is the foremost of its cell, close behind the foremost, or on
    the same finger.

    Args:
        points: the posed surface (V', 3) in the camera frame, mm.
        maps: masks of the surface.
        distance: of the camera, mm.

    Returns:
        (5,) float32, thumb first.
    """
    # mm at the hand: cell size, about twice the spacing of the vertices; depth range of one surface.
    cell, tolerance = 3, 5
    depth = distance - points[:, 2]
    column, row = np.floor(points[:, :2] * (distance / depth / cell)[:, None]).astype(int).T
    cells = column * 2**20 + row
    order = np.lexsort((depth, cells))
    foremost = order[np.searchsorted(cells[order], cells)]
    visible = (maps.finger[foremost] == maps.finger) | (depth - depth[foremost] < tolerance)
    return np.array([visible[maps.outer & (maps.finger == finger)].mean() for finger in range(5)], np.float32)


def view_matrix(view: View) -> np.ndarray:
    """Return the 3 × 3 rotation from the hand's frame to the camera's."""
    around = rotation(1, view.yaw + (180 if view.back else 0))
    return (rotation(2, view.tilt) @ rotation(0, view.pitch) @ around)[:3, :3]


def _bump_normals(points: np.ndarray, faces: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return bump-mapped normals (V', 3), those of a surface raised by height × 0.35 mm."""
    normal = normals(points, faces)
    return normals(points + normal * (height * 0.35)[:, None], faces)


def develop(raw: np.ndarray, exposure: float) -> np.ndarray:
    """Convert linear, premultiplied RGBA to uint8 sRGB with straight alpha.

    Auto exposure is partial: dark skin is brightened, but stays darker than light skin.
    """
    alpha = np.clip(raw[..., 3:], 0, 1)
    colour = raw[..., :3] / np.maximum(alpha, 1e-4)
    mean = (raw[..., :3].mean(2) * (alpha[..., 0] > 0.5)).sum() / max(1, (alpha > 0.5).sum())
    colour = colour * (exposure / 0.25) * (0.25 / max(mean, 1e-6)) ** 0.6
    rgb = linear_to_srgb(1 - np.exp(-1.15 * colour)) * (alpha > 1 / 255)  # highlights roll off
    rgba = np.round(np.concatenate([rgb, alpha], 2) * 255).astype(np.uint8)
    # As close to the noise-free picture as three times the rays, in under a millisecond. It also removes the grain by
    # which a network could distinguish a rendered hand from its background.
    smooth = cv2.bilateralFilter(np.ascontiguousarray(rgba[..., :3]), 5, 35, 1.5)
    rgba[..., :3] = np.where(rgba[..., 3:] > 0, smooth, 0)
    return rgba
