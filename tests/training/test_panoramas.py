"""Views into panoramas, and how files come out of npm packages."""

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
from training import data, npm
from training.augment.pipeline import Augment
from training.data import CropDataModule, panoramas
from training.data.backgrounds import places
from training.errors import BadData, NoPackage


@pytest.fixture
def folder(tmp_path):
    """A panorama as the package has it: sky above, ground below, and a red tower straight ahead of the middle."""
    mitsuba.set_variant("scalar_rgb")
    drjit.set_thread_count(2)  # with one, as rendering leaves it, the file's writer waits for ever
    light = np.zeros((64, 128, 3), np.float32)
    light[:32], light[32:] = (0.5, 0.7, 1), (0.2, 0.3, 0.1)
    light[20:36, 60:68] = (4, 0, 0)
    mitsuba.Bitmap(light).write(str(tmp_path / "a.exr"))
    code = base64.b64encode((tmp_path / "a.exr").read_bytes()).decode()
    (tmp_path / "panoramas").mkdir()
    (tmp_path / "panoramas/a.exr.js").write_text(f"export default 'data:application/exr;base64,{code}'\n")
    return tmp_path


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not let a process choose its cores")
def test_a_machine_with_one_core_reads_them_too(folder):
    # The file alone: its package brings PyTorch, which is not needed here.
    program = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); " + (
        f"from pathlib import Path; import runpy; read = runpy.run_path({panoramas.__file__!r})['read']; "
        f"print(read(Path({str(folder / 'panoramas/a.exr.js')!r})).shape)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "(64, 128, 3)\n"


def test_views_are_upright_and_the_same_every_time(folder):
    views = panoramas.views(folder / "panoramas")
    assert len(views) == panoramas.VIEWS
    for view in views:
        assert view.shape == (240, 320, 3)
        assert view.dtype == np.uint8
        sky, ground = view[:20].reshape(-1, 3).mean(0), view[-20:].reshape(-1, 3).mean(0)
        assert sky[2] >= ground[2], "what is blue is above"
    assert all(np.array_equal(a, b) for a, b in zip(views, panoramas.views(folder / "panoramas"), strict=True))
    red = [((view[..., 0] > 150) & (view[..., 2] < 60)).any() for view in views]
    assert 0 < sum(red) < len(views), "they look to all sides"


def test_whoever_uses_panoramas_says_so(folder):
    assert panoramas.credits(folder / "panoramas") == [panoramas.CREDIT]
    assert panoramas.credits(folder / "nothing here") == []


def test_panoramas_are_places_to_train_in_and_none_to_validate_with(folder):
    assert len(places(folder)) == panoramas.VIEWS
    assert places(folder, validation=True) == []


def test_a_classifier_also_sees_places_without_hands(folder):
    write_fingers(folder / "fingers", train=2, test=1)
    hands = CropDataModule({"fingers": 32}, Augment(size=32), str(folder), empty=32, batch_size=64, workers=0)
    hands.prepare_data()
    hands.setup("fit")
    assert panoramas.CREDIT in hands.credits
    images, targets = next(iter(hands.train_dataloader()))
    assert images.shape == (64, 32, 32, 3)
    assert 16 < (targets == NO_HAND).sum() < 48
    hands.batch_size = 128
    with pytest.raises(BadData, match=r"^64 crops an epoch are no batch of 128: take more, or smaller batches\.$"):
        hands.train_dataloader()


def test_nobody_kept_for_validation_lends_a_head_their_skin(folder, monkeypatch):
    write_fingers(folder / "fingers", train=2, test=1)
    lent = []
    monkeypatch.setattr(data, "with_head", lambda room, crop, rng: lent.append(crop.tobytes()) or room)
    hands = CropDataModule({"fingers": 32}, Augment(size=32), str(folder), empty=32, workers=0)
    hands.prepare_data()
    pictures, targets, boxes, kept = data.cut(data.open_source("fingers", folder), folder)
    kept = np.arange(len(kept)) % 2 == 0
    monkeypatch.setattr(data, "cut", lambda *_: (pictures, targets, boxes, kept))
    hands.setup("fit")
    assert lent
    assert not set(lent) & {pictures[i].tobytes() for i in np.flatnonzero(kept)}


@pytest.fixture
def package(monkeypatch):
    """Stands in for npm: `npm pack` gives a tarball with one file in it; whatever it was asked for is kept."""
    asked = []

    def pack(command, **_):
        asked.append(command[-1])
        with tarfile.open(
            Path(command[command.index("--pack-destination") + 1]) / "some-thing-1.0.0.tgz", "w:gz"
        ) as tar:
            member = tarfile.TarInfo("package/a/b.txt")
            member.size = 5
            tar.addfile(member, io.BytesIO(b"hello"))
        return subprocess.CompletedProcess(command, 0, '[{"filename": "@some/thing-1.0.0.tgz"}]', "")

    monkeypatch.setattr(shutil, "which", lambda _: "npm")
    monkeypatch.setattr(subprocess, "run", pack)
    return asked


def test_a_file_of_a_package_is_fetched_once(package, tmp_path):
    members = {"a/b.txt": hashlib.sha256(b"hello").hexdigest()}
    [path] = npm.fetch("@some/thing", "1.0.0", members, tmp_path / "kept")
    assert path.read_bytes() == b"hello"
    assert npm.fetch("@some/thing", "1.0.0", members, tmp_path / "kept") == [path]
    assert package == ["@some/thing@1.0.0"]
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["b.txt"], "and nothing else is left"


def test_another_file_under_the_same_name_is_refused(package, tmp_path):
    with pytest.raises(NoPackage, match="not the file"):
        npm.fetch("@some/thing", "1.0.0", {"a/b.txt": "0" * 64}, tmp_path)
    assert not list(tmp_path.iterdir())
