"""Which views share a batch: of similar length, within a budget of pieces, the same for every number of workers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from ctxner.views.view import View


def pack_batches(
    shapes: Sequence[tuple[int, ...]],
    *,
    max_pieces: int,
    max_sentences: int | None = None,
    call_pieces: int | None = None,
) -> list[list[int]]:
    """Token-budget batches with length bucketing, longest first.

    With two views, sentences are bucketed by the first view's width in steps of four pieces and ordered by the second's
    within a bucket: on WNUT-17 that pads half as much as ordering by the sum.

    Args:
        shapes: Shape of each sentence: number of rows, then number of pieces in the longest row of each view.
        max_pieces: Most pieces per batch, over its views and with padding; a longer sentence is a batch by itself.
        max_sentences: Most sentences per batch; None for no bound.
        call_pieces: Fixed cost of a forward pass, in pieces; a batch is closed when its padding exceeds it.

    Returns:
        Lists of indices into `shapes`; every index once.
    """
    order = sorted(range(len(shapes)), key=lambda index: (*_bucket(shapes[index]), index))
    batches: list[list[int]] = []
    num_rows = padding = 0
    widths: tuple[int, ...] = ()
    for index in order:
        rows, *longest = shapes[index]
        wider = tuple(map(max, widths, longest)) if num_rows else tuple(longest)
        full = max_sentences is not None and num_rows and len(batches[-1]) >= max_sentences
        padding += rows * (sum(wider) - sum(longest))
        full = full or (call_pieces is not None and padding > call_pieces)
        if not batches or full or (num_rows + rows) * sum(wider) > max_pieces:
            batches.append([])
            num_rows, padding, wider = 0, 0, tuple(longest)
        batches[-1].append(index)
        num_rows, widths = num_rows + rows, wider
    return batches


def _bucket(shape: tuple[int, ...]) -> tuple[int, ...]:
    *coarse, last = shape[1:]
    return (*(-(width // 4) for width in coarse), -last)


def epoch_batches(
    shapes: Sequence[tuple[int, ...]],
    *,
    max_pieces: int,
    max_sentences: int,
    seed: int,
    epoch: int,
    pool_batches: int = 128,
) -> list[list[int]]:
    """Training batches of one epoch: a global shuffle, bucketed by length within pools, batches in random order.

    The arguments are those of `pack_batches`. The order depends on (seed, epoch) only, not on the number of workers.
    """
    rng = random.Random(f"{seed}-{epoch}")  # noqa: S311 - the same again, not a secret
    order = list(range(len(shapes)))
    rng.shuffle(order)
    pool_size = pool_batches * max_sentences
    batches: list[list[int]] = []
    for first in range(0, len(order), pool_size):
        pool = order[first : first + pool_size]
        packed = pack_batches([shapes[index] for index in pool], max_pieces=max_pieces, max_sentences=max_sentences)
        batches.extend([pool[place] for place in batch] for batch in packed)
    rng.shuffle(batches)
    return batches


def padding_share(views: Sequence[View], batches: Iterable[Sequence[int]]) -> float:
    """Share of padding among all pieces of the batches, which are lists of indices into `views`."""
    real = padded = 0
    for batch in batches:
        real += sum(views[index].num_pieces for index in batch)
        padded += sum(views[index].num_rows for index in batch) * max(views[index].longest_row for index in batch)
    return 1 - real / padded if padded else 0.0
