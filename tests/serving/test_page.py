"""The page: what it shows in a real browser, and that nothing of it comes from or goes anywhere else."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ctxner.schema import Passage, ScoredPassage
from ctxner.texts import as_scored
from serving.api import Reason
from serving.settings import ApiKey, hashed
from serving.web import make_app
from tests.serving.conftest import Local, client_of, make_service, run
from tests.serving.online import online

PAGE = Path(__file__).parents[2] / "serving" / "page"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
NO_NETWORK = ("--disable-background-networking", "--disable-component-update")
KEY = "a-key-of-the-tests-1"
TEXT = "👍🏽 Paris Hilton sings in London 👨‍👩‍👧 , Müller 𝔘 in Paris ."


def test_the_page_is_served_with_a_policy_that_lets_nothing_else_run(local):
    async def work() -> None:
        async with client_of(make_service(local.routing()), [ApiKey(name="k", sha256=hashed(KEY))]) as client:
            for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
                found = await client.get(path)
                assert found.status_code == 200
                assert found.headers["content-type"].startswith(kind)
                policy = found.headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert "*" not in policy
                assert found.headers["x-content-type-options"] == "nosniff"

    run(work)


def test_the_page_names_no_other_address_and_has_no_inline_code():
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    for path in PAGE.iterdir():
        assert not re.search(r"https?:|//[\w-]+\.\w|@import|url\(", path.read_text(encoding="utf-8")), path.name
    assert set(re.findall(r'(?:src|href)="([^"]*)"', html)) == {"data:,", "page.css", "page.js", "#text"}
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|location|history|localStorage", script
    )


# What makes markup, addresses or code of a string, and elements that would.
_MARKUP = re.compile(
    r"(inner|outer)HTML|insertAdjacent|setHTML|createContextualFragment|DOMParser|srcdoc|document\.write|\bFunction\(|eval\("
    r"|\.(href|src|action|formAction|on[a-z]+)\s*=[^=]|import\(|setTimeout\(\s*[\"'`]"
)
_INERT = re.findall(
    r"\w+", "article b code dd details div dl dt h3 h4 li mark ol p span summary table tbody td th thead tr"
)


def _not_text(script: str) -> list[str]:
    """Places of the page's script at which a string may become something else than text."""
    tags = re.findall(r"\b(?:element|written)\(\s*([^,)]+),", script)
    made = [tag for tag in tags if tag.strip('"') not in _INERT and tag not in ("tag", "(tag")]
    classes = re.findall(r"\b(?:element|written)\(\s*\"\w+\",\s*`([^`]*)`", script)
    made += [own for own in classes if re.search(r"\$\{(?!colour\(|difference \?)", own)]
    made += [name for name in re.findall(r"setAttribute\(([^,]*),", script) if name != '"aria-valuetext"']
    created = re.findall(r"createElement\w*\(([^)]*)\)", script)
    return made + [match[0] for match in _MARKUP.finditer(script)] + [own for own in created if own != "tag"]


def test_a_script_in_text_title_or_type_stays_text():
    """Every element is made of a literal tag, and strings are only appended, which makes text nodes of them."""
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    assert _not_text(script) == []
    assert len(re.findall(r"\b(?:element|written)\(", script)) > 40
    for faulty in (
        "made.innerHTML = own.title;",
        'element(own.type, "", own.text);',
        'element("script", "", own.text);',
        'element("mark", `mention ${entity.type}`, entity.text);',
        "link.href = own.id;",
        "document.createElement(entity.type);",
        'made.setAttribute("onclick", own.text);',
    ):
        assert _not_text(f"{script}\n{faulty}"), faulty


def test_the_page_has_words_for_every_reason():
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    block = re.search(r"const REASONS = \{(.*?)\n  \};", script, re.DOTALL)
    assert block
    assert set(re.findall(r"^    (\w+):", block[1], re.MULTILINE)) == set(Reason.__args__)  # type: ignore[attr-defined]


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


