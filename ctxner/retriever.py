"""Sentences -> passages, as the settings say; batch jobs, single texts and servers all retrieve with this module.

A retriever opens its parts (a JVM with the index, an encoder, a first tagger) when they are first used, in the process
that uses them, so an actor that needs one part opens only that part. `ctxner.batch` and `serving` spread the parts over
actors and add batching, threads and deadlines.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ctxner.config import RetrievalConfig
from ctxner.encoders import packaged_encoder
from ctxner.files.node_copies import local
from ctxner.retrieval.near_duplicates import keep_first
from ctxner.schema import Example, ScoredPassage, Sentence

if TYPE_CHECKING:
    from ctxner.predictor import Tagger
    from ctxner.retrieval.rerank.reranker import BERTScoreReranker
    from ctxner.retrieval.search.bm25 import BM25Searcher, SearchResult

Passages = tuple[ScoredPassage, ...]
WordRanges = Sequence[tuple[int, int]]  # first word and one past the last of each mention


class Retriever:
    """Looks sentences up: a first tagger finds mentions, BM25 searches, a re-ranker sorts, and the best are kept."""

    def __init__(
        self, settings: RetrievalConfig, *, folder: str | Path | None = None, num_threads: int = 2, device: str = "cpu"
    ) -> None:
        """Store the settings; nothing is opened yet.

        Args:
            settings: The config's retrieval section.
            folder: Folder of the index; None for a retriever that never searches.
            num_threads: Threads per search.
            device: Device of the first tagger and of the re-ranker.
        """
        self.settings, self._folder, self._num_threads, self._device = settings, folder, num_threads, device

    def opened_anew(self) -> Retriever:
        """A retriever that opens the version of the index that its folder has now; loaded models are shared."""
        other = copy.copy(self)
        other.__dict__.pop("searcher", None)
        return other

    @cached_property
    def searcher(self) -> BM25Searcher:
        """The searcher, with the index open in a JVM; errors are those of `BM25Searcher`."""
        from ctxner.retrieval.search.bm25 import BM25Searcher

        assert self._folder is not None, "this retriever was made without an index"
        return BM25Searcher(
            self._folder,
            k1=self.settings.k1,
            b=self.settings.b,
            query_mode=self.settings.query,
            max_query_terms=self.settings.max_query_terms,
            max_entries=self.settings.entries,
            drop_near_duplicates=self.settings.drop_near_duplicates,
            num_threads=self._num_threads,
        )

    @cached_property
    def reranker(self) -> BERTScoreReranker:
        """The re-ranker, with its encoder loaded; errors are those of `BERTScoreReranker`."""
        from ctxner.retrieval.rerank.reranker import BERTScoreReranker

        return BERTScoreReranker(
            local(self.settings.encoder or packaged_encoder()),
            layer=self.settings.layer,
            use_idf=self.settings.idf,
            dtype=self.settings.dtype,
            device=self._device,
            cache=self.settings.cache,
            cache_bytes=int(self.settings.cache_gib * 2**30),
        )

    @cached_property
    def first_tagger(self) -> Tagger:
        """The tagger that finds the mentions to look up first (`retrieval.tagger`); ValueError if it is no model."""
        from ctxner.predictor import Tagger

        assert self.settings.tagger is not None, "the settings name no tagger"
        return Tagger.from_pretrained(self.settings.tagger, device=self._device)

    def predict(self, sentences: Sequence[Sentence]) -> dict[str, WordRanges]:
        """Mentions that the first tagger finds without passages, by sentence id; none for sentences without words."""
        examples = [Example(sentence) for sentence in sentences if sentence.words]
        predictions = self.first_tagger.predict(examples, view="plain")
        ranges: dict[str, WordRanges] = {sentence.id: [] for sentence in sentences}
        for prediction in predictions:
            ranges[prediction.sentence_id] = [(span.start, span.end) for span in prediction.spans]
        return ranges

    def search(
        self, sentences: Sequence[Sentence], *, predicted: Mapping[str, WordRanges] | None = None
    ) -> list[SearchResult]:
        """BM25's passages for each sentence.

        Args:
            sentences: Sentences with distinct ids.
            predicted: Mentions to look up first; None: those of the first tagger, if the settings name one.
        """
        if predicted is None and self.settings.tagger:
            predicted = self.predict(sentences)
        return self.searcher.search(sentences, depth=self.settings.depth, predicted=predicted)

    def keep(self, sentences: Sequence[Sentence], hits: Sequence[Passages]) -> list[Passages]:
        """The hits of each sentence, re-ranked if the settings say so: kept passages first, dropped ones last.

        Entries that the sentence names stay first, in the order of its words. In the query mode `entries`, texts are
        re-ranked only where more were found than there is room for.
        """
        settings = self.settings
        rooms = [settings.keep - _num_named(passages) for passages in hits]
        compete = [
            settings.rerank and (settings.query != "entries" or (len(passages) > settings.keep and room > 0))
            for passages, room in zip(hits, rooms, strict=True)
        ]
        asked = [n for n, competes in enumerate(compete) if competes]
        others = [n for n, competes in enumerate(compete) if not competes]
        as_found = self.keep_as_found([sentences[n] for n in others], [hits[n] for n in others])
        kept = dict(zip(others, as_found, strict=True))
        if asked:  # else no encoder is loaded
            reranked = self.reranker.rerank(
                [sentences[n] for n in asked],
                [hits[n][_num_named(hits[n]) :] for n in asked],
                depth=[rooms[n] for n in asked],
                drop_near_duplicates=settings.drop_near_duplicates,
            )
            for n, texts in zip(asked, reranked, strict=True):
                kept[n] = (*hits[n][: _num_named(hits[n])], *texts)
        return [kept[n] for n in range(len(hits))]

    def keep_as_found(self, sentences: Sequence[Sentence], hits: Sequence[Passages]) -> list[Passages]:
        """The hits of each sentence in the order of the search: kept passages first, dropped ones last."""
        settings, kept = self.settings, []
        for sentence, passages in zip(sentences, hits, strict=True):
            num_named = _num_named(passages)
            texts = keep_first(
                " ".join(sentence.words),
                passages[num_named:],
                depth=max(0, settings.keep - num_named),
                drop_near_duplicates=settings.drop_near_duplicates,
            )
            kept.append((*passages[:num_named], *texts))
        return kept

    def retrieve(self, sentences: Iterable[Sentence]) -> list[Passages]:
        """Search, then keep: the passages of each sentence, kept ones first, dropped ones last."""
        sentences = list(sentences)
        return self.keep(sentences, [result.hits for result in self.search(sentences)])


def _num_named(passages: Passages) -> int:
    """Number of entries that the sentence names; they come first."""
    return sum(1 for passage in passages if passage.named)


def decided(settings: RetrievalConfig) -> RetrievalConfig:
    """Settings with `dtype: auto` decided once for all actors: bfloat16 on GPUs, else what suits this node's CPU."""
    if settings.dtype != "auto" or not settings.rerank:
        return settings
    from ctxner.encoders import native_dtype

    return settings.model_copy(update={"dtype": "bfloat16" if settings.gpus else native_dtype("cpu")})
