"""What the page says of refusals, of a lost server, and of texts without words."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest

from serving.settings import ApiKey, hashed
from tests.serving.page.conftest import KEY, Site, without_words


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
