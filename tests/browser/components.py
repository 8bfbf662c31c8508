"""A small page for one module of assets/browser, without the app around it."""

from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, Route

from benchmarks import ROOT

ORIGIN = "http://component.test"
# As Streamlit sets them, from .streamlit/config.toml.
THEMES = {
    "light": "--st-background-color: #fcfcfa; --st-text-color: #1f2a2a; --st-primary-color: #0f766e",
    "dark": "--st-background-color: #12181a; --st-text-color: #e4eae8; --st-primary-color: #2dd4bf",
}
# A component is in a shadow root, with its CSS.
HTML = """<!doctype html><html lang="en"><title>Component</title>
<body style="{theme}; background: var(--st-background-color)">
<div id="host"><template shadowrootmode="open"><style>{css}</style>
<button>Outside</button><div id="container" style="position: relative; {box}"></div></template></div>"""


def open_component(page: Page, module: str, script: str, box: str = "", theme: str = "light") -> None:
    """Open a page, and run `script` on it after the import of a module, whose exports it finds in `module`.

    Args:
        page: of the browser, whatever it shows.
        module: the name of a file in assets/browser, without ".js"; a CSS file of that name applies.
        script: JavaScript; `container` is an element of the component, `root` its shadow root.
        box: CSS of the container.
        theme: "light" or "dark".
    """
    assets = ROOT / "assets/browser"
    css = assets / f"{module}.css"

    def serve(route: Route) -> None:
        path = urlsplit(route.request.url).path
        if path == "/":
            text = HTML.format(
                css=css.read_text(encoding="utf-8") if css.exists() else "", theme=THEMES[theme], box=box
            )
            route.fulfill(body=text, content_type="text/html")
        else:
            file = Path(assets, path[1:])
            route.fulfill(body=file.read_text(encoding="utf-8"), content_type="text/javascript")

    page.unroute_all()
    page.route(f"{ORIGIN}/**", serve)
    page.goto(ORIGIN)
    page.evaluate(
        f"""async () => {{
            const module = await import("/{module}.js");
            const root = document.querySelector("#host").shadowRoot;
            const container = root.querySelector("#container");
            {script}
        }}"""
    )
