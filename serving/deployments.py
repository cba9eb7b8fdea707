"""The replicas: taggers of either view, retrievers, re-rankers, and routers. They hold state and batch; what they
compute is `ctxner`, what they decide is `serving.routing`.

Models and indexes run in threads of their own, one each, so that health checks and queues are not held up. Numbers of
replicas, CPUs, GPUs and queues are Serve's options: the defaults are here, `serve.yaml` overrides them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from ctxner.encoders import packaged_encoder
from ctxner.predictor import Prediction, Tagger
from ctxner.retrieval.index.fetch import fetch_index, index_manifest
from ctxner.retriever import keep_as_found, load_reranker, open_searcher
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from serving.batching import Batcher, Item
from serving.group import Group, Latency
from serving.meters import BatchMeter, RouterMeter, cluster_metrics
from serving.routing import Retrieved, Routing, Tagged
from serving.service import Service
from serving.settings import ServeSettings, index_version, model_version
from serving.web import make_app

_CHARS_A_PIECE = 4  # about; what is really in a forward pass is the tagger's to bound
_BATCH_SENTENCES = 64  # searched or re-ranked together
_DESCRIBED_SECONDS = 5.0
_STALL_SECONDS = 2.0
_CHECKS = ("Marta Ilves moved from Tartu to Bergen .", "It rained .")


def _model_thread(settings: ServeSettings) -> ThreadPoolExecutor:
    """The one thread in which a model computes; OpenMP's number of threads is a setting of the thread that asks."""
    import torch

    return ThreadPoolExecutor(1, "model", torch.set_num_threads, (settings.threads,))


