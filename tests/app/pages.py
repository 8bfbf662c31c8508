"""Run pages without a browser, and look up what they show."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

PAGES = Path(__file__).parents[2] / "pages"


def load_page(name: str) -> AppTest:
    """Return a page that has not run yet."""
    return AppTest.from_file(PAGES / f"{name}.py", default_timeout=60)


def open_page(name: str) -> AppTest:
    """Run a page for the first time."""
    page = load_page(name).run()
    assert not page.exception
    return page


def metric(page: AppTest, label: str = "Fingers") -> str:
    """Return the value of the first metric of that label."""
    return next(metric.value for metric in page.metric if metric.label == label)


def headline(page: AppTest) -> str:
    """Return the headline of the picture that is shown."""
    return next(header.value for header in page.header if re.search(r"\d hands?$|^No hand", header.value))


def texts(page: AppTest) -> str:
    """Return all texts of a page, a line each."""
    return "\n".join(element.value for element in (*page.markdown, *page.caption, *page.warning, *page.error))


def sent_to_the_browser(page: AppTest) -> str:
    """Return the messages of all elements of a page, with their keys and those of the containers around them."""

    def messages(node: Any) -> Iterator[str]:
        yield str(getattr(node, "proto", ""))
        for child in getattr(node, "children", {}).values():
            yield from messages(child)

    return "\n".join(messages(page._tree))


def probability_bars(page: AppTest) -> list[str]:
    """Return the HTML of the probability bars, one for each hand."""
    return [element.body for element in page.html if "bars" in element.body]


def finger_marks(page: AppTest) -> list[str]:
    """Return the accessible labels of the finger marks, one for each hand."""
    return re.findall('aria-label="(raised: .*?)"', "".join(probability_bars(page)))


def file_name(page: AppTest) -> str:
    """Return the name, escaped, of the picture that is shown."""
    return next(match[1] for element in page.html if (match := re.fullmatch('<p class="file">(.*)</p>', element.body)))


def refused(page: AppTest) -> list[tuple[str, str]]:
    """Return the name, escaped, of each refused file, and why."""
    cards = "".join(element.body for element in page.html)
    return re.findall(r'<p class="refused" role="alert"><b>(.*?)</b> (.*?)</p>', cards)
