"""Re-ranking by BERTScore: how well a passage's pieces match the sentence's in an encoder's space.

Encoding is nearly all of the cost, so every distinct passage of a call is encoded once and compared at once with all
sentences that it was found for; its vectors are never kept. The scores are `ctxner.retrieval.bertscore`; what counts as
a near duplicate is `ctxner.retrieval.duplicates`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch

from ctxner.retrieval.bertscore import PieceEncoder, SentenceBank, inverse_document_frequency, length_batches
from ctxner.retrieval.duplicates import Runs, character_runs, is_near_duplicate, repeats_sentence
from ctxner.retrieval.query import clean_text
from ctxner.schema import ScoredPassage, Sentence

Hits = Sequence[ScoredPassage]


class BERTScoreReranker:
    """Orders passages by BERTScore F1 against their sentence."""

    def __init__(
        self,
        encoder_path: str | Path,
        *,
        layer: int | None = None,
        use_idf: bool = False,
        dtype: Literal["float32", "bfloat16"] = "float32",
        batch_pieces: int = 4096,
        max_passage_pieces: int = 128,
        max_sentence_pieces: int = 512,
        device: str = "cpu",
    ):
        """Load an encoder.

        Args:
            encoder_path: Folder or hub id of any encoder that `AutoModel` loads from safetensors; no remote code.
            layer: Layer whose output is compared, from 1; higher ones are not even loaded. None is the last.
            use_idf: Weigh pieces by how rare they are in the sentences of a call, as bert-score does; the scores then
                depend on which sentences share a call.
            dtype: Of the encoder's weights and activations; matching is always float32.
            batch_pieces: Passages times longest passage of a batch.
            max_passage_pieces: Longer passages are cut for scoring.
            max_sentence_pieces: Longer sentences are cut for scoring, at the latest at the encoder's own limit.
            device: Where the encoder runs.

        Raises:
            ValueError: The encoder does not load, or has no such layer.
        """
        self._encoder = PieceEncoder(str(encoder_path), layer=layer, dtype=getattr(torch, dtype), device=device)
        self._use_idf = use_idf
        self._batch_pieces = batch_pieces
        self._max_passage_pieces = max_passage_pieces
        self._max_sentence_pieces = max_sentence_pieces

    def rerank(
        self,
        sentences: Sequence[Sentence],
        hits: Sequence[Hits],
        *,
        depth: int,
        drop_near_duplicates: bool = True,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[tuple[ScoredPassage, ...]]:
        """Score every sentence's hits; keep the best `depth`, in order, and say why the others are dropped.

        Args:
            sentences: Their words are joined by blanks.
            hits: Passages found for each sentence, best first.
            depth: Passages kept a sentence.
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
        if depth < 1:
            raise ValueError(f"depth is {depth}; wanted at least 1")
        texts = [clean_text(" ".join(sentence.words)) for sentence in sentences]
        runs = _passage_runs(hits) if drop_near_duplicates else {}
        fresh = [_fresh(text, found, runs) for text, found in zip(texts, hits, strict=True)]
        scores = self._score(texts, fresh, on_progress)
        return [
            _ordered(found, {hit.passage.id: scores[n, hit.passage.id] for hit in kept}, runs, depth)
            for n, (found, kept) in enumerate(zip(hits, fresh, strict=True))
        ]

    @torch.inference_mode()
    def _score(
        self, texts: Sequence[str], hits: Sequence[Hits], on_progress: Callable[[int, int], None] | None
    ) -> dict[tuple[int, str], float]:
        """BERTScore F1 by (sentence index, passage id)."""
        readers = _readers(hits)
        if not readers:
            return {}
        passages = {hit.passage.id: hit.passage.text for found in hits for hit in found}
        ids = list(passages)
        sentence_pieces = self._encoder.tokenize(texts, max_pieces=self._max_sentence_pieces)
        passage_pieces = self._encoder.tokenize(list(passages.values()), max_pieces=self._max_passage_pieces)
        idf = inverse_document_frequency(sentence_pieces) if self._use_idf else None
        bank = SentenceBank(self._encoder, sentence_pieces, idf, batch_pieces=self._batch_pieces)
        scores: dict[tuple[int, str], float] = {}
        num_encoded = 0
        for batch in length_batches(passage_pieces, self._batch_pieces):
            encoded = self._encoder.encode([passage_pieces[n] for n in batch], idf)
            pairs = [(row, n) for row, passage in enumerate(batch) for n in readers[ids[passage]]]
            values = bank.f1(encoded, [row for row, _ in pairs], [n for _, n in pairs])
            scores.update({(n, ids[batch[row]]): value for (row, n), value in zip(pairs, values, strict=True)})
            num_encoded += len(batch)
            if on_progress:
                on_progress(num_encoded, len(ids))
        return scores


def _readers(hits: Sequence[Hits]) -> dict[str, list[int]]:
    """Passage id -> indices of the sentences that it was found for."""
    readers: dict[str, list[int]] = {}
    for n, found in enumerate(hits):
        for hit in found:
            readers.setdefault(hit.passage.id, []).append(n)
    return readers


def _passage_runs(hits: Sequence[Hits]) -> dict[str, Runs]:
    passages = {hit.passage.id: hit.passage.text for found in hits for hit in found}
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
    scored.sort(key=lambda hit: (-hit.rerank_score, hit.bm25_rank))  # type: ignore[operator]
    kept: list[ScoredPassage] = []
    dropped: list[ScoredPassage] = []
    for hit in scored:
        if len(kept) == depth:
            dropped.append(dataclasses.replace(hit, dropped="below_depth"))
        elif runs and any(is_near_duplicate(runs[hit.passage.id], runs[better.passage.id]) for better in kept):
            dropped.append(dataclasses.replace(hit, dropped="near_duplicate"))
        else:
            kept.append(hit)
    repeated = [dataclasses.replace(hit, dropped="near_duplicate") for hit in hits if hit.passage.id not in scores]
    return (*kept, *dropped, *repeated)
