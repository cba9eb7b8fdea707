"""Re-ranking by BERTScore: how well a passage's pieces match the sentence's in an encoder's space.

Scores equal those of the package bert-score without its rescaling (Zhang et al., "BERTScore", ICLR 2020). Encoding is
nearly all of the cost, so every distinct passage of a call is encoded once and compared at once with all sentences
that it was found for; its vectors are never kept. What counts as a near duplicate is `ctxner.retrieval.duplicates`.
"""

# N sentence-passage pairs, B passages of a batch, P a passage's pieces, S a sentence's pieces, H hidden width

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ctxner.retrieval.duplicates import Runs, character_runs, is_near_duplicate, repeats_sentence
from ctxner.retrieval.query import clean_text
from ctxner.schema import ScoredPassage, Sentence

_MAX_PAIR_PIECES = 16_384  # sentence and passage pieces gathered at once; 25 MB each at 384 floats a piece
_MAX_TEXT_LENGTH = 20_000  # characters that reach the tokenizer, far beyond any encoder's limit

Hits = Sequence[ScoredPassage]


@dataclass(frozen=True, slots=True)
class _Pieces:
    """A tokenized text: piece ids, and which of them are special ([CLS], [SEP])."""

    ids: list[int]
    special: list[int]


@dataclass(slots=True)
class _Encoded:
    """Unit vectors of texts, right-padded, with each piece's share of its text's mean (0 on special and padding)."""

    vectors_BPH: Tensor
    weights_BP: Tensor
    mask_BP: Tensor


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
        self._tokenizer, self._encoder = _load_encoder(str(encoder_path), layer, getattr(torch, dtype))
        self._encoder.to(device)  # type: ignore[arg-type]
        self._use_idf = use_idf
        self._batch_pieces = batch_pieces
        limit = _piece_limit(self._tokenizer, self._encoder)
        self._max_passage_pieces = min(max_passage_pieces, limit)
        self._max_sentence_pieces = min(max_sentence_pieces, limit)

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
        pieces = self._tokenize(texts, self._max_sentence_pieces)
        idf = _inverse_document_frequency(pieces) if self._use_idf else None
        wanted = [n for n, found in enumerate(hits) if found]
        bank = _SentenceBank(self._encode_all([pieces[n] for n in wanted], idf))
        slots = {n: slot for slot, n in enumerate(wanted)}
        passages = {hit.passage.id: hit.passage for found in hits for hit in found}
        readers: dict[str, list[int]] = {passage_id: [] for passage_id in passages}
        for n, found in enumerate(hits):
            for hit in found:
                readers[hit.passage.id].append(n)
        ids = list(passages)
        passage_pieces = self._tokenize([passages[i].text for i in ids], self._max_passage_pieces)
        scores: dict[tuple[int, str], float] = {}
        num_encoded = 0
        for batch in _length_batches(passage_pieces, self._batch_pieces):
            encoded = self._encode([passage_pieces[n] for n in batch], idf)
            pairs = [(row, n) for row, passage in enumerate(batch) for n in readers[ids[passage]]]
            values = bank.f1(encoded, [row for row, _ in pairs], [slots[n] for _, n in pairs])
            scores.update({(n, ids[batch[row]]): value for (row, n), value in zip(pairs, values, strict=True)})
            num_encoded += len(batch)
            if on_progress:
                on_progress(num_encoded, len(ids))
        return scores

    def _tokenize(self, texts: Sequence[str], max_pieces: int) -> list[_Pieces]:
        if not texts:
            return []
        output = self._tokenizer(
            [text[:_MAX_TEXT_LENGTH] for text in texts],
            truncation=True,
            max_length=max_pieces,
            return_special_tokens_mask=True,
            return_attention_mask=False,
        )
        return [_Pieces(*fields) for fields in zip(output["input_ids"], output["special_tokens_mask"], strict=True)]

    def _encode_all(self, pieces: Sequence[_Pieces], idf: _Idf | None) -> list[tuple[Tensor, Tensor]]:
        """(vectors_PH, weights_P) of every text, in order."""
        rows: dict[int, tuple[Tensor, Tensor]] = {}
        for batch in _length_batches(pieces, self._batch_pieces):
            encoded = self._encode([pieces[n] for n in batch], idf)
            for row, n in enumerate(batch):
                length = len(pieces[n].ids)
                rows[n] = encoded.vectors_BPH[row, :length].clone(), encoded.weights_BP[row, :length]
        return [rows[n] for n in range(len(pieces))]

    def _encode(self, pieces: Sequence[_Pieces], idf: _Idf | None) -> _Encoded:
        device = self._encoder.device
        mask_BP = _padded([[1] * len(text.ids) for text in pieces], 0).to(device)
        ids_BP = _padded([text.ids for text in pieces], self._tokenizer.pad_token_id or 0).to(device)
        hidden_BPH = self._encoder(input_ids=ids_BP, attention_mask=mask_BP).last_hidden_state.float()
        weights = [_weights(text, idf) for text in pieces]
        return _Encoded(
            torch.nn.functional.normalize(hidden_BPH, dim=-1), _padded(weights, 0.0).to(device), mask_BP.bool()
        )


