"""Contexts for a control: each sentence gets the passages that were retrieved for another sentence."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from ctxner.files.contexts import context_row, read_contexts
from ctxner.schema import context_schema

_SEED = 0


def shuffle_contexts(source: Path, target: Path) -> int:
    """Write contexts files whose passages are those of other sentences of the same file; returns their number.

    The sentences of a file pass their passages on in one circle drawn once, so none keeps its own. Marks around the
    words that name an entry go: they are places in the other sentence. An entry then counts as a text.

    Args:
        source: Folder of contexts files.
        target: Folder to write to.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.parquet")):
        contexts = read_contexts(path)
        circle = list(contexts)
        random.Random(_SEED).shuffle(circle)
        giver = dict(zip(circle, [*circle[1:], *circle[:1]], strict=True))
        rows = []
        for id, context in contexts.items():
            other = contexts[giver[id]]
            passages = tuple(replace(scored, named=(), link_score=None) for scored in other.passages)
            rows.append(context_row(id, replace(context, passages=passages, error=other.error)))
        pq.write_table(pa.Table.from_pylist(rows, schema=context_schema()), target / path.name)
        number += len(rows)
    return number