class TaggerReplica:
    """A model, and the batches that it tags.

    Args:
        model: Folder or hub id.
        settings: Of the application.
        release: Not read; another one makes Serve roll in new replicas.
    """

    def __init__(self, model: str, settings: dict[str, Any], release: str) -> None:
        serve_settings = ServeSettings(**settings)
        self.thread = _model_thread(serve_settings)
        self.tagger = self.thread.submit(self._load, model, serve_settings).result()
        self.batch_pieces, self.max_pieces = serve_settings.batch_pieces, self.tagger.model.config.max_pieces
        self.predict = Batcher(self._predict, serve_settings.batch_pieces, self.thread)
        self.model, self.version = model, model_version(model)
        self.meter = BatchMeter()
        self.checks = [Example(Sentence(str(n), tuple(text.split()))) for n, text in enumerate(_CHECKS)]
        self.known = self.thread.submit(self._warm).result()

    def _load(self, model: str, serve_settings: ServeSettings) -> Tagger:
        tagger = Tagger.from_pretrained(model, device=serve_settings.device, precision=serve_settings.precision)
        for weights in (*tagger.model.parameters(), *tagger.model.buffers()):
            weights.data = weights.data.clone()  # a mapped file that is overwritten would take the process with it
        return tagger

    def _warm(self) -> list[Sequence[str]]:
        """Tags of the checks, after batches of some sizes, so that memory is had and kernels are chosen."""
        filler = tuple(Passage(str(n), "", " ".join(_CHECKS) * 8) for n in range(6))
        read = tuple(ScoredPassage(sentence, 0.0, n) for n, sentence in enumerate(filler, start=1))
        for batch in (1, 4, 1):
            self.tagger.predict([Example(check.sentence, read) for check in self.checks] * batch, view="context")
        return self._tags()

    def _tags(self) -> list[Sequence[str]]:
        return [prediction.tags for prediction in self.tagger.predict(self.checks, view="plain")]

    async def check_health(self) -> None:
        """The model still says what it said when it was loaded.

        Raises:
            RuntimeError: It does not.
        """
        if await asyncio.get_running_loop().run_in_executor(self.thread, self._tags) != self.known:
            raise RuntimeError(f"{self.model}: tags the same sentences otherwise than when it was loaded")

    async def tag(self, examples: Sequence[Example], view: str, seconds: float) -> Tagged:
        """Predictions of a view.

        Args:
            examples: With passages for the context view.
            view: `plain` or `context`.
            seconds: After which they are of no use.

        Raises:
            TimeoutError: Their turn came too late.
        """
        until = time.time() + seconds
        items = [Item((some, view), size, until) for some, size in self._chunks(examples, view)]
        found: list[Prediction] = []
        for some in await asyncio.gather(*(self.predict(item) for item in items)):
            if some is None:
                raise TimeoutError
            found += some
        return Tagged(found, self.version)

    async def describe(self) -> dict[str, Any]:
        """What the model is."""
        tagger = self.tagger
        return {
            "model": self.model,
            "version": self.version,
            "types": list(tagger.labels.types),
            "encoder": tagger.model.encoder.config.model_type,
            "max_pieces": self.max_pieces,
            "calibrated": tagger.calibration is not None,
        }

    def _chunks(self, examples: Sequence[Example], view: str) -> list[tuple[list[Example], int]]:
        """The examples in parts that fit into a batch, with their pieces, about."""
        chunks: list[tuple[list[Example], int]] = []
        for example in examples:
            chars = sum(map(len, example.sentence.words))
            if view == "context":
                chars += sum(len(passage.passage.text) for passage in example.passages if passage.dropped is None)
            pieces = min(max(chars // _CHARS_A_PIECE, len(example.sentence.words)) + 2, self.max_pieces)
            if chunks and chunks[-1][1] + pieces <= self.batch_pieces:
                chunks[-1][0].append(example)
                chunks[-1] = chunks[-1][0], chunks[-1][1] + pieces
            else:
                chunks.append(([example], pieces))
        return chunks

    def _predict(self, items: Sequence[Item]) -> list[list[Prediction] | None]:
        """Predictions for each item; None for what is too late already."""
        started = time.perf_counter()
        found: dict[int, list[Prediction]] = {}
        for view in ("plain", "context"):
            places = [n for n, item in enumerate(items) if item.work[1] == view and not item.is_late]
            answers = iter(self.tagger.predict([one for n in places for one in items[n].work[0]], view=view))
            for n in places:
                found[n] = [next(answers) for _ in items[n].work[0]]
        self.meter.batch(sum(item.size for item in items), time.perf_counter() - started)
        if late := sum(len(item.work[0]) for n, item in enumerate(items) if n not in found):
            self.meter.expired(late)
        return [found.get(n) for n in range(len(items))]


class RerankerReplica:
    """An encoder, and the sentences that it orders passages for."""

    def __init__(self, settings: dict[str, Any]) -> None:
        serve_settings = ServeSettings(**settings)
        self.settings, self.thread = serve_settings.retrieval, _model_thread(serve_settings)
        self.reranker = self.thread.submit(
            load_reranker, serve_settings.retrieval, device=serve_settings.device
        ).result()
        self.batcher = Batcher(self._rerank, _BATCH_SENTENCES, self.thread)
        self.thread.submit(self._check).result()

    async def check_health(self) -> None:
        """The encoder scores."""
        await asyncio.get_running_loop().run_in_executor(self.thread, self._check)

    async def rerank(
        self, sentences: Sequence[Sentence], hits: Sequence[tuple[ScoredPassage, ...]], seconds: float
    ) -> list[tuple[ScoredPassage, ...]] | None:
        """Each sentence's passages in order; None when their turn came after so many seconds."""
        return await self.batcher(Item((sentences, hits), len(sentences), time.time() + seconds))

    def _rerank(self, items: Sequence[Item]) -> list[list[tuple[ScoredPassage, ...]] | None]:
        timely = [item for item in items if not item.is_late]
        answers = iter(
            self.reranker.rerank(
                [one for item in timely for one in item.work[0]],
                [one for item in timely for one in item.work[1]],
                depth=self.settings.keep,
                drop_near_duplicates=self.settings.drop_near_duplicates,
            )
        )
        return [[next(answers) for _ in item.work[0]] if item in timely else None for item in items]

    def _check(self) -> None:
        sentences = [Sentence(str(n), tuple(text.split())) for n, text in enumerate(_CHECKS)]
        hits = [(ScoredPassage(Passage("check", "", _CHECKS[0] + " Bergen is a city ."), 1.0, 1),)] * len(sentences)
        self.reranker.rerank(sentences, hits, depth=1)


class RetrieverReplica:
    """An index in a JVM, and the passages that it finds.

    Args:
        settings: Of the application.
        release: Not read; another one makes Serve roll in new replicas.
        reranker: Replicas that order the passages; None: this one does.
    """

    def __init__(self, settings: dict[str, Any], release: str, reranker: DeploymentHandle | None) -> None:
        serve_settings = ServeSettings(**settings)
        assert serve_settings.index is not None
        self.settings, self.slow = serve_settings.retrieval, serve_settings.slow_ms / 1000
        self.thread = ThreadPoolExecutor(1, "lucene")  # the JVM's only Python thread
        self.searcher = self.thread.submit(self._open, serve_settings).result()
        manifest = self.searcher.manifest
        self.index = index_version(manifest)
        self.folder, self.num_documents = str(serve_settings.index), manifest.num_documents
        self.first_tagger = None
        if serve_settings.retrieval.tagger:
            self.first_tagger = Tagger.from_pretrained(serve_settings.retrieval.tagger, device=serve_settings.device)
        self.inside = RerankerReplica(settings) if serve_settings.retrieval.rerank and reranker is None else None
        self.rerank: Any = self.inside.rerank if self.inside else reranker and reranker.rerank.remote
        self.reranking, self.num_skipped = Latency(), 0
        self.cache: OrderedDict[tuple[str, ...], tuple[ScoredPassage, ...]] = OrderedDict()
        self.most_cached = serve_settings.cached_sentences
        self.meter = BatchMeter()
        self.checks = [Sentence(str(n), tuple(text.split())) for n, text in enumerate(_CHECKS)]
        self.search = Batcher(self._search, _BATCH_SENTENCES, self.thread)
        self.thread.submit(self._search, [Item(self.checks, 1, 0)]).result()

    def _open(self, serve_settings: ServeSettings) -> Any:
        folder: Any = serve_settings.index
        if serve_settings.index_source:
            folder = fetch_index(
                serve_settings.index_source, folder, index_manifest(folder, serve_settings.index_source)
            )
        return open_searcher(folder, serve_settings.retrieval, num_threads=serve_settings.threads)

    async def check_health(self) -> None:
        """The index answers, and the re-ranker inside.

        Raises:
            RuntimeError: The index does not; the re-ranker raises what it fails with.
        """
        if self.inside is not None:
            await self.inside.check_health()
        found = await self.search(Item(self.checks, len(self.checks), math.inf))
        if failed := next((result.error for result in found if result.error), None):
            raise RuntimeError(f"{self.folder}: cannot be searched ({failed})")

    async def retrieve(self, sentences: Sequence[Sentence], seconds: float) -> Retrieved:
        """Passages for each sentence.

        Args:
            sentences: To look up.
            seconds: That there are; passages that cannot be re-ranked in them come as they were found.
        """
        until = time.time() + seconds
        if self.slow:
            await asyncio.sleep(self.slow)
        known = [self._cached(sentence) for sentence in sentences]
        unknown = [sentence for sentence, passages in zip(sentences, known, strict=True) if passages is None]
        self.meter.cached(len(sentences) - len(unknown), len(unknown))
        found = iter(await self._retrieve(unknown, until) if unknown else ())
        return Retrieved([next(found) if passages is None else passages for passages in known], self.index)

    async def describe(self) -> dict[str, Any]:
        """What the index is."""
        return {"index": self.folder, "version": self.index, "passages": self.num_documents}

    def _cached(self, sentence: Sentence) -> tuple[ScoredPassage, ...] | None:
        if sentence.words in self.cache:
            self.cache.move_to_end(sentence.words)
        return self.cache.get(sentence.words)

    async def _retrieve(self, sentences: Sequence[Sentence], until: float) -> list[tuple[ScoredPassage, ...] | None]:
        found = await self.search(Item(sentences, len(sentences), until))
        hits = [result.hits for result in found]
        kept = None
        if self.rerank is not None:
            started, left = time.perf_counter(), until - time.time()
            if self.reranking.expected(len(sentences)) < left or self._tries_anyway():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, left)):
                        kept = await self.rerank(sentences, hits, left)
                self.reranking.add(len(sentences), time.perf_counter() - started)
        is_whole = kept is not None or self.rerank is None
        if kept is None:
            kept = [
                keep_as_found(sentence, some, self.settings) for sentence, some in zip(sentences, hits, strict=True)
            ]
        answers: list[tuple[ScoredPassage, ...] | None] = []
        for sentence, result, passages in zip(sentences, found, kept, strict=True):
            answers.append(None if result.error else passages)
            if is_whole and not result.error and self.most_cached:
                self.cache[sentence.words] = passages
                if len(self.cache) > self.most_cached:
                    self.cache.popitem(last=False)
        return answers

    def _tries_anyway(self) -> bool:
        """Every 16th time that re-ranking seems too slow it is tried all the same, as it may be faster now."""
        self.num_skipped += 1
        return self.num_skipped % 16 == 0

    def _search(self, items: Sequence[Item]) -> list[Any]:
        """Results for each item; ids of different callers are the same, so each sentence gets one of its own."""
        flat = [
            Sentence(str(n), sentence.words) for n, sentence in enumerate(one for item in items for one in item.work)
        ]
        predicted = None
        if self.first_tagger is not None:
            answers = self.first_tagger.predict([Example(sentence) for sentence in flat], view="plain")
            predicted = {answer.sentence_id: [(span.start, span.end) for span in answer.spans] for answer in answers}
        found = iter(self.searcher.search(flat, depth=self.settings.depth, predicted=predicted))
        return [[next(found) for _ in item.work] for item in items]


