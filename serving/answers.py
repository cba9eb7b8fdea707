"""Results that replicas return to routing and routing returns to the service, and the seconds per stage."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ctxner.predictions import Prediction
from ctxner.schema import Reason, ScoredPassage
from ctxner.schema import ViewName as View


@dataclass(frozen=True, slots=True)
class Tagged:
    """Predictions of a tagger's replica, and the version of its model."""

    predictions: Sequence[Prediction]
    model: str


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Passages for each sentence (None where the search failed), and the version of the replica's index."""

    passages: Sequence[tuple[ScoredPassage, ...] | None]
    index: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The prediction for one sentence, with the view and the versions of the model and the index that gave it."""

    prediction: Prediction
    model: str
    view: View
    reason: Reason | None = None
    index: str | None = None


@dataclass
class Trace:
    """Seconds per stage of a request. Its chunks overlap, so the longest duration of a stage counts.

    Attributes:
        seconds: Duration of each stage, by name.
        latest: Time after which even a late plain answer is refused, by the event loop's clock.
        request: Id of the request, for the log.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    latest: float = 0.0
    request: str | None = None

    def add(self, stage: str, started: float) -> None:
        """Record that a stage has ended; `started` is its start by `time.perf_counter`."""
        took = time.perf_counter() - started
        self.seconds[stage] = max(self.seconds.get(stage, 0.0), took)


def counts(answers: Sequence[Answer]) -> tuple[dict[View, int], dict[Reason, int]]:
    """Numbers of sentences by view, and by reason."""
    views = Counter(answer.view for answer in answers)
    reasons = Counter(answer.reason for answer in answers if answer.reason)
    return dict(views), dict(reasons)
