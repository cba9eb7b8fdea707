"""Provides views with as many passages as an epoch shows; views and their sizes are kept in memory or in a store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np

from ctxner.schema import Example, ViewName
from ctxner.training.data.view_key import views_key
from ctxner.training.data.view_store import ViewStore, open_views
from ctxner.views.builder import ViewBuilder
from ctxner.views.view import View, keep_passages


class ListedViews(list[View]):
    """Views kept in memory, with the sizes that `ShownViews` reads."""

    def passage_pieces(self, index: int) -> tuple[int, ...]:
        """Number of pieces of each passage used in a view, best passage first."""
        return tuple(passage.num_pieces for passage in self[index].passages if passage.num_pieces is not None)

    def mark_places(self, index: int) -> tuple[int, ...]:
        """For each mark in a view's row, the place of its entry among the used passages."""
        return tuple(used for _, used in self[index].marks)

    @cached_property
    def num_rows(self) -> np.ndarray:
        """Number of windows of each view, int64 [views]."""
        return np.array([view.num_rows for view in self], np.int64)

    @cached_property
    def longest_row(self) -> np.ndarray:
        """Number of pieces in the longest window of each view, int64 [views]."""
        return np.array([view.longest_row for view in self], np.int64)

    @cached_property
    def num_passages(self) -> np.ndarray:
        """Number of passages used in each view, int64 [views]."""
        return np.array([len(self.passage_pieces(index)) for index in range(len(self))], np.int64)


StoredViews = ListedViews | ViewStore


class ShownViews(Sequence[View]):
    """Views with only as many of their passages as an epoch shows.

    Args:
        views: Views with all their passages.
        kept: Number of passages to keep in each view, best first, [views]; None: keep all.
    """

    def __init__(self, views: StoredViews, kept: np.ndarray | None = None) -> None:
        self._views, self._kept = views, kept

    def __len__(self) -> int:
        """Number of views."""
        return len(self._views)

    @overload
    def __getitem__(self, index: int) -> View: ...
    @overload
    def __getitem__(self, index: slice) -> list[View]: ...
    def __getitem__(self, index: int | slice) -> View | list[View]:
        """One view, or a list of views, with only the kept passages."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        view = self._views[index]
        if self._kept is None:
            return view
        return keep_passages(view, self._views.passage_pieces(index), int(self._kept[index]))

    def shape(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of rows, and number of pieces in the longest row, of each view."""
        longest = self._views.longest_row
        if self._kept is not None:
            left_out = [
                sum(self._views.passage_pieces(index)[kept:])
                + (kept == 0)
                + sum(used >= kept for used in self._views.mark_places(index))
                for index, kept in enumerate(self._kept.tolist())
            ]
            longest = longest - np.where(self._kept < self._views.num_passages, left_out, 0)
        return self._views.num_rows, longest


def build_views(examples: Iterable[Example], builder: ViewBuilder, which: ViewName, cache: Path | None) -> StoredViews:
    """Build one view of every example.

    Args:
        examples: Examples in an iterable that can be read twice.
        builder: Builder of the views.
        which: Kind of view, plain or context.
        cache: Folder where views are kept (see `open_views`); None: views stay in memory.

    Raises:
        ValueError: A sentence has no words, or the folder cannot be used.
    """
    if cache is not None:
        return open_views(cache, views_key(examples, builder, which), examples, builder, which)
    make = builder.context if which == "context" else lambda example: builder.plain(example.sentence)
    return ListedViews(map(make, examples))
