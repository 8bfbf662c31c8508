import pytest

from training.files import atomic_write


def test_a_file_has_its_name_when_all_is_written(tmp_path):
    file = tmp_path / "pruned.ckpt"
    file.write_text("before")
    with atomic_write(file) as part:
        part.write_text("half")
        assert file.read_text() == "before"
        part.write_text("all of it")
    assert file.read_text() == "all of it"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_breaks_off_leaves_what_was_there_and_no_half(error, tmp_path):
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
