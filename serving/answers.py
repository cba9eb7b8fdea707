"""What replicas give to routing, what routing gives to the service, and how long its stages took."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ctxner.predictor import Prediction
from ctxner.schema import Reason, ScoredPassage
from ctxner.schema import ViewName as View


@dataclass(frozen=True, slots=True)
class Tagged:
    """Answers of a tagger's replica."""

    predictions: Sequence[Prediction]
    model: str


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Passages of a retriever's replica, for each sentence; None where the search failed."""

    passages: Sequence[tuple[ScoredPassage, ...] | None]
    index: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of one sentence, and who says it."""

    prediction: Prediction
    model: str
    view: View
    reason: Reason | None = None
    index: str | None = None


@dataclass
class Trace:
    """Seconds that stages took, for a request; chunks of it overlap, so the longest counts.

    Attributes:
        seconds: By stage.
        latest: Until when a plain answer may be late, by the event loop's clock.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    latest: float = 0.0

    def add(self, stage: str, started: float) -> None:
        """The stage that started then has ended."""
        took = time.perf_counter() - started
        self.seconds[stage] = max(self.seconds.get(stage, 0.0), took)


def counts(answers: Sequence[Answer]) -> tuple[dict[View, int], dict[Reason, int]]:
    """Sentences by view, and by reason."""
    views = Counter(answer.view for answer in answers)
    reasons = Counter(answer.reason for answer in answers if answer.reason)
    return dict(views), dict(reasons)
