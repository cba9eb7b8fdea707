"""Decides which view answers: the context view if there are passages and enough time, otherwise the plain view.

A request's sentences are answered in chunks. Each step of a chunk has a deadline: passages must come while there is
still time to read them, and the context view must answer while the plain view still could. Calls of replicas are in
`serving.group`, HTTP is in `serving.web`, and the tuned numbers are in `serving.policy`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from ctxner.predictions import Prediction
from ctxner.schema import Example, Reason, ScoredPassage
from serving.admission import most_pieces_of
from serving.answers import Answer, Retrieved, Tagged, Trace
from serving.errors import DownError, OverloadedError, UnavailableError
from serving.group import Group
from serving.latency import Load
from serving.policy import POLICY, Policy

logger = logging.getLogger("ray.serve")


class Routing:
    """Answers sentences with the view that fits the request and its deadline.

    Args:
        plain: Group of the plain view; called with (examples, view, seconds left), returns `Tagged`.
        context: Group of the context view; called in the same way, also for the plain view.
        retriever: Group of the retrievers; called with (sentences, seconds left), returns `Retrieved`. None: no index.
        threshold: `auto` looks a sentence up when the plain view's entropy exceeds this many nats; None: always.
        policy: Tuned numbers.
    """

    def __init__(
        self,
        plain: Group,
        context: Group,
        retriever: Group | None,
        *,
        threshold: float | None,
        policy: Policy = POLICY,
    ) -> None:
        self.plain, self.context, self.retriever, self.threshold = plain, context, retriever, threshold
        self._policy, self.load = policy, Load(policy.half_life_seconds)
        self._exploring: asyncio.Task[None] | None = None
        self._waking: asyncio.Task[Tagged] | None = None

    async def answer(
        self,
        examples: Sequence[Example],
        *,
        view: str,
        given: bool,
        until: float,
        trace: Trace,
        pieces: int | None = None,
    ) -> list[Answer]:
        """Answers in the order of the examples.

        Args:
            examples: Sentences of a chunk; with the caller's passages if `given`.
            view: `plain`, `context` or `auto`.
            given: Whether the caller gave the passages; if so, nothing is looked up.
            until: Deadline of the answer, by the event loop's clock.
            trace: Trace of the request, to which the seconds of each stage are added.
            pieces: Approximate number of pieces of the sentences; None: counted here.

        Raises:
            UnavailableError: No view can answer, not even late by `policy.late_share` of the remaining time.
        """
        if pieces is None:
            pieces = sum(most_pieces_of(example.sentence.words) for example in examples)
        left = max(0.0, until - asyncio.get_running_loop().time())
        trace.latest = max(trace.latest, until + self._policy.late_share * left)  # a late answer is better than none
        self.load.start(pieces)
        try:
            if view == "context":
                return await self._looked_up(examples, None, given, until, trace)
            plain = await self._plain(examples, until, trace)
            if view == "plain":
                return plain
            assert self.threshold is not None, "without one all are looked up"
            unsure = [place for place, answer in enumerate(plain) if answer.prediction.entropy > self.threshold]
            answers = [
                answer if answer.prediction.entropy > self.threshold else _because(answer, "confident")
                for answer in plain
            ]
            if unsure:
                unsure_examples = [examples[place] for place in unsure]
                better = await self._looked_up(unsure_examples, [plain[place] for place in unsure], given, until, trace)
                for place, answer in zip(unsure, better, strict=True):
                    answers[place] = answer
            return answers
        finally:
            self.load.end(pieces)

    async def _looked_up(
        self, examples: Sequence[Example], plain: list[Answer] | None, given: bool, until: float, trace: Trace
    ) -> list[Answer]:
        """Answers of the context view, or of the plain view for sentences that the context view cannot answer."""
        index, reason = None, None
        passages: Sequence[tuple[ScoredPassage, ...] | None] = [example.passages for example in examples]
        if not given:
            retrieved, reason = await self._retrieve(examples, plain is None, until, trace)
            if retrieved is not None:
                passages, index = retrieved.passages, retrieved.index
        if reason is not None:
            return await self._instead(examples, plain, [reason] * len(examples), until, trace)
        readable = [any(scored.dropped is None for scored in passage or ()) for passage in passages]
        reasons: list[Reason | None] = [
            None if ok else ("no_hits" if passage is not None else "retriever_unavailable")
            for ok, passage in zip(readable, passages, strict=True)
        ]
        places = [place for place, ok in enumerate(readable) if ok]
        rest = [place for place, ok in enumerate(readable) if not ok]
        with_passages = [replace(examples[place], passages=passages[place] or ()) for place in places]

        def own_plain(wanted: Sequence[int]) -> list[Answer] | None:
            return None if plain is None else [plain[place] for place in wanted]

        answers = await asyncio.gather(
            self._in_context(with_passages, own_plain(places), index, until, trace),
            self._instead(
                [examples[place] for place in rest], own_plain(rest), [reasons[place] for place in rest], until, trace
            ),
        )
        by_place = dict(zip([*places, *rest], [*answers[0], *answers[1]], strict=True))
        return [by_place[place] for place in range(len(examples))]

    async def _retrieve(
        self, examples: Sequence[Example], without_plain: bool, until: float, trace: Trace
    ) -> tuple[Retrieved | None, Reason | None]:
        """Passages and None, or None and the reason why there are no passages."""
        if self.retriever is None:
            return None, "retriever_unavailable"
        num, loop = len(examples), asyncio.get_running_loop()
        after = self.context.latency.expected(num)
        budget = (
            until
            - self._policy.margin_seconds
            - (max(after, self.plain.latency.expected(num)) if without_plain else after)
        )
        sentences = [example.sentence for example in examples]
        if loop.time() + self.retriever.latency.expected(num) > budget and not self.retriever.is_down:
            self._explore(examples)
            return None, "deadline"
        started = time.perf_counter()
        try:
            return await self.retriever.call(num, sentences, budget - loop.time(), until=budget), None
        except TimeoutError:
            self._wake(examples)
            return None, "deadline"
        except OverloadedError:
            return None, "overload"
        except DownError:
            self._wake(examples)
            return None, "retriever_unavailable"
        finally:
            trace.add("retrieve", started)

    def _wake(self, examples: Sequence[Example]) -> None:
        """Call the context view if it may be scaled to zero, so that it starts at the same time as the retriever."""
        now = asyncio.get_running_loop().time()
        if self._waking is None and now - self.context.answered > self._policy.asleep_seconds:
            bare, until = [Example(examples[0].sentence)], now + self._policy.explore_seconds
            self._waking = asyncio.ensure_future(
                self.context.call(1, bare, "plain", self._policy.explore_seconds, until=until)
            )
            self._waking.add_done_callback(self._woken)

    def _woken(self, task: asyncio.Task[Tagged]) -> None:
        self._waking = None
        if not task.cancelled():
            task.exception()  # its failure matters only when a request needs the view

    def _explore(self, examples: Sequence[Example]) -> None:
        """Retrieve and tag a chunk that no request waits for, to update the latency estimates; one chunk at a time."""
        if self._exploring is None:
            self._exploring = asyncio.ensure_future(self._look_up_in_vain(examples))
            self._exploring.add_done_callback(self._explored)

    async def _look_up_in_vain(self, examples: Sequence[Example]) -> None:
        assert self.retriever is not None
        num, until = len(examples), asyncio.get_running_loop().time() + self._policy.explore_seconds
        retrieved: Retrieved = await self.retriever.call(
            num, [example.sentence for example in examples], self._policy.explore_seconds, until=until
        )
        with_passages = [
            replace(example, passages=read or ()) for example, read in zip(examples, retrieved.passages, strict=True)
        ]
        await self.context.call(num, with_passages, "context", self._policy.explore_seconds, until=until)

    def _explored(self, task: asyncio.Task[None]) -> None:
        self._exploring = None
        if not task.cancelled():
            task.exception()  # the result is not needed; the call only updated the latency estimates

    async def _in_context(
        self, examples: Sequence[Example], plain: list[Answer] | None, index: str | None, until: float, trace: Trace
    ) -> list[Answer]:
        """The context view's answers if they come in time, else the plain view's."""
        if not examples:
            return []
        loop, num, started = asyncio.get_running_loop(), len(examples), time.perf_counter()
        end = until - self._policy.margin_seconds
        task = asyncio.ensure_future(
            self.context.call(num, examples, "context", max(0.0, until - loop.time()), until=end)
        )
        instead: asyncio.Future[list[Answer]] | None = None
        try:
            if plain is None:
                latest = end - self.plain.latency.expected(num)
                await asyncio.wait({task}, timeout=max(0.0, latest - loop.time()))
                if not task.done():
                    instead = asyncio.ensure_future(self._plain(examples, until, trace))
            try:
                tagged: Tagged = await task
            except (TimeoutError, OverloadedError, DownError) as error:
                reason: Reason = "tagger_unavailable"
                if isinstance(error, (TimeoutError, OverloadedError)):
                    reason = "deadline" if isinstance(error, TimeoutError) else "overload"
                answers = plain if plain is not None else await (instead or self._plain(examples, until, trace))
                instead = None
                return [_because(answer, reason) for answer in answers]
            finally:
                trace.add("context", started)
        finally:
            task.cancel()
            if instead is not None:
                instead.cancel()
                instead.add_done_callback(lambda task: task.cancelled() or task.exception())
        return [_read(prediction, tagged.model, index) for prediction in tagged.predictions]

    async def _instead(
        self,
        examples: Sequence[Example],
        plain: list[Answer] | None,
        reasons: Sequence[Reason | None],
        until: float,
        trace: Trace,
    ) -> list[Answer]:
        if not examples:
            return []
        answers = plain if plain is not None else await self._plain(examples, until, trace)
        return [_because(answer, reason) for answer, reason in zip(answers, reasons, strict=True)]

    async def _plain(self, examples: Sequence[Example], until: float, trace: Trace) -> list[Answer]:
        """The plain view's answers, from its replicas or, if those do not answer, from those of the context view."""
        loop, num, started = asyncio.get_running_loop(), len(examples), time.perf_counter()
        bare = [Example(example.sentence) for example in examples]
        left = max(until - loop.time(), 0.0)
        latest = max(trace.latest, until)
        patience = min(
            max(self._policy.patience_seconds, 2 * self.plain.latency.expected(num)),
            max(left / 2, self._policy.margin_seconds),
        )
        asked = loop.time()

        def ask(group: Group) -> asyncio.Task[Tagged]:
            seconds = latest - loop.time()
            return asyncio.ensure_future(group.call(num, bare, "plain", seconds, until=latest))

        first, is_failure = ask(self.plain), False
        waiting = {first}
        try:
            while not first.done() and (rest := max(asked, self.plain.answered) + patience - loop.time()) > 0:
                await asyncio.wait(waiting, timeout=rest)
            if not first.done() or first.exception():
                waiting.add(ask(self.context))
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if error := task.exception():
                        # The error's message may contain the caller's text, so only its type is logged.
                        extra = {"request": trace.request, "kind": type(error).__name__}
                        logger.warning("a tagger does not answer", extra=extra)
                        is_failure |= not isinstance(error, (TimeoutError, OverloadedError))
                    else:
                        tagged = task.result()
                        if task is not first and not first.done():
                            self.plain.mark_down()
                        return [Answer(prediction, tagged.model, "plain") for prediction in tagged.predictions]
        finally:
            trace.add("plain", started)
            for task in waiting:
                task.cancel()
                task.add_done_callback(lambda done: done.cancelled() or done.exception())
        message, retry_after = "no tagger can answer in time", max(1.0, self.load.seconds(0))
        raise UnavailableError(message, retry_after, is_failure=is_failure)


def _because(answer: Answer, reason: Reason | None) -> Answer:
    return replace(answer, reason=reason)


def _read(prediction: Prediction, model: str, index: str | None) -> Answer:
    """An answer of the context view; its prediction says `plain` and gives a reason if no passage fitted."""
    return Answer(prediction, model, prediction.view, prediction.reason, index)
