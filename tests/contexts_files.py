"""Contexts files for tests, as `ctxner retrieve` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ctxner.files.contexts import Context, context_row
from ctxner.schema import context_schema


def write_contexts(contexts: Mapping[str, Context], path: Path) -> None:
    """Write one Parquet file; its folder is made when absent."""
    rows = [context_row(sentence_id, context) for sentence_id, context in contexts.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=context_schema()), path)
