"""The visitor's personal head in the browser: its store, its switch, and what is predicted with it."""

import json
import re
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from benchmarks import ROOT
from tests.browser.actions import TIMEOUT_MS, headline, open_live, total
from tests.browser.components import open_component
from tests.browser.test_live import start
from tests.builders import counting_on
from web.browser_camera import heads_data

TEXT = counting_on().to_json()
STORED = "localStorage.getItem('handful-personal')"


def use(page: Page, text: str = TEXT, keep: bool = False) -> None:
    """Use a head from now on, as Teach does."""
    page.evaluate(
        "async ([text, keep]) => (await import('/browser/personal.js')).use(text, { keep })",
        [text, keep],
    )


def switch(page: Page):
    return page.get_by_role("switch", name="Personal head of 30 Nov")


def places(page: Page) -> list:
    """Return where the parts of Live are."""
    parts = (".picture", ".settings", ".personal", ".total", ".words", ".hint", ".bars", ".chart", ".extras")
    return [page.locator(f".live {part}").bounding_box() for part in parts]


# The store


def in_store(page: Page, script: str, **arguments) -> object:
    """Run a script after `connect`, in a page with the store alone; its exports are in `store`."""
    open_component(page, "personal", "window.store = module;")
    return page.evaluate(
        f"({{ heads, ...given }}) => {{ store.connect(heads); {script} }}", {"heads": heads_data(), **arguments}
    )


def changed(**fields) -> str:
    return json.dumps(json.loads(TEXT) | fields)


def with_bias(values: list) -> str:
    return changed(weights=json.loads(TEXT)["weights"] | {"classifier.head.bias": values})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a personal head"),
        ("null", "not a personal head"),
        ("[1, 2]", "not a personal head"),
        ('{"handful": "a recording"}', "not a personal head"),
        (TEXT[:-50], "not a personal head"),
        (" " * 200_000, "too large"),
        (changed(model="0" * 64), "made for another model"),
        (changed(model=None), "made for another model"),
        (changed(weights=None), "damaged"),
        (changed(figures={"hands": 3}), "damaged"),
        (changed(date="<script>"), "damaged"),
        (changed(date="2026-13-01"), "damaged"),
        (with_bias([0.0] * 13), "damaged"),
        (with_bias(["1"] * 12), "damaged"),
        (with_bias([1e30] * 12), "damaged"),
        (with_bias([[0.0]] * 12), "damaged"),
        (with_bias([None] * 12), "damaged"),
        (re.sub(r'(presence.bias":).*?]', r"\1[1e999]", TEXT), "damaged"),
    ],
    ids=range(18),
)
def test_what_is_no_personal_head_of_this_model_is_refused_in_words(component_page, text, words):
    script = "try { store.use(given.text) } catch (error) { return [error.message, store.current()] }"
    message, current = in_store(component_page, script, text=text)
    assert re.search(words, message)
    assert current is None


def test_the_store_tells_of_each_change_and_keeps_a_head_only_on_request(component_page):
    calls, kept, gone, off, removed = in_store(
        component_page,
        """
        let calls = 0;
        const unsubscribe = store.subscribe(() => calls++);
        const item = () => localStorage.getItem("handful-personal");
        store.use(given.text);
        const before = item();
        store.keep(true);
        const kept = JSON.parse(item());
        store.turnOff();
        const off = [store.active(), Boolean(store.current()), store.isOn(), JSON.parse(item()).on];
        store.keep(false);
        const gone = [before, item()];
        store.keep(true);
        store.remove();
        const removed = [store.current(), store.isKept(), item()];
        unsubscribe();
        store.use(given.text);
        return [calls, kept, gone, off, removed];
        """,
        text=TEXT,
    )
    assert calls == 6
    assert kept == {"text": TEXT, "on": True}
    assert off == [None, True, False, False]
    assert gone == [None, None]
    assert removed == [None, False, None]


def test_without_local_storage_a_head_lasts_as_long_as_the_page(component_page):
    is_kept, name = in_store(
        component_page,
        """
        Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError") };
        store.use(given.text, { keep: true });
        return [store.isKept(), store.name()];
        """,
        text=TEXT,
    )
    assert (is_kept, name) == (False, "Personal head of 30 Nov")


# The pages


