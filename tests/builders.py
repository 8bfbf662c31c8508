"""Images, data sets, recordings, models and videos for tests; the hands are drawn with a few strokes."""

import io
import json
import struct
import uuid
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import onnx
from PIL import Image

from handful import CLASSES, FINGERS, Box, FingerCounter
from handful.images import decode
from handful.labels import COUNTS, SIDES
from handful.personal import FITTED, HEADS, Figures, PersonalHead
from training.data.registry import SOURCES
from training.render.store import encode_webp, write_shard

SAMPLES = Path(__file__).parents[1] / "assets/samples"
# Where a left palm's fingers point, in degrees from straight up: thumb … little finger.
POINTING = (-65, -22, -4, 13, 32)
RAISED = ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), (0, 1, 2, 3, 4))


def draw_hand(label: str, rng: np.random.Generator) -> np.ndarray:
    """Draw a light hand on dark noise, as in Kaggle Fingers: (128, 128) uint8, of a class such as "3L"."""
    picture = rng.normal(40, 8, (128, 128)).clip(0, 255).astype(np.uint8)
    x, y = 64 + rng.integers(-8, 9), 84 + rng.integers(-8, 9)
    shade = int(rng.integers(150, 220))
    cv2.ellipse(picture, (x, y), (16, 20), 0, 0, 360, shade, -1)
    for finger in RAISED[int(label[0])]:
        angle = np.radians(POINTING[finger] + rng.normal(0, 3))
        length = 36 if finger == 0 else 48
        tip = (round(x + length * np.sin(angle)), round(y - length * np.cos(angle)))
        cv2.line(picture, (x, y), tip, shade, 8)
    cv2.circle(picture, (x - 14, y + 6), 6, shade - 60, -1)  # the ball of the thumb gives the side away
    return picture if label[1] == "L" else np.ascontiguousarray(picture[:, ::-1])


def write_fingers(folder: Path, train: int, test: int) -> Path:
    """Write Kaggle Fingers with this many images per class in each split."""
    rng = np.random.default_rng(0)
    for split, each in (("train", train), ("test", test)):
        (folder / split).mkdir(parents=True)
        for label in CLASSES:
            for _ in range(each):
                name = f"{uuid.UUID(bytes=rng.bytes(16))}_{label}.png"
                cv2.imwrite(str(folder / split / name), draw_hand(label, rng))
    return folder


def write_webcam(folder: Path, frames: Mapping[str, tuple[np.ndarray, int, Sequence[float]]]) -> Path:
    """Write a HandsDataset of frames with one hand each: image (H, W, 3) uint8 RGB, count and box, by file name."""
    (folder / "images/train").mkdir(parents=True)
    (folder / "data").mkdir()
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for name, (image, count, box) in frames.items():
        cv2.imwrite(str(folder / "images/train" / name), image[..., ::-1])
        x0, y0, x1, y1 = map(round, box)
        lines.append(f"{name},{image.shape[1]},{image.shape[0]},{count}-hand,{x0},{y0},{x1},{y1}")
    (folder / "data/train_labels.csv").write_text("\n".join(lines))
    (folder / "data/test_labels.csv").write_text(lines[0])
    return folder


def write_rendered(folder: Path, hands: int, **options: int) -> Path:
    """Write a shard of drawn hands on transparent ground, with the options that it records.

    Classes and skin tones take turns; tilt grows from 0° to 45°.
    """
    rng = np.random.default_rng(0)
    drawn = []
    for i in range(hands):
        label = CLASSES[i % len(CLASSES)]
        picture = cv2.copyMakeBorder(draw_hand(label, rng), 32, 32, 32, 32, cv2.BORDER_CONSTANT)
        alpha = np.where(picture > 80, 255, 0).astype(np.uint8)
        x, y, w, h = cv2.boundingRect(alpha)
        labels = {
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
        drawn.append((encode_webp(cv2.merge([picture, picture, picture, alpha]), 101), labels))
    folder.mkdir(parents=True)
    write_shard(folder / "shard-00000.npz", drawn, **options)
    return folder


def write_model(path: Path, image_type: int = onnx.TensorProto.UINT8, **shapes: tuple[int, ...]) -> None:
    """Write an ONNX model with Handful's inputs and outputs that always predicts zeros.

    `shapes` replaces shapes of outputs and heads; () leaves one out.
    """
    outputs = {"boxes": (1, 4), "squares": (1, 4), "scores": (1,)}
    outputs |= {"probabilities": (1, len(CLASSES)), "gradcam": (1, len(CLASSES), 8, 8), "fingers": (1, len(FINGERS))}
    outputs["features"] = (1, 8)
    heads = {name: (rows, 8) if columns else (rows,) for name, (rows, *columns) in HEADS.items()}
    outputs, heads = ({k: s for k, s in (own | shapes).items() if k in own and s} for own in (outputs, heads))
    zeros = {
        name: onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)
        for name, shape in (outputs | heads).items()
    }
    infos = {name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, zeros[name].dims) for name in zeros}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], [name], value=zeros[name]) for name in outputs],
        "zeros",
        [onnx.helper.make_tensor_value_info("image", image_type, ["h", "w", 3]), *map(infos.get, heads)],
        [infos[name] for name in outputs],
        [zeros[name] for name in heads],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.helper.set_model_props(model, {"classes": json.dumps(CLASSES)})
    onnx.save(model, path)