class RouterReplica:
    """HTTP, and which view answers.

    Args:
        settings: Of the application.
        threshold: Of `auto`, in nats; None: `auto` looks everything up.
        plain: Replicas of the plain view.
        context: Replicas of the context view.
        retriever: None: passages come from callers only.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        threshold: float | None,
        plain: DeploymentHandle,
        context: DeploymentHandle,
        retriever: DeploymentHandle | None,
    ) -> None:
        self.settings = ServeSettings(**settings)
        self.handles = {"plain": plain, "context": context, **({"retriever": retriever} if retriever else {})}
        self.groups = {
            name: Group(
                name,
                _calling(handle, "retrieve" if name == "retriever" else "tag"),
                stall_seconds=None if name == "plain" else _STALL_SECONDS,  # nobody can stand in for the plain view
                alive=_calling(handle, "describe"),
            )
            for name, handle in self.handles.items()
        }
        self.routing = Routing(
            self.groups["plain"], self.groups["context"], self.groups.get("retriever"), threshold=threshold
        )
        self.described: tuple[float, dict[str, Any]] = (0.0, {})

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The web application, made where it runs."""
        service = Service(
            self.routing,
            self.settings.limits,
            RouterMeter(),
            describe=self.describe,
            ready=self.ready,
            metrics=cluster_metrics,
        )
        return make_app(service, self.settings.keys)

    async def describe(self) -> dict[str, Any]:
        """Models, index and settings, as replicas tell them; groups without a replica are not woken."""
        since, found = self.described
        if time.monotonic() - since > _DESCRIBED_SECONDS or not found:
            names = [name for name, up in (await self.ready()).items() if up]
            told = await asyncio.gather(
                *(asyncio.wait_for(_calling(self.handles[name], "describe")(), 2) for name in names),
                return_exceptions=True,
            )
            found = {name: answer for name, answer in zip(names, told, strict=True) if isinstance(answer, dict)}
            found |= {
                "threshold": self.routing.threshold,
                "reranker": self.settings.retrieval.encoder or packaged_encoder() if self.settings.index else None,
                "limits": self.settings.limits.model_dump(),
            }
            self.described = time.monotonic(), found
        return found

    async def ready(self) -> dict[str, bool]:
        """By group, whether a replica of it runs."""
        return {
            name: handle.running_replicas_populated() and not self.groups[name].is_down
            for name, handle in self.handles.items()
        }


