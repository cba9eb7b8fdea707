"""Records, dicts of fields -> passages; a field of a wrong type is named with its place.

JSON lines are records as they are; the modules beside this one make records of other formats.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ctxner.files.json_values import MAX_CHARS
from ctxner.retrieval.text import clean_text
from ctxner.schema import Passage

FIELDS = ("id", "contents", "text", "source", "title", "aliases", "type")
_MAX_ID_LENGTH = 512  # characters; Lucene refuses terms of 32,766 bytes
_ALIAS_END = "|"  # between the aliases of a field that is one text


def read_json_lines(lines: Iterable[tuple[int, str]], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with one JSON object per line.

    Args:
        lines: Lines that are not blank, with their numbers.
        name: Name of the file in errors.

    Raises:
        ValueError: A line that is not a JSON object, or longer than `MAX_CHARS`.
    """
    for line_no, line in lines:
        if len(line) > MAX_CHARS:
            raise ValueError(f"{name}:{line_no}: a record of more than {MAX_CHARS:,} characters; cut the text")
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{name}:{line_no}: not valid JSON ({error})") from error
        if not isinstance(record, dict):
            raise ValueError(f"{name}:{line_no}: found a JSON {type(record).__name__}, wanted one object per line")
        yield line_no, record


def passage_of(record: Mapping[str, Any], path: Path, line_no: int, stem: str) -> Passage:
    """The passage that a record describes.

    Args:
        record: Values by the names in `FIELDS`; others are ignored.
        path: File that the record is from, for errors.
        line_no: Line or row of the record, for errors and for the id of a record without one.
        stem: Source of a record without one.

    Raises:
        ValueError: Neither text nor title, aliases without a title, an id that is too long, or a field of a wrong type.
    """
    text = _text_field(record, "contents" if record.get("contents") is not None else "text", path, line_no)
    title, aliases = _text_field(record, "title", path, line_no), _aliases(record, path, line_no)
    if not text and not title:
        fields = f"fields {sorted(record)}" if record else "no fields"
        raise ValueError(
            f"{path}:{line_no}: no text in 'contents' or 'text', and no 'title' ({fields}); a passage needs a text, "
            "and an entry a title"
        )
    if aliases and not title:
        raise ValueError(f"{path}:{line_no}: 'aliases' without a title; give what they are other names of as 'title'")
    passage_id = _text_field(record, "id", path, line_no) or f"{stem}-{line_no}"
    if len(passage_id) > _MAX_ID_LENGTH:
        raise ValueError(f"{path}:{line_no}: the id has {len(passage_id)} characters; at most {_MAX_ID_LENGTH} can be")
    source = _text_field(record, "source", path, line_no) or stem
    return Passage(passage_id, source, text, title, aliases=aliases, type=_text_field(record, "type", path, line_no))


def _text_field(record: Mapping[str, Any], name: str, path: Path, line_no: int) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if name == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{path}:{line_no}: {name!r} is {type(value).__name__}, wanted text")
    return clean_text(value).strip()


def _aliases(record: Mapping[str, Any], path: Path, line_no: int) -> tuple[str, ...]:
    value = record.get("aliases")
    if value is None:
        return ()
    names = value.split(_ALIAS_END) if isinstance(value, str) else value
    wanted = f"wanted a list of texts, or one text with {_ALIAS_END!r} between the aliases"
    if not isinstance(names, list):
        raise ValueError(f"{path}:{line_no}: 'aliases' is {type(value).__name__}, {wanted}")
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{path}:{line_no}: 'aliases' holds {type(name).__name__}, {wanted}")
    return tuple(dict.fromkeys(filter(None, (clean_text(name).strip() for name in names))))
