"""Recognising the form of records, and turning them into those of `ctxner.files.records`.

JSON lines, JSON arrays, Parquet and Arrow files share this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ctxner.files.forms.annotated_texts import (
    DOCCANO,
    LABEL_STUDIO,
    LABEL_STUDIO_MINIMAL,
    PRODIGY,
    SPACY_PAIRS,
    TEXT,
    TEXT_WITH_ENTITIES,
    pair_fields,
)
from ctxner.files.forms.form import Fields, Form, Reading
from ctxner.files.forms.tagged_words import GLINER, TOKENS, WORDS, WORDS_WITH_TAGS
from ctxner.files.lines import SURROGATE
from ctxner.files.records import Record

# The first that fits counts, so the narrower ones come first.
_FORMS = (
    *(LABEL_STUDIO_MINIMAL, LABEL_STUDIO, PRODIGY, GLINER, TOKENS),
    *(WORDS, WORDS_WITH_TAGS, DOCCANO, TEXT, TEXT_WITH_ENTITIES),
)
_PLAIN = (TEXT, WORDS)  # without gold: they belong to any form
CONTENT_KEYS = ("words", "text", "tokens", "tokenized_text", "data")
GOLD_KEYS = ("answer", "relations", "spans", "ner_tags", "tags", "ner", "annotations", "completions")
IDS = ("id", "sentence_id")


def recognised(
    values: Iterable[tuple[str, Any]], path: str | Path, container: str, prefix: str, reading: Reading
) -> Iterator[Record]:
    """The records of a file in any of the known forms; what it was recognised as is noted in the counts.

    Args:
        values: Place and content of each record.
        path: The file, by which the form is noted.
        container: Name of the file's format, e.g. `JSON lines`.
        prefix: Beginning of ids that the file does not give; the number of the record from 0 follows.
        reading: Whether gold is wanted, names of tags, counters.

    Raises:
        ValueError: A record in no known form, or one whose gold cannot be read, if gold is wanted.
    """
    first: Form | None = None
    for number, (where, value) in enumerate(values):
        form, fields = _form(value, where)
        if first is None or (first in _PLAIN and form not in _PLAIN):
            first = form
            reading.counts.recognised[str(path)] = f"{form.name} ({container})"
        elif form is not first and form not in _PLAIN:
            reading.counts.remark(f"record of the form {form.name!r} in a file of the form {first.name!r}", where)
        id = _id(fields, where)
        record = _converted(form, fields, where, reading)
        if record is not None:
            yield where, f"{prefix}-{number}" if id is None else id, record


def _form(value: Any, where: str) -> tuple[Form, Fields]:
    pair = pair_fields(value)
    if pair is not None:
        return SPACY_PAIRS, pair
    fields = {name: given for name, given in value.items() if given is not None} if isinstance(value, dict) else {}
    form = next((form for form in _FORMS if form.fits(fields)), None)
    if form is None:
        keys = f"the keys {', '.join(map(repr, fields))}" if fields else f"{value!r:.80}"
        raise ValueError(
            f"{where}: wanted an object with 'text' or 'words', or a record of Prodigy, Label Studio, GLiNER, spaCy or "
            f"Hugging Face ('tokens'); found {keys:.200}"
        )
    return form, fields


def _id(fields: Fields, where: str) -> str | None:
    given = next((fields[name] for name in IDS if name in fields), None)
    if not isinstance(given, str | int | None):
        raise ValueError(f"{where}: 'id' is {given!r:.80}; wanted a string or an integer")
    return None if given is None else SURROGATE.sub("\ufffd", str(given))


def _converted(form: Form, fields: Fields, where: str, reading: Reading) -> Fields | None:
    """The record in our form; None if it is not to be learnt from."""
    try:
        gold = form.gold(fields, where, reading)
    except ValueError:
        if reading.tagged:
            raise
        gold = {}
    if gold is None and reading.tagged:
        return None
    used = form.uses(fields)
    if not used:
        return fields  # the form is ours
    rest = {name: value for name, value in fields.items() if name not in used}
    made = {**form.content(fields, where), **(gold or {})}
    if reading.tagged and (twice := rest.keys() & made.keys()):
        raise ValueError(
            f"{where}: {', '.join(map(repr, sorted(twice)))} beside {', '.join(map(repr, used))}: which is meant? "
            "remove the other key"
        )
    return {**rest, **made}