def _calling(handle: DeploymentHandle, method: str) -> Any:
    """A coroutine function that calls a method of a replica; cancelled, it cancels there too."""
    remote = getattr(handle, method)

    async def call(*arguments: Any) -> Any:
        response = remote.remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise

    return call


def _deployment(
    replica: type, name: str, *, ongoing: int, queued: int, target: int, num_cpus: float
) -> serve.Deployment:
    """One replica unless `serve.yaml` says otherwise; a new version starts before the old one ends."""
    return serve.deployment(
        name=name,
        max_ongoing_requests=ongoing,
        max_queued_requests=queued,
        autoscaling_config={"min_replicas": 1, "max_replicas": 1, "target_ongoing_requests": target},
        ray_actor_options={"num_cpus": num_cpus},
        max_surge_percent=100,
        health_check_period_s=5,
        health_check_timeout_s=20,
        graceful_shutdown_timeout_s=20,
    )(replica)


PlainTagger = _deployment(TaggerReplica, "PlainTagger", ongoing=64, queued=256, target=16, num_cpus=0.5)
ContextTagger = _deployment(TaggerReplica, "ContextTagger", ongoing=64, queued=128, target=8, num_cpus=0.5)
Retriever = _deployment(RetrieverReplica, "Retriever", ongoing=64, queued=128, target=16, num_cpus=0.5)
Reranker = _deployment(RerankerReplica, "Reranker", ongoing=64, queued=128, target=8, num_cpus=0.5)
Router = _deployment(serve.ingress()(RouterReplica), "Router", ongoing=512, queued=512, target=128, num_cpus=0.25)
