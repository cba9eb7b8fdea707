"""Passages <-> Lucene documents, in Anserini's layout: its tools can open the index too.

    id        indexed as it is and stored; also as a doc value, which orders equal scores
    contents  title, newline, text: analyzed, with positions so that exact phrases can be looked up; not stored
    raw       JSON with all of the passage: stored

A call from Python to Java costs microseconds and Python's lock: passages cross in batches, as one text, and Java method
handles, composed once, make the documents without coming back to Python.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from json.encoder import encode_basestring
from typing import Any

from ctxner.retrieval.jvm import java_class
from ctxner.schema import Passage

CONTENTS = "contents"
ID = "id"
_RAW = "raw"
_DOCUMENT_END = "\x1e"  # neither is in a passage: control characters are cleaned away when a corpus is read
_FIELD_END = "\x1f"
_READ_AT_ONCE = 2000  # documents
_STRING = "java.lang.String"
_FIELDS = "org.apache.lucene.document."
_DOCUMENT = _FIELDS + "Document"
_STORE = _FIELDS + "Field$Store"
_TYPE = "org.apache.lucene.index.IndexableFieldType"
_BYTES = "org.apache.lucene.util.BytesRef"


def document_text(passage: Passage) -> str:
    """A passage as it goes to Java: id, contents and raw."""
    contents = f"{passage.title}\n{passage.text}" if passage.title else passage.text
    title = f', "title": {encode_basestring(passage.title)}' if passage.title else ""
    raw = (
        f'{{"id": {encode_basestring(passage.id)}, "contents": {encode_basestring(contents)}, '
        f'"source": {encode_basestring(passage.source)}{title}}}'
    )
    return f"{passage.id}{_FIELD_END}{contents}{_FIELD_END}{raw}"


def java_documents(texts: Sequence[str]) -> Any:
    """A Java list of Lucene documents.

    Args:
        texts: At least one, as `document_text` gives them.

    Raises:
        ValueError: A passage holds one of the separators, which `read_corpus` would have replaced.
    """
    joined = _DOCUMENT_END.join(texts)
    if joined.count(_DOCUMENT_END) != len(texts) - 1 or joined.count(_FIELD_END) != 2 * len(texts):
        raise ValueError("a passage holds the control character U+001E or U+001F; replace it by a blank")
    split = java_class("java.util.regex.Pattern").compile(_DOCUMENT_END)
    return split.splitAsStream(_characters(joined)).map(_document_maker()).toList()


def stored_passage(raw: str) -> Passage:
    """A passage from the JSON that its document stores."""
    record = json.loads(raw)
    title = record.get("title", "")
    text = record[CONTENTS][len(title) + 1 :] if title else record[CONTENTS]
    return Passage(record[ID], record["source"], text, title=title)


def stored_passages(reader: Any) -> Iterator[Passage]:
    """All passages of an open index without deletions, in the order of its documents."""
    import jnius

    stored = jnius.cast("java.lang.Object", reader.storedFields())
    get_document = _method("org.apache.lucene.index.StoredFields", "document", "int", _DOCUMENT).bindTo(stored)
    get_raw = _method(_DOCUMENT, "get", "java.lang.String", "java.lang.String")
    get_raw = java_class("java.lang.invoke.MethodHandles").insertArguments(get_raw, 1, "raw")
    raw_of = _as_interface(
        "java.util.function.IntFunction",
        java_class("java.lang.invoke.MethodHandles").filterReturnValue(get_document, get_raw),
    )
    end = _characters(_DOCUMENT_END)
    numbers = java_class("java.util.stream.IntStream")
    collectors = java_class("java.util.stream.Collectors")
    for first in range(0, reader.maxDoc(), _READ_AT_ONCE):
        last = min(first + _READ_AT_ONCE, reader.maxDoc())
        text = numbers.range(first, last).mapToObj(raw_of).collect(collectors.joining(end))
        for raw in text.split(_DOCUMENT_END):
            yield stored_passage(raw)


@cache
def _document_maker() -> Any:
    """A Java function from the text of a document to Lucene's document."""
    handles = java_class("java.lang.invoke.MethodHandles")
    strings = java_class("java.lang.Class").forName("[Ljava.lang.String;")
    id_field = handles.insertArguments(_constructor(_FIELDS + "StringField", _STRING, _STRING, _STORE), 0, ID)
    id_field = handles.insertArguments(id_field, 1, java_class(_STORE).YES)
    id_value = handles.insertArguments(_constructor(_FIELDS + "BinaryDocValuesField", _STRING, _BYTES), 0, ID)
    id_bytes = _constructor(_BYTES, "java.lang.CharSequence")
    id_value = handles.filterArguments(id_value, 0, id_bytes)
    contents = _constructor(_FIELDS + "Field", _STRING, "java.lang.CharSequence", _TYPE)
    contents = handles.insertArguments(contents, 0, CONTENTS)
    contents = handles.insertArguments(contents, 1, _contents_type())
    raw = handles.insertArguments(_constructor(_FIELDS + "StoredField", _STRING, _STRING), 0, _RAW)

    add = _method(_DOCUMENT, "add", "org.apache.lucene.index.IndexableField", "void")
    document = _class(_DOCUMENT)
    fill = handles.dropArguments(handles.identity(document), 1, strings)  # (document, parts) -> document
    for part, field in ((2, raw), (1, contents), (0, id_value), (0, id_field)):  # the last is added first
        place = java_class("java.lang.Integer")(part)  # pyjnius crashes on a Python number here
        of_part = handles.insertArguments(handles.arrayElementGetter(strings), 1, place)
        add_field = handles.filterArguments(add, 1, _as_type(field, "org.apache.lucene.index.IndexableField", _STRING))
        fill = handles.foldArguments(fill, handles.filterArguments(add_field, 1, of_part))
    make = handles.foldArguments(fill, handles.dropArguments(_constructor(_DOCUMENT), 0, strings))  # parts -> document
    split = handles.insertArguments(_method(_STRING, "split", _STRING, "[" + _STRING), 1, _FIELD_END)
    return _as_interface("java.util.function.Function", handles.filterArguments(make, 0, split))


