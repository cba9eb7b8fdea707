"""BERTScore: how well the pieces of two texts match in an encoder's space.

Scores equal those of the package bert-score without its rescaling (Zhang et al., "BERTScore", ICLR 2020). Vectors come
from `ctxner.retrieval.rerank.encoder`; the order in which passages are scored, and what follows, is
`ctxner.retrieval.rerank.reranker`.
"""

# N sentence-passage pairs, P a text's pieces padded, S a sentence's, H hidden width, T all pieces of a bank

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ctxner.retrieval.rerank.encoder import EncodedText

_MAX_PAIR_PIECES = 16_384  # sentence and passage pieces gathered at once; 25 MB each at 384 floats a piece
_WIDTH_STEP = 16  # pieces; a pair is padded by its own lengths alone, so its score depends on no other pair


class TextBank:
    """Unit vectors of texts, end to end, from which any texts are gathered as one padded tensor."""

    def __init__(self, texts: Sequence[EncodedText], *, idf: np.ndarray | None, device: torch.device):
        """Lay out at least one text; `idf` is by piece id, None weighs all pieces alike."""
        lengths = np.array([len(text.ids) for text in texts])
        vectors_TH = torch.cat([text.vectors for text in texts]).to(device).float()
        zero_1H = vectors_TH.new_zeros(1, vectors_TH.shape[1])
        self.widths = np.maximum(1, -(-lengths // _WIDTH_STEP)) * _WIDTH_STEP
        self._lengths = torch.from_numpy(lengths).to(device)
        self._starts = torch.from_numpy(np.cumsum(lengths) - lengths).to(device)
        self._vectors_TH = torch.cat([torch.nn.functional.normalize(vectors_TH, dim=-1), zero_1H])
        self._weights_T = torch.from_numpy(np.append(_weights(texts, lengths, idf), 0.0)).to(device)

    def gather(self, rows: np.ndarray, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors [N, width, H], each piece's share of its text's mean [N, width], mask [N, width]."""
        rows_N = torch.from_numpy(rows).to(self._lengths.device)
        positions_P = torch.arange(width, device=rows_N.device)
        mask_NP = positions_P < self._lengths[rows_N, None]
        index_NP = torch.where(mask_NP, self._starts[rows_N, None] + positions_P, len(self._weights_T) - 1)
        return self._vectors_TH[index_NP], self._weights_T[index_NP], mask_NP


@torch.inference_mode()
def f1(passages: TextBank, sentences: TextBank, passage_rows: np.ndarray, sentence_rows: np.ndarray) -> np.ndarray:
    """[N] float32: F1 of passage `passage_rows[n]` against sentence `sentence_rows[n]`; 0 where one has no pieces."""
    values = np.zeros(len(passage_rows), np.float32)
    for group in _groups(passages.widths[passage_rows], sentences.widths[sentence_rows]):
        vectors_NPH, passage_weights_NP, passage_mask_NP = passages.gather(
            passage_rows[group], int(passages.widths[passage_rows[group[0]]])
        )
        vectors_NSH, sentence_weights_NS, sentence_mask_NS = sentences.gather(
            sentence_rows[group], int(sentences.widths[sentence_rows[group[0]]])
        )
        similarity_NPS = vectors_NPH @ vectors_NSH.transpose(1, 2)
        similarity_NPS.masked_fill_(~(passage_mask_NP[:, :, None] & sentence_mask_NS[:, None, :]), -1.0)
        precision_N = (similarity_NPS.amax(2) * passage_weights_NP).sum(1)
        recall_N = (similarity_NPS.amax(1) * sentence_weights_NS).sum(1)
        f1_N = torch.nan_to_num(2 * precision_N * recall_N / (precision_N + recall_N), nan=0.0)
        values[group] = f1_N.float().cpu().numpy()
    return values


def inverse_document_frequency(texts: Sequence[EncodedText], num_ids: int) -> np.ndarray:
    """bert-score's, by piece id: log((N + 1) / (texts with the piece + 1))."""
    counts = np.zeros(num_ids)
    for text in texts:
        counts[np.unique(text.ids)] += 1
    return np.log((len(texts) + 1) / (counts + 1))


def _weights(texts: Sequence[EncodedText], lengths: np.ndarray, idf: np.ndarray | None) -> np.ndarray:
    """[T] float64: each piece's share; special pieces have none (they may be matched, and need no match)."""
    weights = np.where(
        np.concatenate([text.special for text in texts]),
        0.0,
        1.0 if idf is None else idf[np.concatenate([text.ids for text in texts])],
    )
    owner = np.repeat(np.arange(len(texts)), lengths)
    totals = np.bincount(owner, weights, minlength=len(texts))[owner]
    return np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)


def _groups(passage_widths: np.ndarray, sentence_widths: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of pairs of the same two widths, `_MAX_PAIR_PIECES` at most at once; a pair beyond that goes alone."""
    order = np.lexsort((sentence_widths, passage_widths))
    same = (np.diff(passage_widths[order]) == 0) & (np.diff(sentence_widths[order]) == 0)
    for group in np.split(order, np.flatnonzero(~same) + 1) if len(order) else ():
        widest = max(passage_widths[group[0]], sentence_widths[group[0]])
        size = max(1, _MAX_PAIR_PIECES // int(widest))
        yield from (group[start : start + size] for start in range(0, len(group), size))