def test_a_click_shows_both_views_with_every_mention_exactly_where_it_is(browser, local):
    wanted = {}
    with Site(browser, local) as site:
        site.tag(TEXT)
        bodies = [body for _, body in site.asked]
        assert [(own["view"], own["texts"], own["deadline_ms"]) for own in bodies] == [
            ("plain", [TEXT], None),
            ("context", [TEXT], None),
        ]
        assert TEXT not in site.page.url
        assert {url for url, _ in site.asked} == {f"{site.url}/v1/tag"}
        for view in ("plain", "context"):
            asked = {"texts": [TEXT], "view": view}
            answer = site.page.request.post(f"{site.url}/v1/tag", data=asked).json()
            wanted[view] = answer["results"][0]["entities"]
            assert any(own["start"] > 1 for own in wanted[view]), "nothing after an emoji: the test says nothing"
            shown = site.page.evaluate(
                """(view) => [...document.querySelectorAll(`#${view}-view .text mark`)].map((mark) => {
                    const before = document.createRange();
                    before.setStart(mark.parentNode, 0);
                    before.setEndBefore(mark);
                    const copy = before.cloneContents();
                    copy.querySelectorAll(".label").forEach((label) => label.remove());
                    return [[...copy.textContent].length, mark.querySelector(".w").textContent,
                            mark.querySelector(".label").textContent.trim().split(" ")[0]];
                })""",
                view,
            )
            assert shown == [[own["start"], own["text"], own["type"]] for own in wanted[view]]
            percents = [f"{100 * own['confidence']:.0f}" for own in wanted[view]]
            found = [own.rstrip("%") for own in site.texts(f"#{view}-view .text .confidence")]
            assert [abs(int(a) - int(b)) <= 1 for a, b in zip(found, percents, strict=True)]
            whole = site.page.evaluate(
                """(view) => { const copy = document.querySelector(`#${view}-view .text`).cloneNode(true);
                copy.querySelectorAll(".label").forEach((own) => own.remove()); return copy.textContent; }""",
                view,
            )
            assert whole == TEXT
        stages = site.texts("#context-view .costs dt")
        assert stages[-2:] == ["server, in all", "round trip"]
        assert "look up, re-rank" in stages
        assert all(own.endswith(" ms") for own in site.texts(".costs dd"))
        keys = {view: {(own["start"], own["end"], own["type"]) for own in found} for view, found in wanted.items()}
        for view, other in (("plain", "context"), ("context", "plain")):
            assert site.page.locator(f"#{view}-view .differs").count() == len(keys[view] - keys[other])


def test_ctrl_enter_tags_and_passages_are_shown_with_their_scores(browser, local):
    scored = ScoredPassage(
        Passage("p1", "almanac", "Paris Hilton is <b>a person</b> .", "Paris Hilton"), 12.345, 1, 0.5
    )
    local.passages = lambda sentence: [
        scored,
        replace(scored, passage=Passage("p2", "gazette", "Paris Hilton is a name ."), dropped="below_depth"),
    ]
    with Site(browser, local) as site:
        site.page.fill("#text", "Paris Hilton sings . We like London .")
        site.page.keyboard.press("Control+Enter")
        site.wait()
        assert site.page.locator(".sentence").count() == 2
        first = site.page.locator(".sentence").first
        assert "1 passage read" in first.inner_text()
        assert "Paris Hilton is <b>a person</b> ." in first.inner_text()  # text, never markup
        assert "almanac" in first.inner_text()
        assert "BM25 12.3" in first.inner_text()
        assert "re-rank 0.500" in first.inner_text()
        dropped = first.locator("li.dropped")
        assert not dropped.is_visible()
        first.locator("summary", has_text="1 passage found and not read").click()
        assert "there were enough better ones" in dropped.inner_text()


