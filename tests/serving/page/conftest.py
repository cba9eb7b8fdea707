"""The page in headless Chromium, against a service on a real port."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from serving.settings import ApiKey
from serving.web import make_app
from tests.serving.conftest import Local, make_service
from tests.serving.online import online

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
NO_NETWORK = ("--disable-background-networking", "--disable-component-update")
KEY = "a-key-of-the-tests-1"
TEXT = "👍🏽 Paris Hilton sings in London 👨‍👩‍👧 , Müller 𝔘 in Paris ."


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no browser tests: pip install 'ctxner[browser]'")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no browser tests: no chromium on PATH")
    with playwright.sync_playwright() as own:
        started = own.chromium.launch(executable_path=program, args=[*FLAGS, *NO_NETWORK])
        yield started
        started.close()


class Site:
    """The page of a service, opened; when it is left nothing may have gone wrong or elsewhere."""

    def __init__(self, browser: Any, local: Local, *, keys: tuple[ApiKey, ...] = (), **limits: Any) -> None:
        self.local, self.service = local, make_service(local.routing(), **limits)
        self.app = make_app(self.service, keys)
        self.browser = browser
        self.asked: list[tuple[str, Any]] = []
        self.elsewhere: list[str] = []
        self.errors: list[str] = []

    def __enter__(self) -> Any:
        self.server = online(self.app)
        self.url = self.server.__enter__()
        self.context = self.browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("request", self._requested)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda own: self.errors.append(own.text) if own.type in ("error", "warning") else None)
        self.page.goto(self.url)
        self.until("#served", r"^(?!Asking)")
        return self

    def __exit__(self, *raised: Any) -> None:
        self.context.close()
        self.server.__exit__(None, None, None)
        assert self.elsewhere == []
        if raised[0] is None:
            assert self.errors == []

    def _requested(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:")):
            self.elsewhere.append(request.url)
        if request.method == "POST":
            self.asked.append((request.url, request.post_data_json))

    def tag(self, text: str) -> None:
        self.page.fill("#text", text)
        self.page.click("button[type=submit]")
        self.wait()

    def wait(self) -> None:
        self.until("#status", r"^(?!$|Tagging)")

    def until(self, selector: str, pattern: str) -> None:
        """Wait for a text; Playwright's own `wait_for_function` is code from a string, which the policy forbids."""
        end = time.monotonic() + 20
        while not re.search(pattern, found := self.page.locator(selector).text_content()):
            assert time.monotonic() < end, f"{selector} stays {found!r}"
            self.page.wait_for_timeout(20)

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_text_contents()


def without_words(message: str) -> bool:
    """A browser's own line about an HTTP status; a page cannot keep it from writing it."""
    return not message.startswith("Failed to load resource: the server responded with a status of")
