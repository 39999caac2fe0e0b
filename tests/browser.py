"""A headless browser, and the explorer's page in it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from poolwise.explorer.server import application, listening
from poolwise.explorer.source import Source

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 780}


@contextmanager
def launched() -> Iterator[Browser]:
    """The system's Chromium."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@contextmanager
def served(source: Source) -> Iterator[str]:
    """The address of a page that shows a source."""
    with listening(0) as bound:
        port = bound.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(application(source, port), log_level="error", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{port}/"
        server.should_exit = True
        thread.join(10)


class View:
    """One page of the explorer."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)

    def open(self, address: str, state: str = "") -> View:
        self.page.goto("about:blank")
        self.page.goto(f"{address}#{state}" if state else address)
        return self.settle()

    def settle(self) -> View:
        """Wait until what is shown is what was asked for."""
        self.page.wait_for_selector('section.stage[aria-busy="false"]')
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.page.wait_for_selector('section.stage[aria-busy="false"]')
        return self

    def show(self, state: str) -> View:
        """Go to another state by its address."""
        self.page.evaluate("(text) => { location.hash = text; }", state)
        self.page.wait_for_timeout(30)
        return self.settle()

    def facts(self) -> dict[str, str]:
        return self._pairs(".main > .facts div")

    def changes(self) -> dict[str, str]:
        return self._pairs(".changes .facts div")

    def _pairs(self, selector: str) -> dict[str, str]:
        return dict(
            self.page.eval_on_selector_all(
                selector, "(all) => all.map((e) => [e.children[0].textContent, e.children[1].textContent])"
            )
        )

    def formula(self) -> str:
        return self.page.inner_text(".formula")

    def fault(self) -> str:
        return self.page.inner_text(".status")

    def state(self) -> dict[str, str]:
        text: str = self.page.evaluate("location.hash.slice(1)")
        return {name: value for name, _, value in (part.partition("=") for part in text.split("&"))}

    def board(self, number: int) -> Any:
        return self.page.locator(".boards .board").nth(number)

    def press(self, number: int, *keys: str) -> View:
        self.board(number).focus()
        for key in keys:
            self.page.keyboard.press(key)
            self.settle()
        return self
