"""The Teach page in a real browser: it records, learns on both ways to run the model, and is used on Live."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from handful import CLASSES, PersonalHead, shared_counter
from handful.labels import SIDE_UNKNOWN
from handful.personal import FITTED, Figures
from tests.browser.actions import TIMEOUT_MS, total, wait_until
from tests.browser.components import open_component
from tests.builders import SAMPLES
from training.data.sources.own_hand import OwnHand

LABELS = {"counts": list(range(6)), "sides": ["left", "right"], "fingers": list("abcde")}
# A camera that shows what is asked for, as bundled hands before a wall, and a clock that is faster: `window.pose` says
# which hand is shown for a count and a side, by default the next count, which the model does not know as that.
CAMERA = """
    window.findPage = () => {
        for (const element of document.querySelectorAll("*")) {
            const page = element.shadowRoot?.querySelector(".live");
            if (page) return page;
        }
    };
    window.pose = (fingers, side) => `${(fingers + 1) % 6}${side}`;
    navigator.mediaDevices.getUserMedia = async () => {
        const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
        const context = canvas.getContext("2d");
        const images = {};
        for (const [name, source] of Object.entries(SAMPLES)) {
            images[name] = Object.assign(new Image(), { src: source });
            await images[name].decode();
        }
        let asked, round = 0;
        setInterval(() => {
            const text = findPage()?.querySelector(".ask:not([hidden]) .what")?.textContent ?? "";
            if (text !== asked) round++;
            asked = text;
            const [count] = /\\d/.exec(text) ?? [];
            const name = window.shown ?? (count && pose(Number(count), text.includes("left") ? "L" : "R"));
            context.fillStyle = "#969691";
            context.fillRect(0, 0, 640, 480);
            const [dx, dy] = window.shown ? [0, 0] : [8 * Math.random(), 8 * Math.random()];
            const image = images[`${name}_${window.shown ? 2 : round % 3}`];
            if (image) context.drawImage(image, 192 + dx, 140 + dy, 256, 256);
        }, 40);
        return (window.stream = canvas.captureStream(20));
    };
    const wait = setTimeout;
    window.speed = 8;
    window.setTimeout = (f, ms, ...more) => wait(f, [500, 1000, 7000].includes(ms) ? ms / speed : ms, ...more);
