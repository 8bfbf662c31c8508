"""Sample the parameters of a hand from a seed: gesture, pose, shape, skin, sleeve, light and view.

Every finger is clearly raised or clearly lowered: a half-bent finger would have no unambiguous label. A raised thumb
is abducted from the hand; a lowered one rests on the bent fingers, along the side of the fist or, with no finger bent,
across the palm. Contact angles are solved for, so the thumb neither floats nor penetrates, whatever the hand's shape.

Those hands have their fingers apart and upright. `vary` brings raised fingers together until they touch, bends them,
lays a raised thumb along the palm and turns hands further: what people do who were not told how to hold a hand.
`hold_sign` gives the gestures that people make on their own, thumbs up and down, "call me", "stop", as they are held.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from handful.labels import COUNTS
from training.render.hand import (
    CHAINS,
    Pose,
    Rig,
    Shape,
    chain_frames,
    finger_rotations,
    scaled_joints,
    thumb_rotations,
)
from training.render.kind import GENERIC, Kind
from training.render.scene import Light, Skin, Sleeve, View, monk_tone, srgb_to_linear

THUMB, INDEX, MIDDLE, RING, LITTLE = range(5)
Raised = tuple[bool, bool, bool, bool, bool]  # thumb, index, middle, ring, little


def raised(*fingers: int) -> Raised:
    """Return the given raised fingers as five booleans, thumb first."""
    return tuple(finger in fingers for finger in range(5))  # type: ignore[return-value]


# How people show each count, the most common gesture first, with probabilities.
COMMON_GESTURES: tuple[dict[Raised, float], ...] = (
    {raised(): 1.0},
    {raised(INDEX): 0.7, raised(THUMB): 0.2, raised(LITTLE): 0.1},
    {raised(INDEX, MIDDLE): 0.65, raised(THUMB, INDEX): 0.35},
    {
        raised(INDEX, MIDDLE, RING): 0.45,
        raised(THUMB, INDEX, MIDDLE): 0.35,
        raised(MIDDLE, RING, LITTLE): 0.2,
    },
    {raised(INDEX, MIDDLE, RING, LITTLE): 1.0},
    {raised(THUMB, INDEX, MIDDLE, RING, LITTLE): 1.0},
)
# Signs that people make, with probabilities: how a hand is held depends on what it says.
SIGNS: dict[Raised, float] = {
    raised(THUMB): 0.26,  # up or down
    raised(THUMB, LITTLE): 0.2,  # "call me"
    raised(THUMB, INDEX, MIDDLE, RING, LITTLE): 0.3,  # "stop": fingers and thumb together
    raised(INDEX, MIDDLE): 0.1,  # both together
    raised(INDEX, LITTLE): 0.08,  # "rock"
    raised(INDEX): 0.06,
}
COMMON_SHARE = 0.5  # of the hands of a count; the others are uniform over all combinations of fingers


@dataclass(frozen=True)
class HandParams:
    """All parameters of a rendered hand except the ray tracer's noise."""

    raised: Raised
    right: bool  # right hand
    tone: int  # Monk Skin Tone 1 … 10
    shape: Shape
    pose: Pose
    skin: Skin
    sleeve: Sleeve
    light: Light
    view: View

    @property
    def count(self) -> int:
        return sum(self.raised)


def sample_gesture(rng: np.random.Generator, count: int) -> Raised:
    """Sample which fingers are raised, given how many."""
    if rng.random() < COMMON_SHARE:
        common = COMMON_GESTURES[count]
        return list(common)[rng.choice(len(common), p=list(common.values()))]
    gestures = list(combinations(range(5), count))
    return raised(*gestures[rng.integers(len(gestures))])


def sample_shape(rng: np.random.Generator) -> Shape:
    """Sample proportions, which vary by about 10%; the mesh's fingers are rather slender, hence the bias to width."""
    palm = np.exp(rng.normal(0, (0.05, 0.03, 0.05))) * (1.03, 1, 1.04)
    length = np.exp(rng.normal(0, 0.05) + rng.normal(0, 0.025, 5))
    width = np.exp(np.clip(rng.normal(0.1, 0.08), -0.08, 0.26) + rng.normal(0, 0.02, 5))
    return Shape(palm, np.clip(length, 0.86, 1.15), width)


