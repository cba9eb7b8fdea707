"""Texts with entities in spaCy's `.spacy` files (DocBin: zlib and msgpack, no pickle); spaCy is an optional extra."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctxner.files.forms.form import Reading
from ctxner.files.records import Record

_MAX_BYTES = 1 << 29  # decompressed: spaCy holds all documents of a file in memory


def docbin_records(path: str | Path, prefix: str, reading: Reading) -> Iterator[Record]:
    """Place, id and fields of each document: its text and entities, or its words and tags where blanks are unknown.

    A document without entity annotation has no gold. Span groups (`doc.spans`) are no entities: they are counted, and
    refused where a document has nothing else.

    Raises:
        ValueError: spaCy is not installed, the file is no DocBin, or larger than 512 MiB once decompressed.
    """
    reading.counts.recognised[str(path)] = "spaCy DocBin"
    for number, doc in enumerate(_docs(Path(path))):
        where = f"{path}: document {number + 1}"
        yield where, f"{prefix}-{number}", {**_content(doc), **_gold(doc, where, reading)}


def _docs(path: Path) -> Iterator[Any]:
    try:
        from spacy.tokens import DocBin
        from spacy.vocab import Vocab
    except ImportError as error:
        raise ValueError(
            f"{path}: .spacy files are read with spaCy, which is not installed: pip install 'ctxner[spacy]'; or export "
            "the data as JSON lines"
        ) from error
    content = path.read_bytes()
    try:
        unpacker = zlib.decompressobj()
        size = len(unpacker.decompress(content, _MAX_BYTES))
        if unpacker.unconsumed_tail:
            raise ValueError(f"more than {size:,} bytes once decompressed; split it")
        yield from DocBin().from_bytes(content).get_docs(Vocab())
    except Exception as error:  # a damaged file fails anywhere in zlib, msgpack, NumPy and spaCy
        raise ValueError(f"{path}: not readable as spaCy's DocBin ({error}); write it again") from error


def _content(doc: Any) -> dict[str, Any]:
    if doc.has_unknown_spaces:
        return {"words": [token.text for token in doc]}
    return {"text": doc.text}


def _gold(doc: Any, where: str, reading: Reading) -> dict[str, Any]:
    groups = [name for name, spans in doc.spans.items() if len(spans)]
    if groups and not doc.ents and reading.tagged:
        raise ValueError(
            f"{where}: it has span groups ({', '.join(groups):.80}) and no entities; only doc.ents is read: "
            "set it and save again"
        )
    if groups:
        reading.counts.remark("spaCy's span groups are not read", where)
    if not doc.has_annotation("ENT_IOB"):
        return {}
    if not doc.has_annotation("ENT_IOB", require_complete=True):
        reading.counts.remark("tokens without entity annotation, taken as no mention", where)
    if doc.has_unknown_spaces:
        tags = ["O" if not token.ent_type_ else f"{token.ent_iob_}-{token.ent_type_}" for token in doc]
        return {"tags": tags, "scheme": "IOB2"}
    return {"entities": [[entity.start_char, entity.end_char, entity.label_] for entity in doc.ents]}
