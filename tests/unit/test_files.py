"""Atomic writes."""

import pytest

from training.files import atomic_write


def test_a_file_is_replaced_when_all_is_written(tmp_path):
    file = tmp_path / "pruned.ckpt"
    file.write_text("before")
    with atomic_write(file) as part:
        part.write_text("half")
        assert file.read_text() == "before"
        part.write_text("all of it")
    assert file.read_text() == "all of it"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_earlier_file_and_no_partial_one(error, tmp_path):
    file = tmp_path / "pruned.ckpt"
    file.write_text("before")

    def write():
        with atomic_write(file) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
