"""A browser, whose console and requests are watched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.dashboard.pages import CHROMIUM, FLAGS, TAB, Open


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is absent")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Open]:
    """Open an address; returns the frame of the tab. What goes wrong in it fails the test."""
    wrong: list[str | None] = []
    context = browser.new_context(viewport={"width": 1600, "height": 1100})

    def watch(page: Any) -> None:
        tell = wrong.append
        page.on("console", lambda message: tell(_error(message)))
        page.on("pageerror", lambda error: tell(str(error)))
        page.on("dialog", lambda dialog: tell(dialog.message))
        page.on("requestfailed", lambda request: tell(_failure(request)))
        page.on("request", lambda request: tell(_far(request)))

    def opened(address: str) -> Any:
        page = context.new_page()
        watch(page)
        page.goto(address)
        frame = page.wait_for_selector(TAB, state="attached", timeout=60_000).content_frame()
        frame.wait_for_url("**/plugin_entry.html?name=boxscore")
        return frame

    yield opened
    context.close()
    assert [found for found in wrong if found] == []


def _error(message: Any) -> str | None:
    return str(message.text) if message.type == "error" else None


def _failure(request: Any) -> str | None:
    """A request that failed, unless the page itself gave it up."""
    return None if "ERR_ABORTED" in (request.failure or "") else f"{request.url} failed"


def _far(request: Any) -> str | None:
    """A request that left this machine."""
    local = request.url.startswith(("http://127.0.0.1:", "data:", "blob:"))
    return None if local else str(request.url)
