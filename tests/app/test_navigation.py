"""From page to page, and what all pages share."""

import pytest

from tests.app.pages import load_page, open_page, texts

PAGES = ("live", "pictures", "videos", "samples", "teach", "evaluation", "about")


def test_live_is_the_first_page():
    page = load_page("navigation").run()
    assert not page.exception
    [component] = page.get("bidi_component")
    assert component.proto.component_name.endswith("handful_live")


@pytest.mark.parametrize("name", PAGES[1:])
def test_a_browser_tab_has_the_title_of_its_page(name, monkeypatch):
    titles = []
    monkeypatch.setattr("streamlit.set_page_config", lambda title=None, **_: titles.append(title))
    page = load_page("navigation").switch_page(f"{name}.py").run()
    assert not page.exception
    assert titles[-1] == f"{name.capitalize()} · Handful"


def test_about_says_what_it_is_what_happens_to_images_and_what_it_cannot_do(monkeypatch):
    page = open_page("about")
    headers = [header.value for header in page.header]
    assert headers == ["Privacy", "What it cannot do", "For developers", "Model card"]
    text = texts(page)
    assert "No image leaves your device" in text
    assert "are processed in its memory and are not stored" in text
    assert "**At most four hands** are counted" in text
    [link] = page.get("link_button")
    assert link.proto.url == "api/docs", "relative: a proxy may serve the app under a path"
    monkeypatch.setenv("SPACE_ID", "someone/handful")
    source = open_page("about").get("link_button")[1]
    assert source.proto.url == "https://huggingface.co/spaces/someone/handful/tree/main"


def test_the_model_card_is_on_the_about_page_without_links_to_files():
    card = next(text.value for text in open_page("about").markdown if "HandDetector" in text.value)
    assert "#### How it works" in card
    assert "](.." not in card
    assert "](https://" in card, "links to the web stay"
