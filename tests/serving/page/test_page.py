"""What the page shows, and that it can be used by key and on a phone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctxner.schema import Passage, ScoredPassage
from ctxner.texts import as_scored
from serving.settings import ApiKey, hashed
from tests.serving.page.conftest import KEY, TEXT, Site, without_words


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
