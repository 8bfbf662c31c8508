"""README, docs and model card name files, commands and figures that exist."""

import importlib.util
import json
import re

import pytest
import uvicorn

import app
from benchmarks import ROOT
from handful import cli, decode_process, images, model_store, personal, shared_counter
from handful.images import decode
from training.cli import COMMANDS, TRAININGS
from training.evaluation.report import report
from web import api, live, uploads

DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "model/MODEL_CARD.md"])
docs = pytest.mark.parametrize("doc", DOCS, ids=lambda doc: doc.name)


def prose(text: str) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@docs
def test_relative_links_lead_to_files_and_headings(doc):
    text = doc.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    for target in (target for target in targets if "://" not in target):
        path, _, anchor = target.partition("#")
        file = (doc.parent / path).resolve() if path else doc
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


@docs
def test_files_named_in_the_docs_exist(doc):
    text = doc.read_text(encoding="utf-8")
    folders = "handful|web|pages|training|benchmarks|assets|docs|tests|model"
    for name in set(re.findall(rf"`((?:{folders})/[\w./-]+\.\w+)`", prose(text))):
        assert (ROOT / name).exists(), name


@docs
def test_commands_named_in_the_docs_exist(doc):
    text = doc.read_text(encoding="utf-8")
    for module in set(re.findall(r"-m ([a-z][\w.]*)", text)) - {"venv"}:
        assert importlib.util.find_spec(module), module
    for command in set(re.findall(r"-m training ([a-z][\w-]*)", text)):
        assert command in (*COMMANDS, *TRAININGS), command
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in re.findall(r"(?:^|`)make ((?:[a-z-]+ ?)+)", text, re.MULTILINE):
        assert set(line.split()) <= targets, line


def test_the_printed_tables_are_in_the_docs(capsys):
    report()
    tables = [table.strip() for table in capsys.readouterr().out.split("\n\n") if table.strip().startswith("|")]
    benchmarks = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert all(table in benchmarks for table in tables)
    card = (ROOT / "model/MODEL_CARD.md").read_text(encoding="utf-8")
    held_out, *_, left_out = tables
    assert held_out in card
    assert left_out in card


def test_the_readme_shows_the_answer_of_the_api():
    example = json.loads(re.search("```json\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1])
    prediction = shared_counter()(decode(ROOT / "assets/samples" / example.pop("file"))).to_dict()
    [expected], [hand] = example.pop("hands"), prediction.pop("hands")
    assert example | {"ms": prediction["ms"]} == prediction
    assert expected.keys() == hand.keys()
    assert (expected["fingers"], expected["side"]) == (hand["fingers"], hand["side"])
    assert expected["box"] == pytest.approx(hand["box"], abs=1)
    for name, probability in hand["probabilities"].items():
        assert expected["probabilities"].get(name, probability) == pytest.approx(probability, abs=0.002)


def test_the_limits_in_the_security_doc_are_those_of_the_code():
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    keep_alive = uvicorn.Config(app.app).timeout_keep_alive  # after the answer to half of a body
    by_live, by_api = live.UPLOAD_TIMEOUT_S + keep_alive, api.UPLOAD_TIMEOUT_S + keep_alive
    for limit in (
        f"fields of {personal.MAX_FILE_BYTES // 1000} kB",
        f"{decode_process.CPU_S:.0f} s of CPU time or {decode_process.WALL_S:.0f} s",
        f"(command line: {cli.CPU_S:.0f} s or {cli.WALL_S:.0f} s)",
        f"more than {api.MAX_REQUESTS_PER_CLIENT} requests at once",
        f"over {images.MAX_SIDE:,} pixels or 1:{images.MAX_ASPECT}, over {images.MAX_PIXELS // 1_000_000} megapixels",
        f"over {images.MAX_BYTES // 1_000_000} MB",
        f"after {uploads.GRACE_S} s below {uploads.MIN_BYTES_PER_S // 1000} kB a second",
        f"{uploads.CHUNK_TIMEOUT_S} s without a byte",
        f"after {app.HEAD_TIMEOUT_S} to {2 * app.HEAD_TIMEOUT_S} s; half of a body after {by_live} s (Live)",
        f"{by_api} s (API)",
        f"sends more than {model_store.MAX_MODEL_BYTES // 1_000_000} MB",
    ):
        assert limit in text, limit
    assert model_store.DOWNLOAD_TIMEOUT_S == 60, "at most a minute"


def test_the_readme_fits_on_two_hundred_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