def test_documents_at_hand_go_to_the_context_view_only(browser, local):
    with Site(browser, local) as site:
        site.page.click("summary:has-text('Documents at hand')")
        site.page.fill("#passages", "Paris is a place .\n it has a river .\n\n \nLondon is a place .\n")
        site.tag("Paris Hilton sings .")
        plain, context = (body for _, body in site.asked)
        assert "passages" not in plain
        assert context["passages"] == [
            [{"text": "Paris is a place .\n it has a river ."}, {"text": "London is a place ."}]
        ]
        assert "Paris is a place" in site.page.inner_text("#sentences")
        assert "BM25" not in site.page.inner_text("#sentences")  # nothing scored them
        assert not any(name == "retriever" for name, _ in local.calls)


def test_the_slider_sets_a_deadline_and_the_page_says_why_the_plain_view_answered(browser, local):
    local.seconds["retriever"] = 30
    with Site(browser, local) as site:
        slider = site.page.locator("#deadline")
        assert slider.get_attribute("aria-valuetext") == "none"
        slider.focus()
        slider.press("Home")
        assert slider.get_attribute("aria-valuetext") == "20 milliseconds"
        slider.press("End")
        slider.press("ArrowLeft")
        assert site.page.inner_text("#chosen") == "5,000 ms"
        for _ in range(48):
            slider.press("ArrowLeft")
        site.page.fill("#text", "Paris Hilton sings .")
        site.page.keyboard.press("Control+Enter")
        site.wait()
        deadline = site.asked[0][1]["deadline_ms"]
        assert [body["deadline_ms"] for _, body in site.asked] == [deadline] * 2
        assert 300 < deadline < 500
        who = site.page.inner_text("#context-view .who")
        assert "The plain view answered the sentence instead" in who
        assert "after the deadline" in who
        assert "the plain view gave both answers" in site.page.inner_text("#compared")


def test_a_key_is_asked_for_kept_for_the_tab_and_sent(browser, local):
    with Site(browser, local, keys=(ApiKey(name="k", sha256=hashed(KEY)),)) as site:
        field = site.page.locator("#key")
        assert field.is_visible()
        assert "wants an API key" in site.page.inner_text("#served")
        site.tag("Paris Hilton sings .")
        assert "wants an API key" in site.page.inner_text("#status")
        site.page.fill("#key", "not-a-kéy-👍")
        field.press("Enter")
        site.until("#status", "not valid")
        site.page.fill("#key", KEY)
        field.press("Enter")
        site.page.wait_for_selector("#context-view .text")
        site.until("#served", "^(?!.*API key)")
        assert KEY not in site.page.url
        site.page.reload()
        site.tag("London .")
        assert not field.is_visible()
        assert "found" in site.page.inner_text("#status")
        site.errors[:] = filter(without_words, site.errors)


@pytest.mark.parametrize(
    ("limits", "text", "said"),
    [
        ({"text_chars": 10}, "Paris Hilton sings .", "Too long for this server: text 0 has 20 characters, at most 10."),
        ({"body_bytes": 100}, "Paris " * 30, "Too long for this server"),
    ],
)
def test_what_the_server_refuses_is_told_in_words(browser, local, limits, text, said):
    with Site(browser, local, **limits) as site:
        site.tag(text)
        assert said in site.page.inner_text("#status")
        assert said in site.page.inner_text("#plain-view .problem")
        site.errors[:] = filter(without_words, site.errors)


