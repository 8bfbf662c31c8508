"""Panoramas of rooms, streets and fields, and perspective views into them: backgrounds without people.

18 photographs of 512 × 256 pixels from Poly Haven (CC0), as packed in the npm package `@pmndrs/assets`.
"""

import base64
import tempfile
from pathlib import Path

import cv2
import drjit
import mitsuba
import numpy as np

from training import npm

CREDIT = "Panoramas (Poly Haven, by way of @pmndrs/assets, CC0-1.0)"
PACKAGE, VERSION = "@pmndrs/assets", "1.7.0"
MEMBERS = {
    f"hdri/{name}.exr.js": sha256
    for name, sha256 in {
        "apartment": "74c0206dd58bed5fd0795194c3eb0d6f1a7e30c26a831dc239617de707d3a6d8",
        "bridge": "0e0c4def1bd2e8f88d13de12e708047a103b845116f6a04737a25127ad115cb0",
        "city": "dcb14d9dfc48d83e7cc38c7fbb76416cac3a959a59a80d4b0fbfd9dbf4a05ed3",
        "dawn": "455ea02a016b2d177faa501e812ea993b43f223480fe3fe6abded88c5f242cf2",
        "esplanade": "1c7a9a7da193deafd6494a55c21a0a198b72e9024a5faae6e2d3db66a87154dc",
        "forest": "d37ba5af4a60e169f22482f299a14dde2c84455142eb2074d791c863aa619a79",
        "hall": "55db560c95f87b2c0cb82079d87c684fb0be8890d33e97a3628246740bef09e2",
        "lab": "3adb2d8b79177fe47c8d9fc50e52b8d5329ff6ba8409bd38d519fbce1e09d7d3",
        "lobby": "58150e771d20555ebe4a9fc0e1e1aede23de9096430c71d3107017e8a13dc7a6",
        "night": "e76f8e31dad6f491ff83fc3182551b1867c499464569a87d5d2874efb374f66e",
        "park": "88947c10444e0c5f0e51018e5b69af9a7489baab9e8034b0044686c2d8fd7a8c",
        "sky": "62744ec42116f896c2d5959365c9be75589ca09d81ecdd99052c3307ec44ce62",
        "studio": "bdbc4502798c49310b46e57f27ffa8532a7f0a7c2f6708362132be225f0cfdbd",
        "sunrise": "36c7e652f58293b59a235add4b9399d450a24ea79b78709bcd1198246b08a68f",
        "sunset": "57ab9a1e5aec61f1816b2b977646d0baf82a4adf61bfe9d4a8313138f2f50e7c",
        "venice": "08d9d3255f50ffba3a2aa37a95abbcd0944282b90101877b5d0abf340ee0642a",
        "warehouse": "ce15dbb7b20bfd3c1daa478fec3425c6a8efa7ae5e2fe4d501033a1bcc1bd90a",
        "workshop": "32b92ffdb6aca9d5f73f13bbf9bd2d7b47169522de69f7fc4b18cf1da6beb048",
    }.items()
}
VIEWS_PER_PANORAMA = 10
VIEW_SIZE = (320, 240)  # width and height


def fetch(folder: Path) -> None:
    """Download the panoramas into `folder`; 14 MB, of which 4 MB are stored.

    Raises:
        NoPackage: npm is missing, or cannot fetch the package.
    """
    npm.fetch_files(PACKAGE, VERSION, MEMBERS, folder)


def credits(folder: Path) -> list[str]:
    """Return what a model trained with this folder has to credit: nothing, if the folder is empty."""
    return [CREDIT] if any(folder.glob("*.exr.js")) else []


def views(folder: Path) -> list[np.ndarray]:
    """Return views into all panoramas of a folder, each (240, 320, 3) uint8 RGB; the same ones every time."""
    rng = np.random.default_rng(0)
    panoramas = map(read_panorama, sorted(folder.glob("*.exr.js")))
    return [render_view(panorama, rng) for panorama in panoramas for _ in range(VIEWS_PER_PANORAMA)]


def read_panorama(file: Path) -> np.ndarray:
    """Read an equirectangular panorama: radiance, (256, 512, 3) float32 RGB, with a median of 1."""
    code = file.read_text(encoding="ascii").partition(";base64,")[2]
    mitsuba.set_variant("scalar_rgb")
    # With one thread, as on a machine with one core, Mitsuba's EXR reader deadlocks.
    drjit.set_thread_count(max(2, drjit.thread_count()))
    with tempfile.TemporaryDirectory() as temporary:
        exr = Path(temporary) / "panorama.exr"
        exr.write_bytes(base64.b64decode(code.partition("'")[0]))
        bitmap = mitsuba.Bitmap(str(exr)).convert(
            mitsuba.Bitmap.PixelFormat.RGB, mitsuba.Struct.Type.Float32, srgb_gamma=False
        )
    radiance = np.maximum(np.array(bitmap), 0)
    return radiance / np.median(radiance.mean(2))


def render_view(panorama: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Render a perspective view of 50-90 degrees in a random direction, (240, 320, 3) uint8 RGB, auto-exposed."""
    width, height = VIEW_SIZE
    yaw, pitch = rng.uniform(0, 2 * np.pi), np.radians(rng.normal(0, 15))
    focal = width / 2 / np.tan(np.radians(rng.uniform(50, 90)) / 2)
    x, y = np.meshgrid((np.arange(width) + 0.5 - width / 2) / focal, (np.arange(height) + 0.5 - height / 2) / focal)
    down, ahead = y * np.cos(pitch) + np.sin(pitch), np.cos(pitch) - y * np.sin(pitch)
    longitude, latitude = np.arctan2(x, ahead) + yaw, np.arctan2(down, np.hypot(x, ahead))
    rows, columns = panorama.shape[:2]
    view = cv2.remap(
        panorama,
        (longitude / (2 * np.pi) % 1 * columns - 0.5).astype(np.float32),
        ((latitude / np.pi + 0.5) * rows - 0.5).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    exposed = view / np.median(view) * np.exp(rng.uniform(-1.5, -0.5))
    return (exposed.clip(0, 1) ** (1 / 2.2) * 255).astype(np.uint8)
