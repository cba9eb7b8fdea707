"""Re-ranking by BERTScore: how well a passage's pieces match the sentence's in an encoder's space.

Encoding is nearly all of the cost, so every distinct text of a call is encoded once, and never when the embedding cache
has it. Passages are compared a chunk at a time with all sentences that they were found for, so that memory holds the
vectors of one chunk and of the sentences. The scores are `ctxner.retrieval.rerank.bertscore`; what counts as a near
duplicate is `ctxner.retrieval.near_duplicates`.

A score depends on its sentence and passage alone (with `use_idf` on all sentences), but for rounding, as processors
choose their kernels by the shape of a batch. Promised are the same passages in the same order and scores within 1e-3
(bfloat16: 2e-2), whatever shares a batch, with and without a cache. Scores are rounded before they are compared, so
that equal ones stay equal; two scores on either side of a rounding step may still change places.

Tried and left out, measured as in `tests/benchmarks/bench_rerank.py`: pruning 16 passages by the encoder's own piece
embeddings or by an early layer loses 5% of the best six when it saves a quarter of the work; int8 makes a text's
vectors depend on its batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ctxner.encoders import native_dtype
from ctxner.retrieval.near_duplicates import Runs, character_runs, repeats_sentence, thin_out
from ctxner.retrieval.rerank.bertscore import TextBank, f1, inverse_document_frequency
from ctxner.retrieval.rerank.embedding_cache import EmbeddingCache
from ctxner.retrieval.rerank.encoder import EncodedText, PieceEncoder
from ctxner.retrieval.text import clean_text
from ctxner.schema import ScoredPassage, Sentence

Hits = Sequence[ScoredPassage]
SCORE_DECIMALS = 3  # scores are rounded before they are compared: kernels change a score's last bits with the batch
_CHUNK = 1024  # texts encoded, or read from the cache, together; of like length, so that batches are full


class BERTScoreReranker:
    """Orders passages by BERTScore F1 against their sentence."""

    def __init__(
        self,
        encoder_path: str | Path,
        *,
        layer: int | None = None,
        use_idf: bool = False,
        dtype: Literal["auto", "float32", "bfloat16"] = "float32",
        batch_pieces: int = 2048,
        max_passage_pieces: int = 128,
        max_sentence_pieces: int = 512,
        device: str = "cpu",
        cache: Path | None = None,
        cache_bytes: int = 4 << 30,
    ):
        """Load an encoder.

        Args:
            encoder_path: Folder or hub id of any encoder that `AutoModel` loads from safetensors; no remote code.
            layer: Layer whose output is compared, from 1; higher ones are not even loaded. None is the last.
            use_idf: Weigh pieces by how rare they are in the sentences of a call, as bert-score does; the scores then
                depend on which sentences share a call.
            dtype: Type of the encoder's weights and activations, `auto` is `native_dtype`; matching is always float32.
            batch_pieces: Texts times padded width of a batch.
            max_passage_pieces: Longer passages are cut for scoring.
            max_sentence_pieces: Longer sentences are cut for scoring, at the latest at the encoder's own limit.
            device: Where the encoder runs.
            cache: Folder on a local disk for encoded texts, shared by any processes and encoders; "~" is the home
                folder, None keeps nothing. Scores are the same with and without, but for rounding.
            cache_bytes: Bound of that folder.

        Raises:
            ValueError: The encoder does not load, or has no such layer; or the bound is below 1 MiB.
        """
        decided = getattr(torch, native_dtype(device) if dtype == "auto" else dtype)
        self._encoder = PieceEncoder(
            str(encoder_path), layer=layer, dtype=decided, device=device, batch_pieces=batch_pieces
        )
        self._use_idf = use_idf
        self._max_passage_pieces = max_passage_pieces
        self._max_sentence_pieces = max_sentence_pieces
        self._cache = cache and EmbeddingCache(
            cache.expanduser(),
            max_bytes=cache_bytes,
            fingerprint=self._encoder.fingerprint(),
            width=self._encoder.width,
            dtype=self._encoder.dtype,
        )

    def rerank(
        self,
        sentences: Sequence[Sentence],
        hits: Sequence[Hits],
        *,
        depth: int | Sequence[int],
        drop_near_duplicates: bool = True,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[tuple[ScoredPassage, ...]]:
        """Score every sentence's hits; keep the best `depth`, in order, and say why the others are dropped.

        Args:
            sentences: Their words are joined by blanks.
            hits: Passages found for each sentence, best first.
            depth: Passages kept per sentence; one number for all, or one for each.
            drop_near_duplicates: Drop passages that nearly repeat the sentence (these are not scored) or a better
                passage.
            on_progress: Called with (distinct passages encoded, all of them).

        Returns:
            For each sentence first the kept passages, best first, then the dropped ones, best first, unscored last.
        """
        if len(sentences) != len(hits):
            raise ValueError(
                f"{len(sentences)} sentences but hits for {len(hits)}; give one sequence of hits a sentence"
            )
        depths = [depth] * len(hits) if isinstance(depth, int) else depth
        if min(depths, default=1) < 1:
            raise ValueError(f"depth is {depth}; wanted at least 1")
        texts = [clean_text(" ".join(sentence.words)) for sentence in sentences]
        runs = _passage_runs(hits) if drop_near_duplicates else {}
        fresh = [_fresh(text, candidates, runs) for text, candidates in zip(texts, hits, strict=True)]
        scores = self._score(texts, fresh, on_progress)
        return [
            _ordered(candidates, {hit.passage.id: scores[n, hit.passage.text] for hit in kept}, runs, depths[n])
            for n, (candidates, kept) in enumerate(zip(hits, fresh, strict=True))
        ]

    def _score(
        self, texts: Sequence[str], hits: Sequence[Hits], on_progress: Callable[[int, int], None] | None
    ) -> dict[tuple[int, str], float]:
        """BERTScore F1 by (sentence index, passage text)."""
        readers = _readers(hits)
        if not readers:
            return {}
        sentences = self._encoded(texts, self._max_sentence_pieces)
        idf = inverse_document_frequency(sentences, self._encoder.num_ids) if self._use_idf else None
        sentence_bank = TextBank(sentences, idf=idf, device=self._encoder.device)
        scores: dict[tuple[int, str], float] = {}
        num_done = 0
        for chunk in _chunks(list(readers)):
            encoded = self._encoded([clean_text(text) for text in chunk], self._max_passage_pieces)
            bank = TextBank(encoded, idf=idf, device=self._encoder.device)
            pairs = [(row, n) for row, text in enumerate(chunk) for n in readers[text]]
            rows, columns = np.array(pairs).T
            values = f1(bank, sentence_bank, rows, columns).tolist()
            scores.update({(n, chunk[row]): value for (row, n), value in zip(pairs, values, strict=True)})
            num_done += len(chunk)
            if on_progress:
                on_progress(num_done, len(readers))
        return scores

    def _encoded(self, texts: Sequence[str], max_pieces: int) -> list[EncodedText]:
        """Every text, from the cache where it is there; equal texts are encoded once."""
        encoded_texts: dict[str, EncodedText] = {}
        for chunk in _chunks(sorted(set(texts))):
            cached = self._cache.get(chunk, max_pieces=max_pieces) if self._cache else [None] * len(chunk)
            missing = [text for text, known in zip(chunk, cached, strict=True) if known is None]
            encoded = self._encoder.encode(missing, max_pieces=max_pieces)
            if self._cache:
                self._cache.put(missing, encoded, max_pieces=max_pieces)
            encoded_texts |= {text: known for text, known in zip(chunk, cached, strict=True) if known is not None}
            encoded_texts |= zip(missing, encoded, strict=True)
        return [encoded_texts[text] for text in texts]


def _chunks(texts: list[str]) -> list[list[str]]:
    """At most `_CHUNK` texts each, of like length."""
    texts.sort(key=len, reverse=True)
    return [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]


def _readers(hits: Sequence[Hits]) -> dict[str, list[int]]:
    """Passage text -> indices of the sentences that it was found for."""
    readers: dict[str, dict[int, None]] = {}
    for n, candidates in enumerate(hits):
        for hit in candidates:
            readers.setdefault(hit.passage.text, {})[n] = None
    return {text: list(reader) for text, reader in readers.items()}


def _passage_runs(hits: Sequence[Hits]) -> dict[str, Runs]:
    passages = {hit.passage.id: hit.passage.text for candidates in hits for hit in candidates}
    return {passage_id: character_runs(text) for passage_id, text in passages.items()}


def _fresh(text: str, hits: Hits, runs: dict[str, Runs]) -> Hits:
    """The hits that do not repeat the sentence; all of them when there are no runs."""
    if not runs:
        return hits
    sentence_runs = character_runs(text)
    return [hit for hit in hits if not repeats_sentence(runs[hit.passage.id], sentence_runs)]


def _ordered(hits: Hits, scores: dict[str, float], runs: dict[str, Runs], depth: int) -> tuple[ScoredPassage, ...]:
    """Kept hits, best first, then dropped ones with their reason."""
    scored = [dataclasses.replace(hit, rerank_score=scores[hit.passage.id]) for hit in hits if hit.passage.id in scores]
    scored.sort(key=_best_first)
    repeated = [dataclasses.replace(hit, dropped="near_duplicate") for hit in hits if hit.passage.id not in scores]
    return (*thin_out(scored, depth=depth, runs_of=(lambda hit: runs[hit.passage.id]) if runs else None), *repeated)


def _best_first(hit: ScoredPassage) -> tuple[float, int, str]:
    """Sort key: the score as far as every processor agrees on it, then the search's rank, then the id."""
    assert hit.rerank_score is not None
    return -round(hit.rerank_score, SCORE_DECIMALS), hit.bm25_rank, hit.passage.id