class _SentenceBank:
    """The sentences' vectors, end to end, from which those of any sentences are gathered as one padded tensor."""

    def __init__(self, rows: Sequence[tuple[Tensor, Tensor]]):
        self._lengths = [len(weights) for _, weights in rows]
        if rows:
            self._vectors = torch.cat([vectors for vectors, _ in rows])
            self._weights = torch.cat([weights for _, weights in rows])
        self._starts = [0, *torch.tensor(self._lengths).cumsum(0).tolist()] if rows else [0]

    def f1(self, passages: _Encoded, passage_rows: Sequence[int], sentences: Sequence[int]) -> list[float]:
        """F1 of passage `passage_rows[n]` against sentence `sentences[n]`, for every n."""
        order = sorted(range(len(sentences)), key=lambda n: self._lengths[sentences[n]])
        num_pieces = passages.mask_BP.shape[1]
        values = [0.0] * len(order)
        for chunk in _budgeted(order, lambda n: max(num_pieces, self._lengths[sentences[n]]), _MAX_PAIR_PIECES):
            f1_N = self._f1_chunk(passages, [passage_rows[n] for n in chunk], [sentences[n] for n in chunk])
            for n, value in zip(chunk, f1_N.tolist(), strict=True):
                values[n] = value
        return values

    def _f1_chunk(self, passages: _Encoded, passage_rows: list[int], sentences: list[int]) -> Tensor:
        device = self._vectors.device
        lengths_N = torch.tensor([self._lengths[n] for n in sentences], device=device)
        starts_N = torch.tensor([self._starts[n] for n in sentences], device=device)
        positions_S = torch.arange(int(lengths_N.max()), device=device)
        mask_NS = positions_S < lengths_N[:, None]
        index_NS = torch.where(mask_NS, starts_N[:, None] + positions_S, 0)
        rows_N = torch.tensor(passage_rows, device=device)
        similarity_NPS = passages.vectors_BPH[rows_N] @ self._vectors[index_NS].transpose(1, 2)
        passage_mask_NP = passages.mask_BP[rows_N]
        similarity_NPS = similarity_NPS.masked_fill(~(passage_mask_NP[:, :, None] & mask_NS[:, None, :]), -1.0)
        precision_N = (similarity_NPS.amax(2) * passages.weights_BP[rows_N]).sum(1)
        recall_N = (similarity_NPS.amax(1) * self._weights[index_NS] * mask_NS).sum(1)
        return torch.nan_to_num(2 * precision_N * recall_N / (precision_N + recall_N), nan=0.0)


_Idf = Callable[[int], float]


def _inverse_document_frequency(texts: Sequence[_Pieces]) -> _Idf:
    """bert-score's: log((N + 1) / (texts with the piece + 1)); 0 for the special pieces, which all texts have."""
    counts = Counter(piece for text in texts for piece in set(text.ids))
    return lambda piece: math.log((len(texts) + 1) / (counts[piece] + 1))


def _weights(text: _Pieces, idf: _Idf | None) -> list[float]:
    """Each piece's share; special pieces have none (they may be matched, and need no match)."""
    weights = [
        0.0 if special else (idf(piece) if idf else 1.0) for piece, special in zip(text.ids, text.special, strict=True)
    ]
    total = sum(weights)
    return [weight / total for weight in weights] if total else weights


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


def _length_batches(texts: Sequence[_Pieces], max_pieces: int) -> Iterator[list[int]]:
    """Indices of texts of like length, the longest first; texts times longest text is at most `max_pieces`."""
    order = sorted(range(len(texts)), key=lambda n: -len(texts[n].ids))
    return _budgeted(order, lambda n: len(texts[n].ids), max_pieces)


def _budgeted(items: Iterable[int], cost: Callable[[int], int], budget: int) -> Iterator[list[int]]:
    """Consecutive groups whose size times highest cost is at most `budget`; an item beyond it goes alone."""
    group: list[int] = []
    highest = 0
    for item in items:
        highest = max(highest, cost(item))
        if group and highest * (len(group) + 1) > budget:
            yield group
            group, highest = [], cost(item)
        group.append(item)
    if group:
        yield group


def _padded(rows: Sequence[Sequence[float]], fill: float) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def _load_encoder(path: str, layer: int | None, dtype: torch.dtype) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and encoder, cut after `layer`."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would report the layers left out
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        num_layers = config.num_hidden_layers
        if layer is not None and not 1 <= layer <= num_layers:
            raise ValueError(f"layer is {layer}; encoder {path!r} has layers 1 to {num_layers}")
        config.num_hidden_layers = layer or num_layers
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        encoder = AutoModel.from_pretrained(
            path, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, KeyError, AttributeError) as error:
        raise ValueError(
            f"encoder {path!r} does not load ({str(error).splitlines()[0]}); wanted a hub id, or a folder with "
            "config.json, model.safetensors and tokenizer files"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    return tokenizer, encoder.eval()


def _piece_limit(tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel) -> int:
    """Most pieces the encoder takes; a tokenizer that knows no limit names a huge one."""
    positions = getattr(encoder.config, "max_position_embeddings", None) or 512
    return min(tokenizer.model_max_length, positions)
