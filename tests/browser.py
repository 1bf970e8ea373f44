"""A Chromium without a window, for tests of pages; skipped where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 800}


@contextmanager
def opened() -> Iterator:
    """-> a browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def page_of(browser, path: Path, *, dark: bool = False, viewport: dict = WIDE) -> Iterator:
    """-> the page of a file; fails for anything that it says to the console or asks a network for."""
    context = browser.new_context(viewport=viewport, color_scheme="dark" if dark else "light")
    context.set_offline(True)
    page, told = context.new_page(), []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or told.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert told == []