@pytest.mark.parametrize("way", ["browser", "server"])
def test_live_predicts_with_the_head_while_it_is_on_and_nothing_moves(page, runtime, way):
    """The head counts one more than the shipped one."""
    open_live(page, f"/?read={way}")
    expect(switch(page)).to_be_hidden()
    start(page)
    expect(total(page)).to_have_text("3")
    use(page, keep=True)
    expect(total(page)).to_have_text("4")
    before = places(page)
    switch(page).click()
    expect(total(page)).to_have_text("3")
    assert places(page) == before
    switch(page).click()
    expect(total(page)).to_have_text("4")
    # As it was, after a reload.
    switch(page).click()
    page.reload()
    start(page)
    expect(total(page)).to_have_text("3")
    expect(switch(page)).not_to_be_checked()
    switch(page).click()
    expect(total(page)).to_have_text("4")


def test_on_the_device_a_head_is_turned_off_and_on_without_a_pause(page, runtime):
    """No session is created for it, which would take the time of many frames."""
    code = (ROOT / "assets/browser/worker.js").read_text(encoding="utf-8")
    create = "ort.InferenceSession.create("
    counted = code.replace(
        create, f"(globalThis.created = (globalThis.created ?? 0) + 1, ort.InferenceSession).{create[21:]}"
    )
    page.route("**/worker.js", lambda route: route.fulfill(body=counted, content_type="text/javascript"))
    open_live(page, "/?read=browser")
    start(page)
    use(page)
    expect(total(page)).to_have_text("4")
    [worker] = page.workers
    before = worker.evaluate("created")
    for number in "343":
        switch(page).click()
        expect(total(page)).to_have_text(number)
    assert worker.evaluate("created") == before == 2
    # Another head is predicted with, too.
    use(page, counting_on(2).to_json())
    expect(total(page)).to_have_text("5")


def test_two_visitors_at_once_have_their_own_heads_and_a_third_none(browser, address):
    """All on the server."""
    pages = [browser.new_page(base_url=address) for _ in range(3)]
    try:
        for page, text in zip(pages, (TEXT, counting_on(2).to_json(), ""), strict=True):
            page.set_default_timeout(TIMEOUT_MS)
            open_live(page, "/?read=server")
            if text:
                use(page, text)
            start(page)
        for _ in range(3):
            for page, number in zip(pages, "453", strict=True):
                expect(total(page)).to_have_text(number)
                page.wait_for_timeout(200)
    finally:
        for page in pages:
            page.close()


def test_a_head_that_the_server_refuses_is_said_in_words_and_can_be_turned_off(page):
    open_live(page, "/?read=server")
    use(page)
    page.context.route(
        "**/api/live?*personal=*",
        lambda route: route.continue_(url=re.sub("personal=..", "personal=00", route.request.url)),
    )
    start(page)
    expect(page.get_by_text("This personal head was made for another model.")).to_be_visible()
    switch(page).click()
    expect(total(page)).to_have_text("3")


def test_pictures_are_predicted_with_the_head_that_was_taught_on_another_page(page):
    open_live(page, "/?read=server")
    use(page)
    page.get_by_role("link", name="Pictures").click()
    expect(switch(page)).to_be_checked()
    page.locator("input[type=file]").first.set_input_files(ROOT / "assets/samples/3L_0.jpg")
    expect(headline(page)).to_have_text("4 fingers · 1 hand")
    switch(page).click()
    expect(headline(page)).to_have_text("3 fingers · 1 hand")
    page.get_by_role("link", name="Videos").click()
    expect(page.get_by_role("heading", name="Videos")).to_be_visible()
    expect(switch(page)).not_to_be_checked()
    # It was not kept.
    page.reload()
    expect(page.get_by_role("heading", name="Videos")).to_be_visible()
    expect(page.get_by_role("switch", name="Heatmap")).to_be_visible()
    expect(switch(page)).to_be_hidden()


def test_a_kept_head_of_another_model_is_not_used_and_says_so(page):
    text = replace(counting_on(), model="0" * 64).to_json()
    page.add_init_script(f"localStorage.setItem('handful-personal', {json.dumps(json.dumps({'text': text}))})")
    open_live(page, "/?read=server")
    expect(page.get_by_role("link", name="Personal head cannot be used")).to_have_attribute("href", "teach")
    expect(switch(page)).to_be_hidden()
    start(page)
    expect(total(page)).to_have_text("3")
    assert page.evaluate(STORED), "another version of the app may know its model"
