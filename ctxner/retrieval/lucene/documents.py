"""Passages <-> Lucene documents, in Anserini's layout, so that its tools can open the index too.

    id        indexed unchanged and stored; also a doc value, which orders equal scores
    contents  title, newline, text, in `analyzed_form`; analyzed, with positions, for exact phrases; not stored
    kind      `text` for passages that are searched for, `entry` for those that are found by name only
    raw       the whole passage as JSON; stored

A batch of passages crosses between Python and Java as one string (see `ctxner.retrieval.lucene.method_handles`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from json.encoder import encode_basestring
from typing import Any

from ctxner.retrieval.lucene.jvm import java_class
from ctxner.retrieval.lucene.method_handles import (
    STRING,
    as_interface,
    as_type,
    bound,
    chain,
    characters,
    constructor,
    handles,
    java_type,
    method,
)
from ctxner.retrieval.text import analyzed_form
from ctxner.schema import Passage

CONTENTS = "contents"
ID = "id"
KIND = "kind"
TEXT = "text"
_RAW = "raw"
_DOCUMENT_END = "\x1e"  # neither is in a passage: control characters are replaced when a corpus is read
_FIELD_END = "\x1f"
_READ_AT_ONCE = 2000  # documents
_FIELDS = "org.apache.lucene.document."
_DOCUMENT = _FIELDS + "Document"
_STORED = "org.apache.lucene.index.StoredFields"
_STORE = _FIELDS + "Field$Store"
_TYPE = "org.apache.lucene.index.IndexableFieldType"
_BYTES = "org.apache.lucene.util.BytesRef"


def document_text(passage: Passage) -> str:
    """The string form of a passage for Java: id, contents and raw."""
    contents = f"{passage.title}\n{passage.text}" if passage.title else passage.text
    title = f', "title": {encode_basestring(passage.title)}' if passage.title else ""
    if passage.type:
        title += f', "type": {encode_basestring(passage.type)}'
    if passage.aliases:
        title += f', "aliases": [{", ".join(map(encode_basestring, passage.aliases))}]'
    raw = (
        f'{{"id": {encode_basestring(passage.id)}, "contents": {encode_basestring(contents)}, '
        f'"source": {encode_basestring(passage.source)}{title}}}'
    )
    return _FIELD_END.join((passage.id, analyzed_form(contents), TEXT if passage.is_text else "entry", raw))


def java_documents(texts: Sequence[str]) -> Any:
    """A Java list of Lucene documents.

    Args:
        texts: At least one passage, in the form of `document_text`.

    Raises:
        ValueError: A passage contains a separator, which `read_corpus` would have replaced.
    """
    joined = _DOCUMENT_END.join(texts)
    if joined.count(_DOCUMENT_END) != len(texts) - 1 or joined.count(_FIELD_END) != 3 * len(texts):
        raise ValueError("a passage holds the control character U+001E or U+001F; replace it by a blank")
    split = java_class("java.util.regex.Pattern").compile(_DOCUMENT_END)
    return split.splitAsStream(characters(joined)).map(_document_maker()).toList()


def stored_passage(raw: str) -> Passage:
    """The passage of a document, from its stored JSON."""
    record = json.loads(raw)
    title = record.get("title", "")
    text = record[CONTENTS][len(title) + 1 :] if title else record[CONTENTS]
    aliases = tuple(record.get("aliases", ()))
    return Passage(record[ID], record["source"], text, title, aliases=aliases, type=record.get("type", ""))


def stored_passages(reader: Any) -> Iterator[Passage]:
    """All passages of an open index without deletions, in the order of its documents."""
    raw_of = as_interface("java.util.function.IntFunction", raw_reader(reader))
    end = characters(_DOCUMENT_END)
    numbers = java_class("java.util.stream.IntStream")
    collectors = java_class("java.util.stream.Collectors")
    for first in range(0, reader.maxDoc(), _READ_AT_ONCE):
        last = min(first + _READ_AT_ONCE, reader.maxDoc())
        text = numbers.range(first, last).mapToObj(raw_of).collect(collectors.joining(end))
        for raw in text.split(_DOCUMENT_END):
            yield stored_passage(raw)


def raw_reader(reader: Any) -> Any:
    """A method handle: document number -> stored JSON of its passage."""
    stored_fields = method("org.apache.lucene.index.IndexReader", "storedFields", _STORED).bindTo(reader)
    document = handles().foldArguments(method(_STORED, "document", _DOCUMENT, "int"), stored_fields)
    return chain(document, bound(method(_DOCUMENT, "get", STRING, STRING), 1, _RAW))


@cache
def _document_maker() -> Any:
    """A Java function: string form of a passage -> Lucene document."""
    id_field = bound(constructor(_FIELDS + "StringField", STRING, STRING, _STORE), 0, ID)
    id_field = bound(id_field, 1, java_class(_STORE).YES)
    id_value = bound(constructor(_FIELDS + "BinaryDocValuesField", STRING, _BYTES), 0, ID)
    id_value = handles().filterArguments(id_value, 0, constructor(_BYTES, "java.lang.CharSequence"))
    contents = bound(constructor(_FIELDS + "Field", STRING, "java.lang.CharSequence", _TYPE), 0, CONTENTS)
    contents = bound(contents, 1, _contents_type())
    kind = bound(constructor(_FIELDS + "StringField", STRING, STRING, _STORE), 0, KIND)
    kind = bound(kind, 1, java_class(_STORE).NO)
    raw = bound(constructor(_FIELDS + "StoredField", STRING, STRING), 0, _RAW)

    add = method(_DOCUMENT, "add", "void", "org.apache.lucene.index.IndexableField")
    strings = java_type("[" + STRING)
    fill = handles().dropArguments(
        handles().identity(java_type(_DOCUMENT)), 1, strings
    )  # (document, parts) -> document
    for part, field in ((3, raw), (2, kind), (1, contents), (0, id_value), (0, id_field)):  # the last is added first
        place = java_class("java.lang.Integer")(part)  # pyjnius crashes on a Python number here
        of_part = bound(handles().arrayElementGetter(strings), 1, place)
        add_field = handles().filterArguments(add, 1, as_type(field, "org.apache.lucene.index.IndexableField", STRING))
        fill = handles().foldArguments(fill, handles().filterArguments(add_field, 1, of_part))
    # parts -> document
    make = handles().foldArguments(fill, handles().dropArguments(constructor(_DOCUMENT), 0, strings))
    split = bound(method(STRING, "split", "[" + STRING, STRING), 1, _FIELD_END)
    return as_interface("java.util.function.Function", handles().filterArguments(make, 0, split))


def _contents_type() -> Any:
    kind = java_class("org.apache.lucene.document.FieldType")()
    kind.setIndexOptions(java_class("org.apache.lucene.index.IndexOptions").DOCS_AND_FREQS_AND_POSITIONS)
    kind.freeze()
    return kind
