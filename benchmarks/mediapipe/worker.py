"""MediaPipe's hands, read for others: runs in MediaPipe's own environment, without the rest of Handful.

On standard input, for every frame, a line of JSON and then the bytes of its pixels:
{"shape": [480, 640, 3], "reset": false} and 480*640*3 bytes of RGB. "reset" starts tracking anew.
On standard output, for every frame, a line of JSON with an entry a mode:
{"static": {"ms": 23.1, "cpu_ms": 25.4, "hands": 1, "upright": 3, "distance": 3, "angles": 3}, "tracking": {...}}.
The very first line tells the versions. The input's end ends it.
"""

import json
import sys
import time

import cv2
import mediapipe
import numpy as np

MODES = ("static", "tracking")
# Landmarks of the four long fingers: knuckle (MCP), the joint after it (PIP), tip.
KNUCKLES, JOINTS, TIPS = np.array([5, 9, 13, 17]), np.array([6, 10, 14, 18]), np.array([8, 12, 16, 20])


def upright(points: np.ndarray, world: np.ndarray, side: str) -> int:
    """The tutorials' rule: tips above their joints, and the thumb's tip on the outer side of its joint.

    MediaPipe names sides as in a mirror: "Right" is a left hand in a picture that is not mirrored,
    whose thumb, palm to the camera, is on the left of the picture.
    """
    thumb = (points[4, 0] < points[3, 0]) == (side == "Right")
    return int((points[TIPS, 1] < points[JOINTS, 1]).sum() + thumb)


def distance(points: np.ndarray, world: np.ndarray, side: str) -> int:
    """Any tilt: tips further from the wrist than their joints; the thumb's from the little finger's knuckle.

    Across the image with MediaPipe's guess of depth, which beat both flat and world distances.
    """
    away = np.linalg.norm(points - points[0], axis=1)
    thumb = np.linalg.norm(points[4] - points[17]) > np.linalg.norm(points[2] - points[17])
    return int((away[TIPS] > away[JOINTS]).sum() + thumb)


def angles(points: np.ndarray, world: np.ndarray, side: str) -> int:
    """Any tilt: fingers straight at the joint, knuckle to tip over 130°, and thumbs, over 155°, in space."""
    fingers = angle(world[KNUCKLES], world[JOINTS], world[TIPS]) > 130
    return int(fingers.sum() + (angle(world[1], world[2], world[4]) > 155))


def angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The angle at b, in degrees, of points (..., 3)."""
    u, v = a - b, c - b
    cosine = (u * v).sum(-1) / (np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1) + 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


RULES = (upright, distance, angles)


def read(hands, image: np.ndarray) -> dict:
    """One frame: time (and CPU time of all threads), the hands found and what each rule counts on them."""
    start, cpu = time.perf_counter(), time.process_time()
    found = hands.process(image)
    result = {"ms": 1000 * (time.perf_counter() - start), "cpu_ms": 1000 * (time.process_time() - cpu)}
    result["hands"] = len(found.multi_hand_landmarks or ())
    height, width = image.shape[:2]
    read_hands = [
        (
            np.array([(p.x * width, p.y * height, p.z * width) for p in points.landmark]),
            np.array([(p.x, p.y, p.z) for p in world.landmark]),
            handedness.classification[0].label,
        )
        for points, world, handedness in zip(
            found.multi_hand_landmarks or (),
            found.multi_hand_world_landmarks or (),
            found.multi_handedness or (),
            strict=True,
        )
    ]
    return result | {rule.__name__: sum(rule(*hand) for hand in read_hands) for rule in RULES}


def main() -> None:
    # Its default confidences and its better model (model_complexity=1) are the defaults.
    modes = {
        mode: mediapipe.solutions.hands.Hands(static_image_mode=mode == "static", max_num_hands=4) for mode in MODES
    }
    versions = {"mediapipe": mediapipe.__version__, "numpy": np.__version__, "opencv": cv2.__version__}
    print(json.dumps(versions), flush=True)
    turn = 0
    while line := sys.stdin.buffer.readline():
        header = json.loads(line)
        shape = header["shape"]
        pixels = sys.stdin.buffer.read(int(np.prod(shape)))
        image = np.frombuffer(pixels, np.uint8).reshape(shape).copy()
        if header["reset"]:
            modes["tracking"].reset()
        # Neither mode always goes first, into a cold cache.
        turn += 1
        order = MODES if turn % 2 else MODES[::-1]
        result = {mode: read(modes[mode], image) for mode in order}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
