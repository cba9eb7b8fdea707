"""The tagger: a model that tags batches in a separate thread, so that the event loop is never blocked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from ctxner.predictions import Prediction
from ctxner.predictor import Tagger
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from serving.admission import pieces_of, pieces_read
from serving.answers import Tagged
from serving.batching import Batcher, Item
from serving.meters import BatchMeter
from serving.policy import CHECKS
from serving.replicas.shared import listen_on_loopback, model_thread, shown
from serving.settings import ServeSettings, model_version


class TaggerReplica:
    """Tags sentences with one model, batch by batch.

    Args:
        model: Model folder or hub id.
        settings: Settings of the application.
        release: Versions of what is served; not read, but a new value makes Serve roll in new replicas.
    """

    def __init__(self, model: str, settings: dict[str, Any], release: str) -> None:
        listen_on_loopback()
        serve_settings = ServeSettings(**settings)
        self.thread = model_thread(serve_settings)
        self.tagger = self.thread.submit(self._load, model, serve_settings).result()
        self.batch_pieces, self.max_pieces = serve_settings.batch_pieces, self.tagger.model.config.max_pieces
        self.predict = Batcher(self._predict, serve_settings.batch_pieces, self.thread)
        self.model, self.version = model, model_version(model)
        self.meter = BatchMeter()
        self.checks = [Example(Sentence(str(n), tuple(text.split()))) for n, text in enumerate(CHECKS)]
        self.known = self.thread.submit(self._warm).result()

    def _load(self, model: str, serve_settings: ServeSettings) -> Tagger:
        tagger = Tagger.from_pretrained(model, device=serve_settings.device, precision=serve_settings.precision)
        for weights in (*tagger.model.parameters(), *tagger.model.buffers()):
            weights.data = weights.data.clone()  # overwriting a memory-mapped file would crash the process
        return tagger

    def _warm(self) -> list[Sequence[str]]:
        """Tags of the check sentences; tags batches of several sizes first, to allocate memory and choose kernels."""
        filler = tuple(Passage(str(n), "", " ".join(CHECKS) * 8) for n in range(6))
        read = tuple(ScoredPassage(sentence, 0.0, n) for n, sentence in enumerate(filler, start=1))
        for batch in (1, 4, 1):
            self.tagger.predict([Example(check.sentence, read) for check in self.checks] * batch, view="context")
        return self._tags()

    def _tags(self) -> list[Sequence[str]]:
        return [prediction.tags for prediction in self.tagger.predict(self.checks, view="plain")]

    async def check_health(self) -> None:
        """Check that the model tags the check sentences as it did when it was loaded.

        Raises:
            RuntimeError: The tags differ.
        """
        if await asyncio.get_running_loop().run_in_executor(self.thread, self._tags) != self.known:
            raise RuntimeError(f"{self.model}: tags the same sentences otherwise than when it was loaded")

    async def tag(self, examples: Sequence[Example], view: str, seconds: float) -> Tagged:
        """Predictions of one view.

        Args:
            examples: Sentences, with passages for the context view.
            view: `plain` or `context`.
            seconds: Time after which the predictions are of no use.

        Raises:
            TimeoutError: A batch of the examples did not start in time.
        """
        until = time.time() + seconds
        items = [Item((chunk, view), size, until) for chunk, size in self._chunks(examples, view)]
        predictions: list[Prediction] = []
        for chunk in await asyncio.gather(*(self.predict(item) for item in items)):
            if chunk is None:
                raise TimeoutError
            predictions += chunk
        return Tagged(predictions, self.version)

    async def describe(self) -> dict[str, Any]:
        """Name of the model's folder or its id, version, types, encoder, piece limit, and whether it is calibrated."""
        tagger = self.tagger
        return {
            "model": shown(self.model),
            "version": self.version,
            "types": list(tagger.labels.types),
            "encoder": tagger.model.encoder.config.model_type,
            "max_pieces": self.max_pieces,
            "calibrated": tagger.calibration is not None,
        }

    def _chunks(self, examples: Sequence[Example], view: str) -> list[tuple[list[Example], int]]:
        """The examples in chunks that fit into a batch, each with its approximate number of pieces."""
        chunks: list[tuple[list[Example], int]] = []
        for example in examples:
            pieces = pieces_of(example.sentence.words) + (pieces_read(example.passages) if view == "context" else 0)
            if chunks and chunks[-1][1] + pieces <= self.batch_pieces:
                chunks[-1][0].append(example)
                chunks[-1] = chunks[-1][0], chunks[-1][1] + pieces
            else:
                chunks.append(([example], pieces))
        return chunks

    def _predict(self, items: Sequence[Item]) -> list[list[Prediction] | None]:
        """Predictions for each item; None for an item that is already too late."""
        started = time.perf_counter()
        predictions: dict[int, list[Prediction]] = {}
        for view in ("plain", "context"):
            places = [n for n, item in enumerate(items) if item.work[1] == view and not item.is_late]
            answers = iter(self.tagger.predict([example for n in places for example in items[n].work[0]], view=view))
            for n in places:
                predictions[n] = [next(answers) for _ in items[n].work[0]]
        self.meter.batch(sum(item.size for item in items), time.perf_counter() - started)
        if late := sum(len(item.work[0]) for n, item in enumerate(items) if n not in predictions):
            self.meter.expired(late)
        return [predictions.get(n) for n in range(len(items))]
