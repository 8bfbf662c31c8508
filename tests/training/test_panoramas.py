"""Panoramas, the views into them, and files from npm packages."""

import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import drjit
import mitsuba
import numpy as np
import pytest

from benchmarks.app_server import ROOT
from handful.labels import NO_HAND
from tests.builders import write_fingers
from training import npm
from training.augment.pipeline import Augment
from training.data import crops, panoramas
from training.data.backgrounds import load_backgrounds
from training.data.crops import CropDataModule, load_crops
from training.data.registry import open_source
from training.errors import BadData, NoPackage


@pytest.fixture
def folder(tmp_path):
    """Write a panorama as the package has it: sky above, ground below, and a red tower in the middle."""
    mitsuba.set_variant("scalar_rgb")
    drjit.set_thread_count(2)  # with one, as rendering leaves it, the EXR writer deadlocks
    radiance = np.zeros((64, 128, 3), np.float32)
    radiance[:32], radiance[32:] = (0.5, 0.7, 1), (0.2, 0.3, 0.1)
    radiance[20:36, 60:68] = (4, 0, 0)
    mitsuba.Bitmap(radiance).write(str(tmp_path / "a.exr"))
    code = base64.b64encode((tmp_path / "a.exr").read_bytes()).decode()
    (tmp_path / "panoramas").mkdir()
    (tmp_path / "panoramas/a.exr.js").write_text(f"export default 'data:application/exr;base64,{code}'\n")
    return tmp_path


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_panoramas_are_read_on_one_core(folder):
    program = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); from pathlib import Path; "
        "from training.data.panoramas import read_panorama; "
        f"print(read_panorama(Path({str(folder / 'panoramas/a.exr.js')!r})).shape)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "(64, 128, 3)\n"


def test_views_are_upright_and_the_same_every_time(folder):
    views = panoramas.views(folder / "panoramas")
    assert len(views) == panoramas.VIEWS_PER_PANORAMA
    for view in views:
        assert view.shape == (240, 320, 3)
        assert view.dtype == np.uint8
        sky, ground = view[:20].reshape(-1, 3).mean(0), view[-20:].reshape(-1, 3).mean(0)
        assert sky[2] >= ground[2], "the sky is above"
    assert all(np.array_equal(a, b) for a, b in zip(views, panoramas.views(folder / "panoramas"), strict=True))
    red = [((view[..., 0] > 150) & (view[..., 2] < 60)).any() for view in views]
    assert 0 < sum(red) < len(views), "in all directions"


def test_panoramas_are_credited_where_they_are_used(folder):
    assert panoramas.credits(folder / "panoramas") == [panoramas.CREDIT]
    assert panoramas.credits(folder / "empty") == []


def test_panoramas_are_backgrounds_for_training_only(folder):
    assert len(load_backgrounds(folder)) == panoramas.VIEWS_PER_PANORAMA
    assert load_backgrounds(folder, validation=True) == []


def test_the_classifier_is_trained_on_crops_without_hands_too(folder):
    write_fingers(folder / "fingers", train=2, test=1)
    hands = CropDataModule({"fingers": 32}, Augment(size=32), str(folder), empty=32, batch_size=64, workers=0)
    hands.prepare_data()
    hands.setup("fit")
    assert panoramas.CREDIT in hands.credits
    images, targets, _ = next(iter(hands.train_dataloader()))
    assert images.shape == (64, 32, 32, 3)
    assert 16 < (targets == NO_HAND).sum() < 48
    hands.batch_size = 128
    with pytest.raises(BadData, match="64 crops in an epoch do not fill a batch of 128"):
        hands.train_dataloader()


def test_drawn_heads_have_no_skin_of_held_out_people(folder, monkeypatch):
    write_fingers(folder / "fingers", train=2, test=1)
    skins = []
    monkeypatch.setattr(crops, "add_head", lambda square, crop, rng: skins.append(crop.tobytes()) or square)
    hands = CropDataModule({"fingers": 32}, Augment(size=32), str(folder), empty=32, workers=0)
    hands.prepare_data()
    cut = load_crops("fingers", open_source("fingers", folder), folder)
    cut = cut._replace(validation=np.arange(len(cut.validation)) % 2 == 0)
    monkeypatch.setattr(crops, "load_crops", lambda *_: cut)
    hands.setup("fit")
    assert skins
    assert not set(skins) & {cut.images[i].tobytes() for i in np.flatnonzero(cut.validation)}


@pytest.fixture
def package(monkeypatch):
    """Stand in for npm: `npm pack` writes a tarball with one file; return the packages requested."""
    requests = []

    def pack(command, **_):
        requests.append(command[-1])
        with tarfile.open(
            Path(command[command.index("--pack-destination") + 1]) / "some-thing-1.0.0.tgz", "w:gz"
        ) as tar:
            member = tarfile.TarInfo("package/a/b.txt")
            member.size = 5
            tar.addfile(member, io.BytesIO(b"hello"))
        return subprocess.CompletedProcess(command, 0, '[{"filename": "@some/thing-1.0.0.tgz"}]', "")

    monkeypatch.setattr(shutil, "which", lambda _: "npm")
    monkeypatch.setattr(subprocess, "run", pack)
    return requests


def test_a_file_of_a_package_is_fetched_once(package, tmp_path):
    members = {"a/b.txt": hashlib.sha256(b"hello").hexdigest()}
    [path] = npm.fetch_files("@some/thing", "1.0.0", members, tmp_path / "files")
    assert path.read_bytes() == b"hello"
    assert npm.fetch_files("@some/thing", "1.0.0", members, tmp_path / "files") == [path]
    assert package == ["@some/thing@1.0.0"]
    assert [file.name for file in (tmp_path / "files").iterdir()] == ["b.txt"]


def test_a_file_with_another_checksum_is_refused(package, tmp_path):
    with pytest.raises(NoPackage, match="differs from the file"):
        npm.fetch_files("@some/thing", "1.0.0", {"a/b.txt": "0" * 64}, tmp_path)
    assert not list(tmp_path.iterdir())
