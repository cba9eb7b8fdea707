"""The records of a file by its format; which form they have is told by `ctxner.files.forms.recognise`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ctxner.files.arrow import arrow_records
from ctxner.files.brat import brat_records
from ctxner.files.docbin import docbin_records
from ctxner.files.forms.form import Reading
from ctxner.files.jsonl import jsonl_records
from ctxner.files.parquet import parquet_records
from ctxner.files.paths import Kind
from ctxner.files.records import Record

_READERS: dict[Kind, Callable[[Path, str, Reading], Iterator[Record]]] = {
    "jsonl": jsonl_records,
    "json": jsonl_records,
    "parquet": parquet_records,
    "arrow": arrow_records,
    "spacy": docbin_records,
    "brat": brat_records,
}


def records_of(path: Path, kind: Kind, id_prefix: str, reading: Reading) -> Iterator[Record]:
    """Place, id and fields of each record of a file, or of a folder that is one data set, in any format but columns."""
    return _READERS[kind](path, id_prefix, reading)
