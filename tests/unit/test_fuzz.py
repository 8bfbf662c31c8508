"""A few of the damaged files that `python -m tests.fuzz` hands in by the thousand."""

import pytest

from tests import fuzz


@pytest.mark.usefixtures("quiet")  # whose files would lie among those left behind
def test_damaged_files_are_read_or_refused_in_words_everywhere_alike():
    results = fuzz.run(200, ("decoder", "films", "cli", "api"), seed=1)
    for outcome in results.values():
        assert min(outcome["read"], outcome["refused"]) > 3, "neither all too damaged, nor too little"


def test_a_file_that_goes_wrong_is_kept_and_named(monkeypatch, tmp_path):
    def outcomes(second):
        yield "read", 0.1
        if isinstance(second, Exception):
            raise second
        yield second

    monkeypatch.setattr(fuzz, "KEPT", tmp_path)
    files = [("1.png", b"one"), ("2.png", b"two"), ("3.png", b"three")]
    for second, problem in (
        (("read", fuzz.LIMIT + 1), r"6\.0 s"),
        (("refused", 0.1), "not elsewhere"),
        (MemoryError(), "MemoryError"),
    ):
        with pytest.raises(AssertionError, match=rf"{problem}.*2\.png"):
            fuzz.judged("decoder", files, outcomes(second), known=["read"] * 3)
        assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"two"]
        (tmp_path / "2.png").unlink()