"""


def camera_script() -> str:
    jpegs = {path.stem: path.read_bytes() for path in SAMPLES.glob("*_[0-2].jpg")}
    sources = {name: f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for name, jpeg in jpegs.items()}
    return f"const SAMPLES = {json.dumps(sources)};{CAMERA}"


def open_teach(page: Page, way: str = "server") -> None:
    page.add_init_script(camera_script())
    page.goto(f"/teach?read={way}")
    button(page).and_(page.locator(":enabled")).wait_for()


def button(page: Page) -> Locator:
    """Return the large button, which does what comes next."""
    return page.locator(".start")


def record(page: Page) -> None:
    """Go through all prompts."""
    button(page).click()
    page.locator(".start", has_text="Learn").wait_for(timeout=3 * TIMEOUT_MS)


def pictures(page: Page) -> int:
    """Return how many pictures the review shows."""
    return page.locator(".review .tile").count()


@pytest.mark.parametrize("way", ["browser", "server"])
def test_what_is_taught_is_learned_and_used_on_live(page, runtime, way, tmp_path):
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    open_teach(page, way)
    expect(page.locator(".left")).to_have_text("About 2 minutes, 63 pictures")
    record(page)
    expect(page.locator(".review h2")).to_have_text(re.compile(r"63 pictures, \d+ marked"))
    assert any("/api/teach" in url for url in sent) == (way == "server")

    button(page).click()
    expect(page.locator(".result h2")).to_have_text(re.compile(r"\d+ errors before, \d+ after"))
    before, after = map(int, re.findall(r"\d+", page.locator(".result h2").inner_text()))
    assert before > 40
    assert after < before / 2
    with page.expect_download() as download:
        page.locator(".result .save-head").click()
    download.value.save_as(tmp_path / download.value.suggested_filename)
    head = PersonalHead.load(tmp_path / "my-hand.json")
    assert (head.figures.hands, head.figures.empty, head.figures.helped) == (54, 9, True)

    # Three fingers stand for two now.
    page.evaluate("window.shown = '3R'; window.speed = 1")
    button(page).click()
    page.wait_for_url(re.compile(r"/(\?.*)?$"))
    page.get_by_role("button", name="Start", exact=True).click()
    expect(total(page)).to_have_text("2")


def test_pictures_are_asked_about_and_taken_again(page):
    open_teach(page)
    page.evaluate("window.pose = (fingers) => ['1R', '1L'][fingers]")
    button(page).click()
    question, what = page.locator(".question"), page.locator(".what")
    # No answer, no harm: the model may be wrong.
    expect(question.locator("p")).to_have_text("We see 1. Did you show 0?")
    expect(page.locator(".last .tile.marked")).to_have_count(3)
    expect(question.locator("p")).to_have_text("We see your left hand. Did you show your right one?")
    expect(what).to_have_text("1 finger, right hand")
    page.evaluate("window.pose = (fingers) => ['1R', '1R'][fingers]")
    page.keyboard.press("r")
    # Without a hand, they are taken again by themselves, once.
    expect(question.locator("p")).to_have_text(re.compile("No hand found"))
    expect(what).to_have_text("2 fingers, right hand")
    page.evaluate("window.speed = 1")  # leaves the time of a countdown to pause
    expect(what).to_have_text("3 fingers, right hand")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".result")).to_contain_text("In 6, which are marked below, Handful saw something other than")
    for group, seen in (("0 right", "111"), ("1 right", "111"), ("2 right", "–––")):
        tiles = page.locator(".prompt", has_text=f"{group}, round 1").locator(".tile")
        assert tiles.all_inner_texts() == list(seen)


def test_the_room_is_asked_about_if_there_is_a_hand(page):
    open_teach(page)
    page.evaluate("window.shown = '5R'")
    button(page).click()
    expect(page.locator(".caption")).to_have_text("Hands down")
    expect(page.locator(".question p")).to_have_text("We see a hand. Was one of yours in view?")
    page.evaluate("window.shown = undefined; window.speed = 1")
    page.keyboard.press("r")
    expect(page.locator(".what")).to_have_text("0 fingers, right hand")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".review h2")).to_have_text("9 pictures")
    expect(page.locator(".review .tile.marked")).to_have_count(0)


def test_it_pauses_and_goes_on_where_it_was_even_after_another_page(page):
    open_teach(page)
    page.evaluate("window.pose = (fingers, side) => `${fingers}${side}`")
    button(page).click()
    expect(page.locator(".what")).to_have_text("2 fingers, right hand")
    page.evaluate("window.speed = 1")  # leaves the time of a countdown to go
    page.get_by_role("link", name="About").click()
    expect(page).to_have_title("About · Handful")
    wait_until(
        page, lambda: page.evaluate("window.stream.getTracks().every(({ readyState }) => readyState === 'ended')")
    )
    page.get_by_role("link", name="Teach").click()
    expect(button(page)).to_have_text("Continue")
    expect(page.locator(".left")).to_have_text(re.compile("3 of 19 done"))
    kept = pictures(page)
    assert kept >= 15
    page.evaluate("window.speed = 8")
    button(page).click()
    expect(page.locator(".what")).to_have_text("2 fingers, right hand")
    expect(page.locator(".what")).to_have_text("3 fingers, right hand")
    # A camera that is lost loses nothing.
    page.evaluate("window.stream.getVideoTracks()[0].onended()")
    expect(page.get_by_text("The camera was disconnected.")).to_be_visible()
    expect(button(page)).to_have_text("Try again")
    assert pictures(page) >= 18
    # A reload would.
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.type), dialog.dismiss()))
    page.evaluate("setTimeout(() => location.reload())")
    wait_until(page, lambda: dialogs == ["beforeunload"])


def test_pictures_can_be_looked_at_deleted_taken_again_and_downloaded(page, tmp_path):
    open_teach(page)
    page.evaluate("window.pose = (fingers, side) => `${fingers}${side}`")
    page.get_by_text("Both", exact=True).click()
    expect(page.locator(".left")).to_have_text("About 3 minutes, 117 pictures")
    page.get_by_text("Count only", exact=True).click()
    record(page)
    assert pictures(page) == 63
    tile = page.locator(".review .tile").nth(9)  # the first nine are of the room
    tile.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("10 of 63. Asked for: 0 fingers, round 1. We saw 0 fingers.")
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog).to_contain_text("10 of 62.")
    page.keyboard.press("ArrowLeft")
    expect(dialog).to_contain_text("9 of 62. Asked for: room. No hand, as it should be.")
    dialog.get_by_role("button", name="Close").click()
    assert pictures(page) == 62
    page.get_by_role("button", name="Take again: 1, round 2").click()
    expect(button(page)).to_have_text("Continue")
    assert pictures(page) == 59
    record(page)
    assert pictures(page) == 62

    with page.expect_download() as download:
        page.get_by_role("button", name="Download pictures (ZIP)").click()
    download.value.save_as(tmp_path / download.value.suggested_filename)
    frames = OwnHand(tmp_path)
    assert len(frames) == 53
    assert {frames.frame(i).targets[0] for i in (0, 52)} == {SIDE_UNKNOWN, SIDE_UNKNOWN + 5}
    assert frames.frame(0).image.shape == (480, 640, 3)
    assert frames.validation.sum() == 18, "the last round"
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete all").click()
    expect(page.locator(".explain")).to_be_visible()


def test_what_cannot_be_learned_is_said_in_words_and_nothing_is_lost(page):
    open_teach(page)
    page.evaluate("window.pose = () => undefined")
    button(page).click()
    expect(page.locator(".what")).to_have_text("2 fingers, right hand", timeout=2 * TIMEOUT_MS)
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Learn from what is there").click()
    expect(page.locator(".problem")).to_contain_text("Hands were found in hardly any picture. More light helps")
    assert pictures(page) >= 15
    expect(button(page)).to_have_text("Continue")


def test_a_server_that_is_busy_or_gone_is_asked_again(page):
    open_teach(page, "server")
    page.evaluate("window.pose = (fingers, side) => `${fingers}${side}`")
    answers = {"status": 503, "body": "{}"}
    page.route("**/api/teach**", lambda route: route.fulfill(**answers))
    record(page)
    assert page.locator(".review .tile", has_text="…").count() == 63, "not looked at yet"
    button(page).click()
    expect(page.locator(".problem")).to_have_text("The server is busy. Trying again …")
    page.unroute_all()
    expect(page.locator(".result .note")).to_be_visible()


# A saved head


@pytest.fixture
def head_file(tmp_path) -> Path:
    """A personal head that takes each count for the next one."""
    heads = shared_counter().heads
    weights = {name: heads[name] for name in FITTED}
    for name in ("classifier.head.weight", "classifier.head.bias"):
        weights[name] = np.concatenate([np.roll(side, 1, 0) for side in np.split(heads[name], 2)])
    file = tmp_path / "mine.json"
    PersonalHead(weights, shared_counter().sha256, "2026-11-29", Figures(54, 40, 52, 9, 5, 0, True)).save(file)
    return file


def load(page: Page, file: Path) -> None:
    page.locator(".head [type=file]").set_input_files(file)


def test_a_saved_head_is_loaded_kept_switched_off_saved_and_removed(page, head_file, tmp_path):
    open_teach(page)
    head = page.locator(".head")
    expect(head).to_contain_text("None yet. What you teach becomes a small file without any picture.")
    load(page, head_file)
    expect(head).to_contain_text(
        "Of 29 November 2026. Of 54 pictures of a hand, 40 were predicted correctly before, 52 after."
    )
    expect(head).to_contain_text("Of 9 of the room, a hand was seen in 5 before, in 0 after.")
    in_use, kept = head.get_by_label("In use"), head.get_by_label("Keep on this device")
    expect(in_use).to_be_checked()
    expect(kept).not_to_be_checked()
    assert not page.evaluate("Object.keys(localStorage).some((key) => key.includes('personal'))")
    kept.check()
    in_use.uncheck()
    page.reload()
    expect(head).to_contain_text("Of 29 November 2026.")
    expect(in_use).not_to_be_checked()
    expect(kept).to_be_checked()
    with page.expect_download() as download:
        head.get_by_role("button", name="Save file").click()
    download.value.save_as(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == head_file.read_bytes()
    head.get_by_role("button", name="Remove").click()
    expect(head).to_contain_text("None yet.")
    page.reload()
    expect(head).to_contain_text("None yet.")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda head: "not JSON", "This is not a personal head."),
        (lambda head: " " * 2_000_000, "too large for a personal head"),
        (lambda head: json.dumps(head | {"model": "0" * 64}), "made for another model"),
        (lambda head: json.dumps(head | {"weights": {}}), "damaged"),
    ],
    ids=["not JSON", "2 MB", "another model", "damaged"],
)
def test_a_file_that_is_no_personal_head_is_refused_in_words(page, head_file, content, words):
    text = content(json.loads(head_file.read_text()))
    open_teach(page)
    load(page, head_file)
    expect(page.locator(".head .about")).to_contain_text("Of 29 November 2026.")  # it is read while it is on the disk
    head_file.write_text(text)
    load(page, head_file)
    expect(page.locator(".head .wrong")).to_have_text(re.compile(f"mine.json: .*{words}"))
    expect(page.locator(".head .about")).to_contain_text("Of 29 November 2026.")  # the one before is still there


# Without camera and page


@pytest.fixture
def recording_page(component_page):
    open_component(component_page, "recording", f"window.labels = {json.dumps(LABELS)}; window.recording = module")
    return component_page


def test_the_prompts_of_each_choice(recording_page):
    plans = recording_page.evaluate(
        """() => Object.fromEntries(["left", "both", "either"].map((hands) => {
            const one = Object.assign(new recording.Recording(labels), { hands });
            return [hands, one.plan.map(({ key }) => key)];
        }))"""
    )
    assert plans["left"][:3] == ["1 room", "1 0 fingers, left hand", "1 1 finger, left hand"]
    assert len(plans["left"]) == len(plans["either"]) == 1 + 3 * 6
    assert len(plans["both"]) == 1 + 3 * 12
    assert plans["either"][-1] == "3 5 fingers"


def test_targets_are_those_of_python(recording_page):
    targets = recording_page.evaluate(
        """async () => {
            const { encodeTarget } = await import("/labels.js");
            const prompts = [{ fingers: 3, side: "right" }, { fingers: 0, side: "left" }, { fingers: 5 }, {}];
            return prompts.map((prompt) => encodeTarget(prompt, labels));
        }"""
    )
    assert targets == [CLASSES.index("3R"), CLASSES.index("0L"), SIDE_UNKNOWN + 5, SIDE_UNKNOWN + 6]


@pytest.mark.parametrize(
    ("hands", "fingers", "mark"),
    [
        ([(3, [200, 100, 300, 300])], 3, None),
        ([(2, [200, 100, 300, 300])], 3, "other"),
        ([(3, [0, 100, 300, 300])], 3, "cut off"),
        ([(3, [200, 100, 300, 300]), (1, [400, 100, 500, 300])], 3, "several"),
        ([], 3, "none"),
        ([], None, None),
        ([(3, [200, 100, 300, 300])], None, "hand"),
    ],
)
def test_what_is_wrong_with_a_picture(recording_page, hands, fingers, mark):
    seen = recording_page.evaluate(
        """([hands, fingers]) => {
            const prediction = { width: 640, height: 480, hands: hands.map(([count, box]) => {
                const probabilities = Array(12).fill(0);
                probabilities[count] = 1;
                return { box, probabilities };
            }) };
            const prompt = fingers === null ? {} : { fingers, side: "left" };
            return [120, 5].map((brightness) => recording.assess({ ...prediction, brightness }, prompt, labels));
        }""",
        [hands, fingers],
    )
    assert seen[0].get("mark") == mark
    assert seen[1].get("mark") == ("dark" if mark == "none" else mark)
