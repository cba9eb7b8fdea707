"""Which view answers and why, with a real tagger behind slow, failing and missing replicas."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError

from ctxner.schema import Example, Sentence
from ctxner.texts import as_scored
from serving.answers import Answer, Trace
from serving.errors import UnavailableError
from serving.routing import Routing
from tests.closeness import assert_close
from tests.serving.conftest import seconds_since
from tests.serving.simulated import run_simulated

pytestmark = pytest.mark.numeric


EXAMPLES = [
    Example(Sentence(str(number), tuple(text.split())))
    for number, text in enumerate(
        ["Paris Hilton sings in London .", "10:30 so ?", "don't @you #think so ?", "Müller in Paris", "London"]
    )
]


def answer(routing: Routing, view: str, *, seconds: float = 20.0, examples: list[Example] = EXAMPLES) -> list[Answer]:
    async def work() -> list[Answer]:
        until = asyncio.get_running_loop().time() + seconds
        given = any(own.passages for own in examples)
        return await routing.answer(examples, view=view, given=given, until=until, trace=Trace())

    return run_simulated(work)


def reasons(found: list[Answer]) -> set[Any]:
    return {own.reason for own in found}


def test_each_view_gives_the_taggers_own_answers(local):
    assert_close(
        [sentence.prediction for sentence in answer(local.routing(), "plain")],
        local.tagger.predict(EXAMPLES, view="plain"),
    )
    found = answer(local.routing(), "context")
    wanted = [Example(own.sentence, as_scored(local.passages(own.sentence))) for own in EXAMPLES]
    assert [own.prediction.tags for own in found] == [own.tags for own in local.tagger.predict(wanted, view="context")]
    assert {own.view for own in found} == {"context"}
    assert reasons(found) == {None}
    assert {own.index for own in found} == {"v1"}


def test_auto_looks_up_exactly_what_the_plain_view_is_unsure_of(local):
    entropies = sorted(own.entropy for own in local.tagger.predict(EXAMPLES, view="plain"))
    threshold = (entropies[1] + entropies[2]) / 2
    wanted = [Example(own.sentence, as_scored(local.passages(own.sentence))) for own in EXAMPLES]
    found = answer(local.routing(threshold=threshold), "auto")
    assert [own.prediction.tags for own in found] == [
        own.tags for own in local.tagger.predict(wanted, view="auto", threshold=threshold)
    ]
    assert sorted(str(own.reason) for own in found) == ["None"] * 3 + ["confident"] * 2


def test_passages_at_hand_are_read_and_nothing_is_looked_up(local):
    given = [Example(EXAMPLES[0].sentence, as_scored(["Paris Hilton is a person ."]))]
    (found,) = answer(local.routing(), "context", examples=given)
    assert_close(found.prediction, local.tagger.predict(given, view="context")[0])
    assert [name for name, _ in local.calls] == ["context"]


def test_sentences_without_hits_are_answered_by_the_plain_view(local):
    local.passages = lambda sentence: [] if sentence.id == "0" else ["London is a place ."]
    found = answer(local.routing(), "context")
    assert [(own.view, own.reason) for own in found] == [("plain", "no_hits")] + [("context", None)] * 4


def test_a_failed_search_of_one_sentence_leaves_the_others_alone(local):
    local.passages = lambda sentence: None if sentence.id == "1" else ["London is a place ."]
    found = answer(local.routing(), "context")
    assert [own.reason for own in found] == [None, "retriever_unavailable", None, None, None]


@pytest.mark.parametrize("view", ["auto", "context"])
def test_a_slow_retriever_never_delays_the_answer(local, view):
    local.seconds["retriever"] = 30
    routing = local.routing(threshold=0.0)
    started = time.perf_counter()
    found = answer(routing, view, seconds=0.5)
    assert seconds_since(started) < 10, "not for 30 s"
    assert {own.view for own in found} == {"plain"}
    assert reasons(found) == {"deadline"}
    assert [own.prediction.tags for own in found] == [own.tags for own in local.tagger.predict(EXAMPLES, view="plain")]


def test_a_slow_context_view_is_not_waited_for_when_there_is_a_deadline(local):
    local.seconds["context"] = 30
    started = time.perf_counter()
    found = answer(local.routing(), "context", seconds=0.5)
    assert seconds_since(started) < 10, "not for 30 s"
    assert reasons(found) == {"deadline"}


def test_a_retriever_known_to_be_slow_is_asked_only_to_learn_how_slow(local):
    local.seconds["retriever"] = 3
    routing = local.routing(threshold=0.0)

    async def work() -> list[str]:
        loop = asyncio.get_running_loop()
        found = []
        for _ in range(5):
            own = await routing.answer(EXAMPLES, view="context", given=False, until=loop.time() + 0.3, trace=Trace())
            found.append(str(own[0].reason))
        return found

    assert run_simulated(work) == ["deadline"] * 5
    assert [name for name, _ in local.calls].count("retriever") <= 2  # that call, and one to learn from


def test_a_retriever_that_is_fast_again_is_noticed(local):
    local.seconds["retriever"] = 2
    routing = local.routing(threshold=0.0)

    async def work() -> list[Any]:
        loop, found = asyncio.get_running_loop(), []
        while len(found) < 100 and None not in found:
            own = await routing.answer(EXAMPLES, view="context", given=False, until=loop.time() + 1, trace=Trace())
            found.append(own[0].reason)
            local.seconds["retriever"] = 0
            await asyncio.sleep(0.1)
        return found

    found = run_simulated(work)
    assert found[0] == "deadline"
    assert found[-1] is None


def test_a_full_queue_and_a_dead_group_have_reasons_of_their_own(local):
    local.errors["retriever"] = BackPressureError(num_queued_requests=1, max_queued_requests=1)
    assert reasons(answer(local.routing(), "context")) == {"overload"}
    local.errors = {"retriever": RayError("died")}
    assert reasons(answer(local.routing(), "context")) == {"retriever_unavailable"}
    local.errors = {"context": RayError("died")}
    assert reasons(answer(local.routing(), "context")) == {"tagger_unavailable"}
    local.errors = {"context": BackPressureError(num_queued_requests=1, max_queued_requests=1)}
    assert reasons(answer(local.routing(), "context")) == {"overload"}
    assert reasons(answer(local.routing(with_retriever=False), "context")) == {"retriever_unavailable"}


def test_without_plain_replicas_those_of_the_context_view_answer_for_them(local):
    local.errors["plain"] = RayError("died")
    found = answer(local.routing(), "plain")
    assert_close([sentence.prediction for sentence in found], local.tagger.predict(EXAMPLES, view="plain"))
    assert local.calls == [("plain", "plain"), ("plain", "plain"), ("context", "plain")]


def test_plain_replicas_that_hang_are_left_alone_until_they_answer(local):
    local.seconds["plain"] = 8
    routing = local.routing()

    async def work() -> list[float]:
        loop, took = asyncio.get_running_loop(), []
        for _ in range(4):
            started = loop.time()
            await routing.answer(EXAMPLES, view="plain", given=False, until=started + 30, trace=Trace())
            took.append(loop.time() - started)
        return took

    took = run_simulated(work)
    assert min(took) < 0.5 <= took[0]
    assert sum(took) < 8, "not waited for"


def test_when_nobody_answers_there_is_an_error_that_says_when_to_come_back(local):
    local.errors = {"plain": RayError("died"), "context": RayError("died")}
    with pytest.raises(UnavailableError) as found:
        answer(local.routing(), "plain")
    assert found.value.retry_after >= 1


def test_a_plain_answer_that_begins_at_the_last_moment_may_still_be_late(local):
    local.seconds |= {"retriever": 5, "plain": 0.5, "context": 0.5}

    async def work() -> None:
        routing, loop = local.routing(), asyncio.get_running_loop()
        started = loop.time()
        found = await routing.answer(EXAMPLES, view="context", given=False, until=started + 1.5, trace=Trace())
        assert {(own.view, own.reason) for own in found} == {("plain", "deadline")}
        assert loop.time() - started > 1.5

    run_simulated(work)


def test_the_context_views_replicas_are_woken_while_the_retriever_starts(local):
    local.seconds["retriever"] = 5

    async def work() -> None:
        routing = local.routing()
        until = asyncio.get_running_loop().time() + 0.2
        found = await routing.answer(EXAMPLES, view="context", given=False, until=until, trace=Trace())
        assert {own.reason for own in found} == {"deadline"}
        assert ("context", "plain") in local.calls

    run_simulated(work)


def test_local_replicas_find_something(local):
    assert any(own.entities for own in local.tagger.predict(EXAMPLES, view="plain"))