def counting_on(by: int = 1) -> PersonalHead:
    """Return a personal head of the shipped model for which a count of 3 is 3 + `by`, and so on; 0 follows 5."""
    counter = shipped_model()
    weights = {name: counter.heads[name] for name in FITTED}
    for name in ("classifier.head.weight", "classifier.head.bias"):
        sides = weights[name].reshape(len(SIDES), len(COUNTS), -1)
        weights[name] = np.roll(sides, by, axis=1).reshape(weights[name].shape)
    figures = Figures(18, 2, 17, 6, 1, 0, helped=True)
    return PersonalHead(weights, counter.sha256, "2026-11-30", figures)


def png(size: tuple[int, int] = (60, 40)) -> bytes:
    """Return a PNG of a grey gradient, width × height."""
    data = io.BytesIO()
    Image.linear_gradient("L").resize(size).save(data, "PNG")
    return data.getvalue()


def sample_png(label: str) -> bytes:
    """Return the first bundled sample of a class as a PNG."""
    return cv2.imencode(".png", cv2.imread(str(SAMPLES / f"{label}_0.jpg")))[1].tobytes()


def make_video(
    container: str = "mp4",
    size: tuple[int, int] = (640, 480),
    samples: Sequence[str] = ("3L_0", "5R_1"),
    rotated: bool = False,
) -> io.BytesIO:
    """Return a video with one second, 10 frames, of each bundled sample.

    Args:
        container: "mp4", "mov" or "webm".
        size: width, height.
        samples: names without their ending.
        rotated: store it on its side with a rotation matrix, as phones do.
    """
    file = io.BytesIO()
    codec = {"mp4": "libx264", "mov": "libx264", "webm": "libvpx"}[container]
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *(size[::-1] if rotated else size), "yuv420p"
        for k, name in enumerate(samples):
            picture = decode(SAMPLES / f"{name}.jpg")
            side = min(size)
            left, top = (size[0] - side) // 2, (size[1] - side) // 2
            image = np.full((size[1], size[0], 3), 150, np.uint8)
            image[top : top + side, left : left + side] = cv2.resize(picture, (side, side))
            if rotated:
                image = np.ascontiguousarray(np.rot90(image))
            for i in range(10):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = 10 * k + i, Fraction(1, 10)
                out.mux(stream.encode(frame))
        out.mux(stream.encode())
    if rotated:  # the matrix of the track header: 90 degrees clockwise
        matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, size[0] << 16, 0, 1 << 30)
        file.seek(file.getvalue().index(b"tkhd") + 4 + 40)
        file.write(matrix)
    file.seek(0)
    return file


def add_sound(video: io.BytesIO, path: Path, codec: str = "aac", seconds: float = 2, rate: int = 48_000) -> bytes:
    """Return the video with a tone of 440 Hz, written to `path`, whose suffix is that of its container.

    An MP4 has its index at the start, as videos on the web do, so that its first half can be read.
    """
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(video) as file, av.open(path, "w", options=options) as out:
        pictures = file.streams.video[0]
        streams = out.add_stream_from_template(pictures), out.add_stream(codec, rate=rate, layout="mono")
        packets = [(packet, streams[0]) for packet in file.demux(pictures) if packet.dts is not None]
        for start in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            packets += [(packet, streams[1]) for packet in streams[1].encode(frame)]
        packets += [(packet, streams[1]) for packet in streams[1].encode()]
        for packet, stream in sorted(packets, key=lambda one: one[0].dts * one[0].time_base):
            packet.stream = stream
            out.mux(packet)
    return path.read_bytes()


