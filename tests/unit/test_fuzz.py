"""A small run of `python -m tests.fuzz`."""

import pytest

from tests import fuzz


@pytest.mark.usefixtures("idle_machine")  # other processes' files would count as left behind
def test_damaged_files_give_predictions_or_messages_everywhere():
    results = fuzz.run(200, ("decoder", "videos", "cli", "api"), seed=1)
    for result in results.values():
        assert min(result["predicted"], result["refused"]) > 3, "the damage is too strong or too weak"


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (("predicted", fuzz.TIMEOUT_S + 1), r"6\.0 s"),
        (("refused", 0.1), "not elsewhere"),
        (MemoryError(), "MemoryError"),
    ],
    ids=["slow", "inconsistent", "error"],
)
def test_failed_file_is_saved_and_named(second, problem, monkeypatch, tmp_path):
    def outcomes():
        yield "predicted", 0.1
        if isinstance(second, Exception):
            raise second
        yield second

    monkeypatch.setattr(fuzz, "FAILED_DIR", tmp_path)
    files = [("1.png", b"one"), ("2.png", b"two"), ("3.png", b"three")]
    with pytest.raises(AssertionError, match=rf"{problem}.*2\.png"):
        fuzz.check("decoder", files, outcomes(), expected=["predicted"] * 3)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"two"]
