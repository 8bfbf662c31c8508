"""Run MediaPipe's hands on frames from standard input: runs in MediaPipe's environment, without the rest of Handful.

Standard output begins with a line of JSON: {"versions": {...}, "modes": ["static", "tracking"], "model_bytes": 7}.
On standard input, for each frame, comes a line of JSON, then the bytes of its pixels:
{"shape": [480, 640, 3], "reset": false, "modes": ["static"]} and 480*640*3 bytes of RGB. "reset" restarts tracking.
On standard output, for each frame, goes a line of JSON with an entry per mode, in "landmarks" one per hand:
{"static": {"ms": 23.1, "cpu_ms": 25.4, "hands": 1, "totals": {"upright": 3, "distance": 3, "angles": 3},
"landmarks": [{"points": [[x, y, z], ...], "world": [[x, y, z], ...], "side": "Right"}]}, ...}
Points are in pixels, world landmarks in metres. It ends with its input.
"""

import json
import sys
import time
from pathlib import Path

import cv2
import mediapipe
import numpy as np

MODES = ("static", "tracking")
# Landmarks of the four long fingers: knuckle (MCP), the joint after it (PIP), tip.
KNUCKLES, JOINTS, TIPS = np.array([5, 9, 13, 17]), np.array([6, 10, 14, 18]), np.array([8, 12, 16, 20])


def upright(points: np.ndarray, world: np.ndarray, side: str) -> int:
    """Count as tutorials do: tips above their joints, and the thumb's tip on the outer side of its joint.

    MediaPipe names sides as in a mirrored picture: "Right" is a left hand in one that is not mirrored, whose thumb,
    palm to the camera, is on the left of the picture.
    """
    thumb = (points[4, 0] < points[3, 0]) == (side == "Right")
    return int((points[TIPS, 1] < points[JOINTS, 1]).sum() + thumb)


def distance(points: np.ndarray, world: np.ndarray, side: str) -> int:
    """Count at any tilt: tips further from the wrist than their joints; the thumb's from the little finger's knuckle.

    Distances are in pixels with MediaPipe's estimate of depth, which beat both flat and world distances.
    """
    away = np.linalg.norm(points - points[0], axis=1)
    thumb = np.linalg.norm(points[4] - points[17]) > np.linalg.norm(points[2] - points[17])
    return int((away[TIPS] > away[JOINTS]).sum() + thumb)


def angles(points: np.ndarray, world: np.ndarray, side: str) -> int:
    """Count at any tilt: fingers straight at the joint, over 130° from knuckle to tip, and thumbs, over 155°."""
    fingers = angle(world[KNUCKLES], world[JOINTS], world[TIPS]) > 130
    return int(fingers.sum() + (angle(world[1], world[2], world[4]) > 155))


def angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return the angle at b, in degrees, of points (..., 3)."""
    u, v = a - b, c - b
    cosine = (u * v).sum(-1) / (np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1) + 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


RULES = (upright, distance, angles)


def predict(hands, image: np.ndarray) -> dict:
    """Return time, CPU time of all threads, the number of hands, the total by each rule and landmarks of one frame."""
    start, cpu = time.perf_counter(), time.process_time()
    output = hands.process(image)
    result = {"ms": 1000 * (time.perf_counter() - start), "cpu_ms": 1000 * (time.process_time() - cpu)}
    result["hands"] = len(output.multi_hand_landmarks or ())
    height, width = image.shape[:2]
    landmarks = [
        (
            np.array([(p.x * width, p.y * height, p.z * width) for p in points.landmark]),
            np.array([(p.x, p.y, p.z) for p in world.landmark]),
            handedness.classification[0].label,
        )
        for points, world, handedness in zip(
            output.multi_hand_landmarks or (),
            output.multi_hand_world_landmarks or (),
            output.multi_handedness or (),
            strict=True,
        )
    ]
    return result | {
        "totals": {rule.__name__: sum(rule(*hand) for hand in landmarks) for rule in RULES},
        "landmarks": [
            {"points": points.round(3).tolist(), "world": world.round(5).tolist(), "side": side}
            for points, world, side in landmarks
        ],
    }


def main() -> None:
    # Confidence thresholds and model_complexity=1, the better model, are the defaults.
    modes = {
        mode: mediapipe.solutions.hands.Hands(static_image_mode=mode == "static", max_num_hands=4) for mode in MODES
    }
    versions = {"mediapipe": mediapipe.__version__, "numpy": np.__version__, "opencv": cv2.__version__}
    modules = Path(mediapipe.__file__).parent / "modules"
    models = ("palm_detection/palm_detection_full.tflite", "hand_landmark/hand_landmark_full.tflite")
    model_bytes = sum((modules / model).stat().st_size for model in models)
    print(json.dumps({"versions": versions, "modes": MODES, "model_bytes": model_bytes}), flush=True)
    turn = 0
    while line := sys.stdin.buffer.readline():
        header = json.loads(line)
        shape = header["shape"]
        pixels = sys.stdin.buffer.read(int(np.prod(shape)))
        image = np.frombuffer(pixels, np.uint8).reshape(shape).copy()
        if header["reset"]:
            modes["tracking"].reset()
        # In turns: the first one runs with a cold cache.
        turn += 1
        order = header["modes"][:: 1 if turn % 2 else -1]
        result = {mode: predict(modes[mode], image) for mode in order}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
