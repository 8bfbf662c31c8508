"""Atomic writes."""

import pytest

from training.files import atomic_write


def test_file_appears_when_it_is_complete(tmp_path):
    file = tmp_path / "pruned.ckpt"
    file.write_text("before")
    with atomic_write(file) as partial:
        partial.write_text("half")
        assert file.read_text() == "before"
        partial.write_text("complete")
    assert file.read_text() == "complete"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_failed_write_keeps_the_old_file(error, tmp_path):
    file = tmp_path / "pruned.ckpt"
    file.write_text("before")

    def write():
        with atomic_write(file) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
