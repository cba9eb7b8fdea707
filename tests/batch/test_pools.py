"""Actors share the cores of their own node, not those of all nodes."""

from __future__ import annotations

import pytest

from ctxner.batch.pools import threads_of


@pytest.mark.parametrize(
    ("num_cores", "num_actors", "num_nodes", "expected"),
    [(16, 1, 1, 16), (16, 4, 1, 4), (16, 8, 8, 16), (16, 9, 8, 8), (16, 3, 8, 16), (2, 5, 1, 1)],
)
def test_threads_of_actors_on_several_nodes(num_cores: int, num_actors: int, num_nodes: int, expected: int) -> None:
    assert threads_of(num_cores, num_actors, num_nodes) == expected
