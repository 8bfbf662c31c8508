"""Hands drawn with a few strokes, in the layout and look of Kaggle Fingers: data for tests that learn."""

import json
import uuid
from pathlib import Path

import cv2
import numpy as np
import onnx

from handful import CLASSES
from training.render.store import encode_webp, write_shard

# Where a left palm's fingers point, in degrees from straight up: thumb … little finger.
POINTING = (-65, -22, -4, 13, 32)
RAISED = ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), (0, 1, 2, 3, 4))


def draw_hand(label: str, rng: np.random.Generator) -> np.ndarray:
    """A light hand on dark noise, (128, 128) uint8, showing `label` such as "3L"."""
    picture = rng.normal(40, 8, (128, 128)).clip(0, 255).astype(np.uint8)
    x, y = 64 + rng.integers(-8, 9), 84 + rng.integers(-8, 9)
    shade = int(rng.integers(150, 220))
    cv2.ellipse(picture, (x, y), (16, 20), 0, 0, 360, shade, -1)
    for finger in RAISED[int(label[0])]:
        angle = np.radians(POINTING[finger] + rng.normal(0, 3))
        length = 36 if finger == 0 else 48
        tip = (round(x + length * np.sin(angle)), round(y - length * np.cos(angle)))
        cv2.line(picture, (x, y), tip, shade, 8)
    cv2.circle(picture, (x - 14, y + 6), 6, shade - 60, -1)  # the ball of the thumb tells the side
    return picture if label[1] == "L" else np.ascontiguousarray(picture[:, ::-1])


def write_fingers(folder: Path, train: int, test: int) -> Path:
    """A Fingers data set with so many pictures a class in each split."""
    rng = np.random.default_rng(0)
    for split, each in (("train", train), ("test", test)):
        (folder / split).mkdir(parents=True)
        for label in CLASSES:
            for _ in range(each):
                name = f"{uuid.UUID(bytes=rng.bytes(16))}_{label}.png"
                cv2.imwrite(str(folder / split / name), draw_hand(label, rng))
    return folder


def write_rendered(folder: Path, hands: int, **told: int) -> Path:
    """A shard of drawn hands on transparent ground, each class in turn; tilted ever further, in each tone in turn.

    What is `told` of them is kept in it.
    """
    rng = np.random.default_rng(0)
    drawn = []
    for i in range(hands):
        label = CLASSES[i % 12]
        picture = cv2.copyMakeBorder(draw_hand(label, rng), 32, 32, 32, 32, cv2.BORDER_CONSTANT)
        alpha = np.where(picture > 80, 255, 0).astype(np.uint8)
        x, y, w, h = cv2.boundingRect(alpha)
        truth = {
            "raised": [finger in RAISED[int(label[0])] for finger in range(5)],
            "count": int(label[0]),
            "right": label[1] == "R",
            "back": i % 2 == 1,
            "yaw": 0,
            "pitch": 0,
            "tilt": 45 * i / hands,
            "tone": 1 + i % 10,
            "box": (x, y, x + w, y + h),
            "sight": (1, 0.8, 0.6, 0.4, 0.2),
        }
        drawn.append((encode_webp(cv2.merge([picture, picture, picture, alpha]), 101), truth))
    folder.mkdir(parents=True)
    write_shard(folder / "shard-00000.npz", drawn, **told)
    return folder


def write_model(path: Path, image_type: int = onnx.TensorProto.UINT8, **shapes: tuple[int, ...]) -> None:
    """Write an ONNX model with Handful's inputs and outputs that always predicts zeros.

    `shapes` replaces shapes of outputs; () leaves an output out.
    """
    outputs = {"boxes": (1, 4), "squares": (1, 4), "scores": (1,), "probabilities": (1, 12), "gradcam": (1, 12, 8, 8)}
    outputs = {name: shape for name, shape in (outputs | shapes).items() if shape}
    zeros = {name: onnx.numpy_helper.from_array(np.zeros(shape, np.float32)) for name, shape in outputs.items()}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], [name], value=value) for name, value in zeros.items()],
        "zeros",
        [onnx.helper.make_tensor_value_info("image", image_type, ["h", "w", 3])],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.helper.set_model_props(model, {"classes": json.dumps(CLASSES)})
    onnx.save(model, path)
