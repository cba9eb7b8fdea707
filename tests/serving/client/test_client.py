"""The client against the service: what it sends, what it refuses to send, and what it makes of answers."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from ctxner.client import AsyncClient, Client, ClientError
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from serving.web import make_app
from tests.closeness import assert_close
from tests.serving.client.conftest import GOOD, KEY, SECRET, TEXT, inside, scripted
from tests.serving.conftest import make_service, run
from tests.serving.online import online

pytestmark = pytest.mark.numeric


def test_a_reply_is_what_the_tagger_says(local):
    async def work() -> None:
        async with inside(make_service(local.routing())) as client:
            found = await client.tag(TEXT, view="plain")
            (result,) = found.results
            assert result.entities
            for own in result.entities:
                assert TEXT[own.start : own.end] == own.text
                assert 0 <= own.confidence <= 1
            assert found.views == {"plain": len(result.sentences)}
            assert found.versions.model == "plain"
            assert found.timings_ms["total"] > 0
            assert found.request_id
            words = ("Paris", "Hilton", "sings", ".")
            split = await client.tag([words, ["London"]], view="plain")
            wanted = local.tagger.predict([Example(Sentence("0", words))], view="plain")[0]
            assert [own.type for own in split.results[0].entities] == [own.type for own in wanted.entities]
            assert len(split.results) == 2
            several = await client.tag(["London .", TEXT], view="plain")
            for own, alone in zip(several.results[1].entities, result.entities, strict=True):
                assert own == replace(alone, confidence=pytest.approx(alone.confidence, abs=1e-4))
            assert (await client.models())["plain"]["types"] == ["person", "place"]

    run(work)


def test_passages_go_there_and_come_back(local):
    scored = ScoredPassage(Passage("p", "almanac", "London is a place .", "London"), 7.5, 1, 0.25)
    local.passages = lambda sentence: [scored]

    async def work() -> None:
        async with inside(make_service(local.routing())) as client:
            found = await client.tag("London calling .", view="context", return_passages=True)
            (own,) = found.results[0].sentences[0].passages or ()
            assert (own.id, own.source, own.title, own.text) == ("p", "almanac", "London", "London is a place .")
            assert (own.bm25_score, own.rerank_score, own.dropped) == (7.5, 0.25, None)
            assert found.versions.index == "v1"
            given = await client.tag(
                ["London calling .", "Paris"],
                view="context",
                return_passages=True,
                passages=[[{"text": "London is a song .", "title": "Hits"}], ["Paris is a person ."]],
            )
            read = [sentence.passages for result in given.results for sentence in result.sentences]
            assert [(one.title, one.text) for own in read for one in own or ()] == [
                ("Hits", "London is a song ."),
                ("", "Paris is a person ."),
            ]
            one = await client.tag("Paris", view="context", return_passages=True, passages=["Paris is a person ."])
            assert one.results[0].sentences[0].passages == given.results[1].sentences[0].passages
            assert (await client.tag("Paris", view="context")).results[0].sentences[0].passages is None

    run(work)


def test_both_clients_say_the_same_and_the_deadline_reaches_the_server(local):
    local.seconds["retriever"] = 60
    with online(make_app(make_service(local.routing())), force_exit=True) as url, Client(url + "/") as client:
        started = time.perf_counter()
        found = client.tag(TEXT, view="context", deadline_ms=300)
        assert time.perf_counter() - started < 30, "not 60 s"
        assert set(found.reasons) == {"deadline"}

        async def work() -> Any:
            async with AsyncClient(url) as other:
                return (await other.tag(TEXT, view="plain")).results

        assert_close(client.tag(TEXT, view="plain").results, run(work))


def test_a_proxys_page_is_an_error_without_the_page():
    client, _ = scripted(httpx2.Response(502, html=f"<h1>{SECRET}</h1>"), httpx2.Response(200, html=SECRET))
    with client:
        with pytest.raises(ClientError, match="502, http") as caught:
            client.tag(SECRET)
        assert SECRET not in str(caught.value)
        with pytest.raises(ClientError, match="bad_answer") as caught:
            client.tag(SECRET)
        assert SECRET not in str(caught.value)


def test_keys_are_sent_and_a_wrong_one_is_told(local):
    async def work() -> None:
        service = make_service(local.routing())
        async with inside(service, KEY) as client:
            assert (await client.tag("Paris", view="plain")).views == {"plain": 1}
        async with inside(service, KEY[:-1]) as client:
            with pytest.raises(ClientError, match="401, no_key") as caught:
                await client.tag("Paris")
            assert KEY[:-1] not in str(caught.value)
            assert caught.value.request_id

    run(work)


@pytest.mark.parametrize(
    "asked",
    [
        lambda client: client.tag(f"{SECRET} \ud83d"),
        lambda client: client.tag(["fine", f"{SECRET} \udfff"]),
        lambda client: client.tag([[SECRET, "\ud800"]]),
        lambda client: client.tag("fine", passages=[f"{SECRET} \ud83d"]),
        lambda client: list(client.stream(["fine", f"{SECRET} \ud83d"])),
    ],
)
def test_lone_surrogates_are_refused_before_anything_is_sent(asked):
    client, requests = scripted(httpx2.Response(200, json={}))
    with client, pytest.raises(ValueError, match="lone surrogate") as caught:
        asked(client)
    assert SECRET not in str(caught.value)
    assert [own for own in requests if own.method == "POST"] == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda client: client.tag([]), "no texts"),
        (lambda client: client.tag(["Paris", ["London"]]), "mixed"),
        (lambda client: client.tag(["Paris", "London"], passages=[["a"]]), "1 given for 2 texts"),
        (lambda client: client.tag(["Paris"], passages=["a"]), "one list of them per text"),
        (lambda client: Client("localhost:8000"), "http://"),
        (lambda client: Client([]), "http://"),
        (lambda client: Client("http://test", "a key\n"), "ASCII"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked, said):
    client, requests = scripted()
    with client, pytest.raises(ValueError, match=said):
        asked(client)
    assert requests == []


def test_no_log_line_has_texts_or_keys(local, caplog):
    caplog.set_level(logging.DEBUG)
    with online(make_app(make_service(local.routing()))) as url:
        with Client(url, KEY) as client:
            client.tag(SECRET, view="plain")
            list(client.stream([SECRET], view="plain"))
        assert KEY not in repr(client)
    assert caplog.records
    assert not [own for own in caplog.records if SECRET in own.getMessage() or KEY in own.getMessage()]


def test_a_closed_client_says_so_and_its_thread_ends():
    before = threading.active_count()
    client, _ = scripted(httpx2.Response(200, json=GOOD))
    client.tag("Paris")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.tag("Paris")
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_the_client_works_where_a_loop_runs_already(local):
    with online(make_app(make_service(local.routing()))) as url:

        async def work() -> None:
            with Client(url) as client:
                found = await asyncio.to_thread(client.tag, "Paris", view="plain")
                assert_close(client.tag("Paris", view="plain").results, found.results)

        run(work)


def test_importing_the_client_brings_none_of_the_library_with_it():
    code = (
        "import ctxner.client, sys; print(*sorted(name for name in sys.modules if '.' not in name or 'ctxner' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {own for own in loaded if own.startswith("ctxner")} == {
        "ctxner",
        "ctxner.client",
        "ctxner.client.blocking",
        "ctxner.client.http",
        "ctxner.client.messages",
    }
    assert not loaded & {"torch", "ray", "pydantic", "numpy", "pyarrow", "transformers", "serving", "fastapi", "yaml"}
