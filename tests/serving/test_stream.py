"""`/v1/tag/stream` over a real port: answers come while lines are still sent, none is lost, and few are held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from serving.bodies import lines_of
from serving.streams import stream
from serving.web import make_app
from serving.work import Work
from tests.serving.conftest import make_service, run
from tests.serving.online import online
from tests.serving.simulated import run_simulated
from tests.serving.streaming import Connection, line


def test_each_line_is_answered_before_the_next_is_sent(local):
    with online(make_app(make_service(local.routing()))) as url:

        async def work() -> None:
            connection = await Connection.to(url)
            for number in range(5):
                await connection.send(line("Paris " * (number + 1)))
                if not number:
                    assert b"200 OK" in await asyncio.wait_for(connection.head(), 5)
                found = await asyncio.wait_for(connection.line(), 5)
                assert found["sentences"][0]["end"] == 6 * (number + 1) - 1
            assert await asyncio.wait_for(connection.rest(), 5) == []

        run(work)


def test_no_line_of_a_body_that_comes_in_pieces_is_lost(local):
    with online(make_app(make_service(local.routing()))) as url:

        async def work() -> None:
            connection = await Connection.to(url)
            body = b"".join(line("a" * (number + 1)) for number in range(200))
            for start in range(0, len(body), 700):
                await connection.send(body[start : start + 700])
                await asyncio.sleep(0.01)
            await connection.head()
            found = await asyncio.wait_for(connection.rest(), 20)
            assert [own["sentences"][0]["end"] for own in found] == list(range(1, 201))

        run(work)


def test_a_client_that_goes_away_ends_its_lines_and_is_no_failure(local, caplog):
    local.seconds["plain"] = 0.2
    service = make_service(local.routing())
    with online(make_app(service)) as url, caplog.at_level("INFO", logger="ray.serve"):

        async def work() -> None:
            connection = await Connection.to(url)
            await connection.send(line("Paris") * 10 + b'{"text": "Lon')
            connection.writer.close()
            for _ in range(200):
                if any(own.message == "access" for own in caplog.records):
                    return
                await asyncio.sleep(0.02)

        run(work)
    assert [own.status for own in caplog.records if own.message == "access"] == [499]
    assert not [own for own in caplog.records if own.levelname == "ERROR"]
    assert service.room.held == 0


def test_lines_wait_while_many_are_in_work(local):
    local.seconds["plain"] = 0.2
    service = make_service(local.routing())
    taken, most = 0, 0

    async def lines() -> AsyncIterator[list[bytes]]:
        nonlocal taken
        for number in range(300):
            taken += 1
            yield [line("a" * (number + 1)) + b"\n" * (number % 2)]

    async def work() -> None:
        nonlocal most
        found = 0
        async for part in stream(service, lines()):
            for own in part.splitlines():
                most = max(most, taken - found)
                found += 1
                assert json.loads(own)["sentences"][0]["end"] == found
        assert found == 300

    run_simulated(work)
    assert 60 <= most <= 66, f"{most} lines are held"


def test_bounds_hold_for_each_line_and_for_all_of_them(local):
    service = make_service(local.routing(), lines=4, sentences=2, line_bytes=200)

    async def lines() -> AsyncIterator[bytes]:
        for own in ("Paris .", "One . Two . Three .", "x" * 300, "London", "Müller", "never"):
            yield line(own)

    async def work() -> list[str | None]:
        parts = [part async for part in stream(service, lines_of(lines(), service.limits))]
        return [json.loads(own).get("error") for own in b"".join(parts).splitlines()]

    assert run(work) == [
        None,
        "3 sentences, at most 2",
        "a line of more than 200 bytes",
        None,
        "more than 4 lines",
    ]


def test_lines_that_came_together_are_tagged_together(local):
    """Before, each line was a call: it cost the router as much as the tagger."""
    service, calls = make_service(local.routing()), []
    answers = service.answers

    async def counted(work: Work, *arguments: Any) -> Any:
        calls.append(len(work.texts))
        return await answers(work, *arguments)

    service.answers = counted  # type: ignore[method-assign]
    body = [line(f"{'Paris ' * number}London") for number in range(1, 41)] + [
        b"[]\n",
        line("London", view="context"),
    ] * 2

    async def parts() -> AsyncIterator[bytes]:
        yield b"".join(body)

    async def work() -> list[dict[str, Any]]:
        found = b"".join([part async for part in stream(service, lines_of(parts(), service.limits))])
        return [json.loads(own) for own in found.splitlines()]

    found = run(work)
    assert sorted(calls) == [2, 8, 32]
    assert [own["sentences"][0]["end"] for own in found[:40]] == [6 * number + 6 for number in range(1, 41)]
    assert [own.get("code") for own in found[40:]] == ["invalid", None] * 2


def test_a_line_that_cannot_be_tagged_fails_alone(local, monkeypatch):
    predict = type(local.tagger).predict

    def fragile(own: Any, examples: Any, **how: Any) -> Any:
        if any("poison" in example.sentence.words for example in examples):
            raise RuntimeError("cannot")
        return predict(own, examples, **how)

    monkeypatch.setattr(type(local.tagger), "predict", fragile)
    service = make_service(local.routing())

    async def parts() -> AsyncIterator[bytes]:
        yield b"".join(map(line, ["London", "Paris", "poison", "Rome"]))

    async def work() -> list[Any]:
        found = b"".join([part async for part in stream(service, lines_of(parts(), service.limits))])
        return [json.loads(own).get("code") for own in found.splitlines()]

    assert run(work) == [None, None, "unavailable", None]


def test_lines_that_are_late_together_are_not_tried_one_by_one(local):
    """Before, each of the 8 was called by itself once more, in a server that had no time as it was."""
    local.seconds = {"plain": 2.0, "context": 2.0}
    service = make_service(local.routing())

    async def parts() -> AsyncIterator[bytes]:
        yield b"".join(line("London", deadline_ms=100) for _ in range(8))

    async def work() -> list[Any]:
        found = b"".join([part async for part in stream(service, lines_of(parts(), service.limits))])
        return [json.loads(own).get("code") for own in found.splitlines()]

    assert run_simulated(work) == ["overload"] * 8
    assert sorted(local.calls) == [("context", "plain"), ("plain", "plain")]


@pytest.mark.parametrize("num_failures", [1, 24])
def test_a_replica_that_dies_in_a_stream_leaves_an_answer_or_an_error_per_line(local, num_failures, monkeypatch):
    """One death is nobody's matter: another replica is asked. While none answers, each line says so; none is lost."""
    num_calls, enter = 0, local._enter

    async def dying(name: str, view: str) -> None:
        nonlocal num_calls
        num_calls += 1
        if 3 <= num_calls < 3 + num_failures:
            raise ActorDiedError
        await enter(name, view)

    monkeypatch.setattr(local, "_enter", dying)
    service = make_service(local.routing(with_retriever=False))
    with online(make_app(service)) as url:

        async def work() -> list[dict[str, Any]]:
            connection = await Connection.to(url)
            answers = []
            for number in range(10):
                await connection.send(line(f"{'Paris ' * number}London") * 3)
                if not number:
                    await connection.head()
                answers += [await asyncio.wait_for(connection.line(), 20) for _ in range(3)]
            assert await asyncio.wait_for(connection.rest(), 20) == []
            return answers

        answers = run(work)
    failed = [number for number, answer in enumerate(answers) if "error" in answer]
    print(f"\n{num_failures} failures: lines {failed} say so")
    assert len(answers) == 30
    assert {answers[number]["code"] for number in failed} <= {"unavailable"}
    assert bool(failed) == (num_failures > 1)
    assert not set(failed) & {*range(6), *range(24, 30)}, "before the deaths and after them"
    ends = [answer["sentences"][0]["end"] for answer in answers if "error" not in answer]
    assert ends == [6 * (number // 3) + 6 for number in range(30) if number not in failed]
    assert service.requests.held == service.held.bytes == 0