def _contents_type() -> Any:
    kind = java_class("org.apache.lucene.document.FieldType")()
    kind.setIndexOptions(java_class("org.apache.lucene.index.IndexOptions").DOCS_AND_FREQS_AND_POSITIONS)
    kind.freeze()
    return kind


def _constructor(owner: str, *arguments: str) -> Any:
    """A handle of a public constructor."""
    return (
        java_class("java.lang.invoke.MethodHandles")
        .publicLookup()
        .findConstructor(_class(owner), _type("void", *arguments))
    )


def _method(owner: str, name: str, argument: str, result: str) -> Any:
    """A handle of a public method of one argument."""
    lookup = java_class("java.lang.invoke.MethodHandles").publicLookup()
    return lookup.findVirtual(_class(owner), name, _type(result, argument))


def _as_type(handle: Any, result: str, *arguments: str) -> Any:
    return handle.asType(_type(result, *arguments))


def _type(result: str, *arguments: str) -> Any:
    """A method type; an array's name begins with `[`."""
    descriptor = f"({''.join(map(_descriptor, arguments))}){_descriptor(result)}"
    return java_class("java.lang.invoke.MethodType").fromMethodDescriptorString(descriptor, None)


def _descriptor(name: str) -> str:
    if name.startswith("["):
        return "[" + _descriptor(name[1:])
    return {"void": "V", "int": "I"}.get(name, f"L{name.replace('.', '/')};")


def _class(name: str) -> Any:
    return java_class("java.lang.Class").forName(name)


def _as_interface(name: str, handle: Any) -> Any:
    """A Java object with a functional interface whose one method is the handle."""
    import jnius

    return jnius.cast(
        name, java_class("java.lang.invoke.MethodHandleProxies").asInterfaceInstance(_class(name), handle)
    )


def _characters(text: str) -> Any:
    """A Java CharSequence; from bytes, as pyjnius would take the string for an array of 16-bit characters."""
    characters = java_class(_STRING)(text.encode(), "UTF-8")
    import jnius

    return jnius.cast("java.lang.CharSequence", characters)