def write_image(file: Path, rgb: np.ndarray) -> Path:
    """Write an image (H, W, 3) uint8 RGB, and the folders it is in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return file


def write_webcam_tables(folder: Path, **rows: Sequence[str]) -> Path:
    """Write HandsDataset with these rows of its tables, by split, and a grey 320×240 image for each file name."""
    for split in ("train", "test"):
        lines = ["filename,width,height,class,xmin,ymin,xmax,ymax", *rows.get(split, [])]
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "data" / f"{split}_labels.csv").write_text("\n".join(lines))
        for name in {row.partition(",")[0] for row in lines[1:]}:
            write_image(folder / "images" / split / name, np.full((240, 320, 3), 90, np.uint8))
    return folder


def open_at(root: Path, name: str, **options: object) -> Any:
    """Open a source that is in `root`, whatever its place in the data folder; `options` replace those of its reader."""
    source = SOURCES[name]
    return resolve_name(source.reader)(root, **{**source.options, **options})


def draw_person(
    label: str, wall: np.ndarray, tilt: float = 0.0, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a hand with a forearm in a sleeve before a wall (RGB); return it and (H, W) bool of all, and of the hand."""
    height, width = wall.shape[:2]
    hand = (draw_hand(label, np.random.default_rng(7)) > 90).astype(np.uint8)
    x, y = np.flatnonzero(hand.any(0)), np.flatnonzero(hand.any(1))
    palm = (float(x.mean()), float(y.max() - 15))
    forearm, sleeve = np.zeros((2, 400, 128), np.uint8)
    cv2.line(forearm, (round(palm[0]), round(palm[1])), (round(palm[0]), 399), 1, 15)
    cv2.line(sleeve, (round(palm[0]), y.max() + 35), (round(palm[0]), 399), 1, 25)
    matrix = cv2.getRotationMatrix2D(palm, tilt, scale)
    matrix[:, 2] += np.array([width / 2, height * 0.6]) - palm
    hand, forearm, sleeve = (cv2.warpAffine(part, matrix, (width, height)) > 0 for part in (hand, forearm, sleeve))
    image = wall.copy()
    image[hand | forearm] = (205, 160, 125)
    image[sleeve] = (60, 70, 75)
    return image, hand | forearm | sleeve, hand


def write_digits(folder: Path) -> Path:
    """Write Sign-Language-Digits-Dataset with the digits 0-5 of three people."""
    light = np.linspace(1, 0.85, 100)[:, None, None]
    wall = (np.full((100, 100, 3), (200, 200, 205)) * light).astype(np.uint8)
    for count in COUNTS:
        for person in range(3):
            image, *_ = draw_person(f"{count}R", wall, scale=0.7)
            write_image(folder / f"Dataset/{count}/IMG_{1000 + 10 * person + count}.JPG", image)
    return folder


def write_counting(folder: Path) -> Path:
    """Write Human-Robot_Finger-Counting_Dataset with an image of each count, more and more tilted, and three rooms."""
    rng = np.random.default_rng(0)
    wall = np.full((300, 400, 3), (110, 118, 112), np.uint8)
    write_image(folder / "Raw_Images/Human/Set1/0/imbk.jpg", wall)
    for count in COUNTS[1:]:
        # Exposure drifts from image to image, a little in each channel.
        light = rng.uniform(0.5, 0.65) * rng.uniform(0.97, 1.03, 3)
        image = draw_person(f"{count}L", wall, tilt=20 * count - 60)[0] * light
        write_image(folder / f"Raw_Images/Human/Set1/{count}/n_{count}.jpg", image.clip(0, 255).astype(np.uint8))
    for room in (1, 2, 10):
        write_image(folder / f"Backgrounds/Office/{room}.jpg", wall)
    return folder


@cache
def shipped_model() -> FingerCounter:
    """Load the model of the repository, even while a test has replaced that of the app."""
    return FingerCounter()


class Shot(NamedTuple):
    """A JPEG that the Teach page took, and the box of the hand in it; None where none was detected."""

    jpeg: bytes
    box: Box | None


class Prompt(NamedTuple):
    """A class that the Teach page asked for, in one round."""

    round: int
    label: str


def sample_shot(label: str, number: int = 0) -> Shot:
    """Record a bundled sample as the Teach page does."""
    image = decode(SAMPLES / f"{label}_{number}.jpg")
    jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    [hand] = shipped_model()(image).hands
    return Shot(jpeg, hand.box)


def write_recording(folder: Path, bursts: Mapping[Prompt, Sequence[Shot]], name: str = "own-hand.zip") -> Path:
    """Write a recording as the Teach page does, where the source of the user's own hand is. Returns the data folder."""
    rows, numbers = ["file,round,x0,y0,x1,y1"], Counter[str]()
    (folder / "own").mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "own" / name, "w") as archive:
        for prompt, shots in bursts.items():
            for shot in shots:
                numbers[prompt.label] += 1
                file = f"{prompt.label}/{numbers[prompt.label]:04}.jpg"
                archive.writestr(file, shot.jpeg)
                box = [f"{x:.1f}" for x in shot.box] if shot.box else [""] * 4
                rows.append(",".join([file, str(prompt.round), *box]))
        archive.writestr("hands.csv", "\n".join(rows))
    return folder
