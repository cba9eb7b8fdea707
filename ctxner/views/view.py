"""A view: one or more windows (encoder rows) of one sentence; and a batch of views, padded to tensors."""

# R rows (windows), P pieces of the longest row, B sentences, T words of the longest sentence

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxner.schema import ScoredPassage


@dataclass(frozen=True, slots=True)
class View:
    """One sentence as encoder rows.

    Attributes:
        sentence_id: Id of the sentence.
        windows: Pieces of each row, special pieces included.
        word_places: Window and position of each word's first piece.
        passages: Passages of the example, with `num_pieces` if used and `dropped` if not; empty in the plain view.
        marks: Position of each mark around words that name an entry, and the entry's place among the used passages.
    """

    sentence_id: str
    windows: tuple[tuple[int, ...], ...]
    word_places: tuple[tuple[int, int], ...]
    passages: tuple[ScoredPassage, ...] = ()
    marks: tuple[tuple[int, int], ...] = ()

    @property
    def num_rows(self) -> int:
        """Number of windows."""
        return len(self.windows)

    @property
    def num_pieces(self) -> int:
        """Number of pieces in all windows."""
        return sum(len(window) for window in self.windows)

    @property
    def longest_row(self) -> int:
        """Number of pieces in the longest window."""
        return max(len(window) for window in self.windows)


@dataclass(frozen=True, slots=True)
class ViewBatch:
    """Several views, padded to tensors.

    The type exists because:
    1. Sentences and rows are counted differently: a long sentence has several rows (R), but one line of words (B, T).
       `word_index_BT` maps words to pieces, and no other code needs to know about windows.
    2. Only the first piece of each word reaches the CRF. A passage's pieces have no entry in `word_index_BT`, so that
       plain and context views look the same after the encoder: [B, T, L].
    3. Padding of pieces and padding of words have separate masks, which cannot be confused.
    4. Training, evaluation, tagging and serving use one way of padding and of moving a batch to a device.

    Attributes:
        input_ids_RP: Ids of pieces, right-padded.
        attention_RP: 1 on pieces, 0 on padding.
        word_index_BT: Index of each word's first piece in the flattened [R * P]; 0 on padding.
        mask_BT: True on words; right-padded.
        tags_BT: Label ids, 0 on padding; None without gold.
    """

    input_ids_RP: Tensor
    attention_RP: Tensor
    word_index_BT: Tensor
    mask_BT: Tensor
    tags_BT: Tensor | None = None

    def to(self, device: torch.device | str) -> ViewBatch:
        """The same batch on another device."""
        return ViewBatch(
            self.input_ids_RP.to(device),
            self.attention_RP.to(device),
            self.word_index_BT.to(device),
            self.mask_BT.to(device),
            None if self.tags_BT is None else self.tags_BT.to(device),
        )


def keep_passages(view: View, pieces: Sequence[int], number: int) -> View:
    """A context view with its first `number` passages.

    Args:
        view: Context view; of one row, unless it has no passages.
        pieces: Number of pieces of each passage in it, best first.
        number: Number of passages to keep; with all of them the view is returned unchanged.

    Returns:
        A view without `passages`: training does not read them.
    """
    if number >= len(pieces):
        return view
    [row] = view.windows
    without = row[: len(row) - 1 - sum(pieces[number:])]
    gone = [position for position, used in view.marks if used >= number]
    left = [piece for position, piece in enumerate(without) if position not in gone] if gone else without
    places = view.word_places
    if gone:
        places = tuple((0, place - bisect_left(gone, place)) for _, place in places)
    return View(view.sentence_id, ((*left, row[-1]) if number else tuple(left),), places)
