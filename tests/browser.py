"""Headless Chromium for tests of pages, which are skipped without it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 800}


@contextmanager
def opened() -> Iterator:
    """-> a browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def page_of(browser, path: Path, *, dark: bool = False, viewport: dict = WIDE) -> Iterator:
    """-> the page of a file. Fails for messages on the console and for requests to a network."""
    context = browser.new_context(viewport=viewport, color_scheme="dark" if dark else "light")
    context.set_offline(True)
    page, messages = context.new_page(), []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or messages.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert messages == []