def test_rates_overload_broken_answers_and_a_lost_server_are_told_in_words(browser, local):
    key = ApiKey(name="k", sha256=hashed(KEY), requests_per_minute=1)
    with Site(browser, local, keys=(key,)) as site:
        site.page.fill("#key", KEY)
        site.tag("Paris .")
        assert re.search(r"asked too often\. Try again in \d+ seconds?\.", site.page.inner_text("#status"))
        site.errors[:] = filter(without_words, site.errors)
    answers = {
        503: (
            {"error": "overload", "message": "too much is waiting; try again later", "request_id": "r"},
            "too much is waiting. Try again in 7 s",
        ),
        422: ({"error": "invalid", "message": "texts.0: odd", "request_id": "r"}, "cannot take this: texts.0: odd."),
        500: ({"error": "internal", "message": "", "request_id": "r-17"}, "failed (500). Its log knows this as r-17."),
    }
    with Site(browser, local) as site:
        for status, (body, said) in answers.items():
            fulfilled = {"status": status, "json": body, "headers": {"retry-after": "7"}}
            site.page.route("**/v1/tag", partial(lambda own, route: route.fulfill(**own), fulfilled))
            site.tag("Paris .")
            assert said in site.page.inner_text("#status")
        site.page.route("**/v1/tag", lambda route: route.fulfill(status=200, body="<html>"))
        site.tag("Paris .")
        assert "cannot be read" in site.page.inner_text("#status")
        site.page.route("**/v1/tag", lambda route: route.abort())
        site.tag("Paris .")
        assert site.page.inner_text("#status") == "The server cannot be reached."
        site.page.unroute_all()
        site.tag("Paris .")
        assert "found in" in site.page.inner_text("#status")
        site.errors.clear()


def test_one_view_that_fails_leaves_the_others_answer(browser, local):
    with Site(browser, local) as site:
        problem = {"error": "unavailable", "message": "no tagger can answer in time", "request_id": "r"}

        def answer(route: Any) -> None:
            if route.request.post_data_json["view"] == "plain":
                return route.continue_()
            return route.fulfill(status=503, json=problem)

        site.page.route("**/v1/tag", answer)
        site.tag("Paris Hilton sings .")
        assert site.page.inner_text("#plain-view .text").startswith("Paris")
        assert "no tagger can answer" in site.page.inner_text("#context-view .problem")
        assert not site.page.is_visible("#differences")
        assert not site.page.is_visible("#read")
        site.errors[:] = filter(without_words, site.errors)


def test_text_without_words_and_no_text_are_told(browser, local):
    with Site(browser, local) as site:
        site.tag(" \n ")
        assert site.page.inner_text("#status") == "There is no text yet."
        assert site.asked == []
        site.tag("\u200b")
        assert "no word" in site.page.inner_text("#plain-view .who")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_scrolls_sideways_on_a_phone(browser, local, scheme):
    local.passages = lambda sentence: as_scored([Passage("p" * 90, "source" * 20, "x" * 500, "title" * 60)])
    with Site(browser, local) as site:
        site.page.emulate_media(color_scheme=scheme)
        site.page.set_viewport_size({"width": 390, "height": 800})
        site.tag(TEXT + " " + "London" * 60 + " https://t.co/" + "y" * 300)
        for details in site.page.locator("details").all():
            details.evaluate("own => own.open = true")
        assert site.page.evaluate("document.documentElement.scrollWidth") <= 390
        wide = """[...document.querySelectorAll("main *")].filter((own) =>
            own.scrollWidth > own.clientWidth + 1 && getComputedStyle(own).overflowX === "auto").length"""
        assert site.page.evaluate(wide) == 0


def test_tab_reaches_all_there_is_to_use(browser, local):
    with Site(browser, local) as site:
        site.tag("Paris Hilton sings . We like London .")
        usable = "[...document.querySelectorAll('a, summary, textarea, input, button')]"
        wanted = site.page.evaluate(f"{usable}.filter((own) => own.checkVisibility()).length")
        site.page.focus(".skip")
        reached = [0]
        for _ in range(wanted - 1):
            site.page.keyboard.press("Tab")
            reached.append(site.page.evaluate(f"{usable}.indexOf(document.activeElement)"))
        assert -1 not in reached
        assert len(set(reached)) == wanted
        assert reached == sorted(reached)
        assert site.page.locator("#status[role=status]").count() == 1  # spoken when it changes
        unnamed = "[...document.querySelectorAll('textarea, input')].filter((own) => !own.labels.length).length"
        assert site.page.evaluate(unnamed) == 0