def sample_fingers(rng: np.random.Generator, up: Raised) -> np.ndarray:
    """Sample the joint angles of the four fingers, the rows of `Pose.fingers`, in degrees."""
    angles = np.zeros((4, 4))
    # Closed or spread: the rest pose already spreads the fingers by about 17°.
    spread = np.array([-1.0, -0.15, 0.45, 1.0]) * rng.uniform(-6, 9)
    # Few people fully extend a raised finger or fully flex a lowered one.
    bent = 24 * rng.random() ** 1.5
    tight = rng.uniform(0, 1)
    for k in range(4):
        if up[k + 1]:
            angles[k] = (
                rng.normal(bent * 0.5, 3.5),
                spread[k] + rng.normal(0, 1.5),
                abs(rng.normal(bent, 4)),
                abs(rng.normal(bent * 0.3, 2)),
            )
            # Shared tendons: ring and little finger cannot fully extend next to a bent finger.
            if k >= 2 and not (up[k] and (k == 3 or up[k + 2])):
                angles[k, 0] += rng.uniform(0, 8)
        else:
            low = np.array([40, 86, 30]) + tight * np.array([36, 16, 32]) + rng.normal(0, 4, 3)
            angles[k] = low[0], 0.3 * spread[k] + rng.normal(0, 1), low[1], low[2]
    if up == raised(INDEX, MIDDLE) and rng.random() < 0.7:  # a V
        angles[0, 1] -= rng.uniform(4, 9)
        angles[1, 1] += rng.uniform(3, 8)
    return angles


def segment_distances(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, steps: int = 7) -> np.ndarray:
    """Return the distance (n, m) between segments a-b (n, 3) and c-d (m, 3), accurate to about 1 mm."""
    t = np.linspace(0, 1, steps)
    points = (a[:, None] + t[:, None] * (b - a)[:, None])[:, None]  # (n, 1, steps, 3)
    along = (d - c)[None, :, None]
    from_c = points - c[None, :, None]
    s = np.clip((from_c * along).sum(-1, keepdims=True) / (along * along).sum(-1, keepdims=True), 0, 1)
    return np.linalg.norm(from_c - s * along, axis=-1).min(-1)


# Initial angles and bounds of the solver for a lowered thumb, in the order of `Pose.thumb`.
THUMB_START = {
    "over": (18, 22, 15, 35, 45),
    "side": (-2, 8, 0, 10, 20),
    "palm": (25, 25, 15, 35, 40),
    "ring": (5, 35, 20, 15, 20),
}
THUMB_LOW = np.array([-15, -15, -20, -5, -5.0])
THUMB_HIGH = np.array([55, 55, 50, 70, 85.0])


def solve_thumb(rig: Rig, shape: Shape, fingers: np.ndarray, style: str, onto: int, jitter: np.ndarray) -> np.ndarray:
    """Return the angles of a lowered thumb whose pad touches the hand: `Pose.thumb`, degrees.

    Levenberg-Marquardt on four terms: reach the contact point, face it, stay near a natural pose, do not penetrate.

    Args:
        rig: the hand in its rest pose.
        shape: its proportions.
        fingers: rows of `Pose.fingers`.
        style: `over` a bent finger's middle bone, along the `side` of the bent index finger, across the `palm`, or in a
            `ring` with the index fingertip.
        onto: the finger (1 index … 4 little) that `over` and `palm` refer to.
        jitter: (3,) offset of the contact point, mm.
    """
    rest = scaled_joints(rig, shape)
    frames = rest.copy()
    for k in range(4):
        frames[list(CHAINS[k + 1])] = chain_frames(rest, CHAINS[k + 1], finger_rotations(fingers[k]))
    head = frames[:, :3, 3]
    radius = rig.radii.copy()
    for finger, chain in enumerate(CHAINS):
        radius[list(chain)] *= shape.width[finger]
    contact, normal = thumb_contact(frames, radius, style, onto)
    contact = contact + jitter

    finger_bones = [(a, b) for chain in CHAINS[1:] for a, b in zip(chain[:-1], chain[1:], strict=True)]
    starts, ends = (np.array([head[pair[side]] for pair in finger_bones]) for side in (0, 1))
    clearance = np.array([radius[a] for a, _ in finger_bones])
    start = np.array(THUMB_START[style], float)

    def residual(angles: np.ndarray) -> np.ndarray:
        bones = chain_frames(rest, CHAINS[0], thumb_rotations(angles))
        points = np.array([bone[:3, 3] for bone in bones])
        pad = 0.35 * points[2] + 0.65 * points[3]
        facing = bones[2][:3, 1] @ normal  # the nail faces away from what the pad touches
        distances = segment_distances(points[1:3], points[2:4], starts, ends)
        gap = distances - clearance - radius[list(CHAINS[0][1:3])][:, None]
        return np.concatenate(
            [(pad - contact) / 2, [1.5 * (1 - facing)], (angles - start) / 25, np.minimum(gap + 0.5, 0).ravel() / 1.0]
        )

    angles, value, damping = start, residual(start), 0.01
    for _ in range(25):
        jacobian = np.stack([(residual(angles + step) - value) / 0.5 for step in 0.5 * np.eye(5)], 1)
        step = np.linalg.solve(jacobian.T @ jacobian + damping * np.eye(5), -jacobian.T @ value)
        candidate = np.clip(angles + np.clip(step, -15, 15), THUMB_LOW, THUMB_HIGH)
        candidate_value = residual(candidate)
        gain = value @ value - candidate_value @ candidate_value
        if gain > 0:
            angles, value, damping = candidate, candidate_value, damping / 4
            if gain < 1e-3:
                break
        else:
            damping *= 8
    return angles


