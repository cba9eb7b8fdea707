"""Tagged documents as they are written: their schema, and a writer for each format. Writers stream; none is atomic.

`ctxner.batch.annotation_files` has the formats of annotation tools, `ctxner.batch.tagging_files` joins the documents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ctxner.batch import annotation_files
from ctxner.files.columns import column_lines
from ctxner.schema import Sentence, passage_struct

Format = Literal["parquet", "jsonl", "conll", "spacy", "brat", "label-studio", "doccano"]
WITH_WORDS: frozenset[Format] = frozenset({"conll", "spacy"})  # formats that need the words of each sentence
NAMES: Mapping[Format, str] = {  # of the result's files and folders
    "parquet": "tagged.parquet",
    "jsonl": "tagged.jsonl",
    "conll": "tagged.conll",
    "spacy": "tagged.spacy",
    "brat": "tagged.brat",
    "label-studio": "tagged.label-studio.json",
    "doccano": "tagged.doccano.jsonl",
}
FOLDERS = ("spacy", "brat")


def entity_struct() -> pa.StructType:
    """Arrow type of an entity: character offsets in the document, and the number of its sentence there."""
    number, place = pa.int32(), pa.int64()
    fields = [("text", pa.string()), ("type", pa.string()), ("start", place), ("end", place)]
    return pa.struct([*fields, ("confidence", pa.float32()), ("sentence", number)])


def sentence_struct() -> pa.StructType:
    """Arrow type of a sentence: character offsets in the document, the view that answered, and optional values."""
    alternative = pa.struct([("probability", pa.float64()), ("entities", pa.list_(entity_struct()))])
    return pa.struct(
        [
            ("start", pa.int64()),
            ("end", pa.int64()),
            ("view", pa.string()),
            ("reason", pa.string()),  # `ctxner.schema.Reason` of a plain answer where another view was asked for
            ("entropy", pa.float32()),  # of the view that answered, in nats
            ("error", pa.string()),  # error of retrieval
            ("passages", pa.list_(passage_struct())),  # null unless asked for
            ("words", pa.list_(pa.string())),  # null unless a format of `WITH_WORDS` is written
            ("tags", pa.list_(pa.string())),
            ("alternatives", pa.list_(alternative)),  # null unless asked for
        ]
    )


def document_schema() -> pa.Schema:
    """Schema of a tagged document."""
    entities, sentences = pa.list_(entity_struct()), pa.list_(sentence_struct())
    texts = [("id", pa.string()), ("text", pa.string())]
    return pa.schema([*texts, ("entities", entities), ("sentences", sentences), ("error", pa.string())])


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    with pq.ParquetWriter(path, document_schema()) as writer:
        yield writer.write_table


@contextmanager
def _text(path: Path, lines: Callable[[Mapping[str, Any]], Iterable[str]]) -> Iterator[annotation_files.Write]:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield lambda row: file.writelines(f"{line}\n" for line in lines(row))


@contextmanager
def _by_row(writer: AbstractContextManager[annotation_files.Write]) -> Iterator[Callable[[pa.Table], None]]:
    with writer as write:

        def write_table(table: pa.Table) -> None:
            for row in table.to_pylist():
                write(row)

        yield write_table


def _json_lines(row: Mapping[str, Any]) -> Iterator[str]:
    """The document as a JSON object, without the null values of its sentences."""
    sentences = [
        {name: value for name, value in sentence.items() if value is not None} for sentence in row["sentences"]
    ]
    yield json.dumps({**row, "sentences": sentences}, ensure_ascii=False)


def _conll_lines(row: Mapping[str, Any]) -> Iterator[str]:
    """A comment line with the document's id, then its sentences."""
    yield f"# document = {' '.join(row['id'].split())}"
    for sentence in row["sentences"]:
        yield from column_lines(Sentence(row["id"], tuple(sentence["words"]), tuple(sentence["tags"])))
        yield ""
    if not row["sentences"]:
        yield ""


WRITERS: Mapping[Format, Callable[[Path], AbstractContextManager[Callable[[pa.Table], None]]]] = {
    "parquet": _parquet,
    "jsonl": lambda path: _by_row(_text(path, _json_lines)),
    "conll": lambda path: _by_row(_text(path, _conll_lines)),
    "spacy": lambda path: _by_row(annotation_files.spacy(path)),
    "brat": lambda path: _by_row(annotation_files.brat(path)),
    "label-studio": lambda path: _by_row(annotation_files.label_studio(path)),
    "doccano": lambda path: _by_row(annotation_files.doccano(path)),
}