def thumb_contact(frames: np.ndarray, radius: np.ndarray, style: str, onto: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the target (3,), mm, of a lowered thumb's pad and the surface normal there, see `solve_thumb`."""
    head, thumb = frames[:, :3, 3], radius[CHAINS[THUMB][2]]
    _, base, middle, end, tip = CHAINS[INDEX if style in ("side", "ring") else onto]
    if style == "over":
        normal = frames[middle, :3, 1]
        return (0.55 * head[middle] + 0.45 * head[end]) + normal * (radius[middle] + thumb), normal
    if style == "side":
        normal = np.array([-0.72, -0.1, 0.68])
        return 0.55 * head[middle] + 0.45 * head[end] + normal * (radius[middle] + thumb), normal
    if style == "palm":
        normal = np.array([0.0, 0, 1])
        return head[base] + (0, -14, 0) + normal * (radius[base] + thumb + 1), normal
    normal = -frames[tip, :3, 1]
    return head[tip] + normal * (radius[end] + thumb), normal


def sample_pose(rng: np.random.Generator, rig: Rig, shape: Shape, up: Raised) -> Pose:
    """Sample joint angles for the raised fingers `up`."""
    fingers = sample_fingers(rng, up)
    wrist = np.clip(rng.normal(0, (12, 7)), (-28, -16), (28, 16))
    if up[THUMB]:
        across = rng.uniform(-26, -8)
        thumb = np.array([across, rng.uniform(-10, 12), rng.normal(0, 4), rng.uniform(-8, 8), rng.uniform(-14, 8)])
        return Pose(fingers, thumb, wrist)
    down = [finger for finger in (INDEX, MIDDLE, RING, LITTLE) if not up[finger]]
    jitter = rng.normal(0, 1.5, 3)
    onto = RING
    if up == raised(MIDDLE, RING, LITTLE) and rng.random() < 0.5:
        style = "ring"
        fingers[0] = rng.normal(48, 3), rng.normal(4, 1), rng.normal(62, 3), rng.normal(38, 4)
    elif down and INDEX in down and MIDDLE in down and rng.random() < 0.25:
        style = "side"
    elif down:
        style = "over"
        # The thumb reaches the little finger only across the palm: use one of the two nearest bent fingers.
        near = down[:2]
        onto = near[rng.integers(len(near))] if len(near) > 1 else near[0]
    else:
        style, onto = "palm", int(rng.choice((MIDDLE, RING, LITTLE), p=(0.3, 0.5, 0.2)))
    return Pose(fingers, solve_thumb(rig, shape, fingers, style, onto, jitter), wrist)


def sample_skin(rng: np.random.Generator, tone: int) -> Skin:
    """Sample skin around the colour of a Monk tone."""
    # The scale's swatches are screen colours: skin in full light reflects less than the lightest of them. Blood shows
    # through light skin, and the darkest swatches are greyer than real skin.
    tints = np.array([[1.06, 0.80, 0.70], [1.0, 0.96, 0.92], [1.9, 1.4, 1.1]])
    tint = [np.interp(tone, (4, 7, 9), channel) for channel in tints.T]
    colour = monk_tone(tone) * 0.72 * tint * np.exp(rng.normal(0, 0.06) + rng.normal(0, (0.025, 0.02, 0.04)))
    waves = np.concatenate([rng.normal(0, 0.12, (8, 3)), rng.uniform(0, 2 * np.pi, (8, 1))], 1)
    return Skin(
        colour, rng.uniform(0.35, 1), rng.uniform(0.25, 0.8), rng.uniform(0.38, 0.62), rng.uniform(0.2, 0.5), waves
    )


def sample_sleeve(rng: np.random.Generator) -> Sleeve:
    """Sample a sleeve, a wristband or a bare arm."""
    kind = rng.choice(3, p=(0.55, 0.08, 0.37))
    start = (rng.uniform(8, 70), rng.uniform(12, 35), 900.0)[kind]
    length = (300.0, rng.uniform(12, 26), 20.0)[kind]
    loose = (rng.uniform(3, 12), 0.5, 3.0)[kind]
    folds = np.stack(
        [rng.integers(0, 6, 7), rng.normal(0, 0.09, 7), rng.uniform(0, 6.28, 7), rng.uniform(0, 0.11, 7) * loose], 1
    )
    grey = rng.uniform(0.03, 0.9)
    colour = srgb_to_linear(np.clip(grey + rng.normal(0, 1, 3) * rng.choice((0.02, 0.25)), 0.02, 0.95))
    return Sleeve(start, length, loose, folds, colour)


def kelvin(temperature: float) -> np.ndarray:
    """Return the approximate linear RGB, mean 1, of a lamp seen with a white balance of 5500 K."""
    warm = np.log(5500 / temperature)
    colour = np.exp(np.array([0.55, 0.0, -0.85]) * warm)
    return colour / colour.mean()


def sample_light(rng: np.random.Generator) -> Light:
    """Sample a room with one to three lamps; one in eight has a strong back light."""
    strength = np.exp(rng.normal(-0.6, 0.5))
    sky = kelvin(rng.uniform(4000, 6800)) * strength
    ground = kelvin(rng.uniform(3500, 6500)) * strength * rng.uniform(0.25, 0.9)
    lamps = []
    behind = rng.random() < 0.125
    for k in range(rng.integers(1, 4)):
        direction = rng.normal(0, 1, 3)
        direction[1] = abs(direction[1]) * (1 if rng.random() < 0.85 else -0.4)
        direction[2] = -abs(direction[2]) - 0.5 if behind and k == 0 else abs(direction[2]) + 0.2
        power = rng.uniform(0.35, 1.8) * (2 if behind and k == 0 else 1) / (1 + 0.7 * k)
        lamps.append(np.concatenate([direction, [rng.uniform(0.09, 0.55)], kelvin(rng.uniform(2900, 7500)) * power]))
    exposure = float(np.exp(np.clip(rng.normal(np.log(0.36), 0.35), np.log(0.12), np.log(0.65))))
    return Light(sky, ground, np.array(lamps), exposure)


def sample_view(rng: np.random.Generator) -> View:
    """Sample palm or back, at most 50° off the frontal view and at most 45° off upright."""
    away, around = 50 * rng.random() ** 0.7, rng.uniform(0, 2 * np.pi)
    tilt = float(np.clip(rng.normal(0, 20), -45, 45))
    distance = float(np.exp(rng.uniform(np.log(380), np.log(1100))))
    return View(rng.random() < 0.5, away * np.cos(around), away * np.sin(around), tilt, distance)


def sample_appearance(rng: np.random.Generator, rig: Rig, up: Raised, right: bool, tone: int) -> HandParams:
    """Sample all other parameters, given the gesture, the side and the Monk tone."""
    shape = sample_shape(rng)
    pose = sample_pose(rng, rig, shape, up)
    return HandParams(
        up, right, tone, shape, pose, sample_skin(rng, tone), sample_sleeve(rng), sample_light(rng), sample_view(rng)
    )


def finger_gap(rest: np.ndarray, radii: np.ndarray, fingers: np.ndarray, a: int, b: int) -> float:
    """Return the gap between two of the four fingers, mm; less than 0 where they overlap.

    Args:
        rest: joint frames of the rest pose (J, 4, 4).
        radii: (J,) half the thickness of the bones.
        fingers: rows of `Pose.fingers`.
        a: one finger, 0 index … 3 little.
        b: the other one.
    """
    ends, thickness = [], []
    for k in (a, b):
        chain = CHAINS[k + 1]
        frames = np.array(chain_frames(rest, chain, finger_rotations(fingers[k])))
        ends.append((frames[1:-1, :3, 3], frames[2:, :3, 3]))
        thickness.append(radii[list(chain[1:-1])])
    distances = segment_distances(*ends[0], *ends[1]) - thickness[0][:, None] - thickness[1]
    return float(distances[1:, 1:].min())  # the lowest bones meet in the palm


def close_fingers(rng: np.random.Generator, rig: Rig, shape: Shape, fingers: np.ndarray, up: Raised) -> np.ndarray:
    """Return angles of the four fingers with some or all neighbours among the raised ones brought together.

    Bisection on the spread: from the middle finger outwards, each finger moves until it almost touches its neighbour.
    """
    rest, radii, fingers = scaled_joints(rig, shape), rig.radii.copy(), fingers.copy()
    for finger, chain in enumerate(CHAINS):
        radii[list(chain)] *= shape.width[finger]
    fingers[1, 1] = rng.normal(0, 2.5)
    share = 1.0 if rng.random() < 0.75 else 0.5  # of the pairs
    for k, neighbour, inwards in ((0, 1, 1), (2, 1, -1), (3, 2, -1)):
        if not (up[k + 1] and up[neighbour + 1]) or rng.random() > share:
            continue
        # Fingers in line hide each other; they are bent alike, too.
        fingers[k, [0, 2, 3]] = fingers[neighbour, [0, 2, 3]] + rng.normal(0, (2.5, 3, 1.5))
        gap = rng.uniform(-0.5, 1.5)
        apart, together = -12.0 * inwards, 24.0 * inwards
        for _ in range(10):
            fingers[k, 1] = (apart + together) / 2
            if finger_gap(rest, radii, fingers, k, neighbour) > gap:
                apart = fingers[k, 1]
            else:
                together = fingers[k, 1]
    return fingers


def vary(rng: np.random.Generator, rig: Rig, params: HandParams) -> HandParams:
    """Return a hand with fingers together or half bent, and turned further; its label stays."""
    up, pose, view = params.raised, params.pose, params.view
    fingers, thumb = pose.fingers.copy(), pose.thumb.copy()
    raised_fingers = np.array(up[1:])
    if rng.random() < 0.25:  # not stretched out, as in a hand that is at ease
        bend = rng.uniform(8, 28)
        fingers[raised_fingers] += np.array([0.5, 0, 1, 0.4]) * bend
    if rng.random() < 0.7:
        fingers = close_fingers(rng, rig, params.shape, fingers, up)
    if up[THUMB] and rng.random() < 0.5:  # along the palm, not away from it
        thumb[0] = rng.uniform(-6, 12)
        thumb[3:] = rng.uniform(-4, 10, 2)
    tilt = view.tilt + rng.normal(0, 22)
    if sum(up) <= 2 and up[THUMB]:  # a thumb up, down or aside; little finger and thumb; a pistol
        tilt = rng.uniform(-180, 180)
    return replace(params, pose=replace(pose, fingers=fingers, thumb=thumb), view=replace(view, tilt=float(tilt)))


def hold_sign(rng: np.random.Generator, rig: Rig, params: HandParams) -> HandParams:
    """Return a hand as people hold the signs of `SIGNS`; its label stays."""
    up, pose, view = params.raised, params.pose, params.view
    fingers, thumb, tilt = pose.fingers.copy(), pose.thumb.copy(), view.tilt
    if up in (raised(INDEX, MIDDLE), raised(THUMB, INDEX, MIDDLE, RING, LITTLE)):
        fingers = close_fingers(rng, rig, params.shape, fingers, up)
        if up[THUMB]:  # by the index finger, where it may touch it
            thumb[:2] = rng.uniform(17, 36), rng.uniform(-18, 5)
            thumb[3:] = rng.uniform(-4, 14, 2)
    elif up == raised(THUMB):  # the fist lies on its side
        tilt = rng.choice((-90, 90)) + rng.normal(0, 25)
    elif up == raised(THUMB, LITTLE):  # upright, at the ear, before the chest
        tilt = rng.normal(0, 65)
    return replace(params, pose=replace(pose, fingers=fingers, thumb=thumb), view=replace(view, tilt=float(tilt)))


def sample_hand(seed: int, index: int, rig: Rig, tone: int | None = None, kind: Kind = GENERIC) -> HandParams:
    """Return hand number `index` of a seed, independent of all other indices.

    A given Monk `tone`, 1 … 10, replaces the sampled one and changes nothing else. Of varied hands, fingers may touch
    (see `vary`), and fists are fewer. Signs are those of `SIGNS` (see `hold_sign`).
    """
    rng = np.random.default_rng((seed, index))
    count, right = int(rng.integers(len(COUNTS))), bool(rng.integers(2))
    if kind.varied:
        count = rng.choice(len(COUNTS), p=(0.08, 0.17, 0.2, 0.17, 0.18, 0.2))
    up = list(SIGNS)[rng.choice(len(SIGNS), p=list(SIGNS.values()))] if kind.signs else sample_gesture(rng, count)
    sampled_tone = int(rng.integers(1, 11))
    params = sample_appearance(rng, rig, up, right, tone or sampled_tone)
    if kind.signs:
        return hold_sign(rng, rig, params)
    return vary(rng, rig, params) if kind.varied else params
