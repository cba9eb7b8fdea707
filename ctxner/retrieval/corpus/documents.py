"""Files that are read whole, JSON and Markdown -> records, which `ctxner.retrieval.corpus.records` makes passages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from ctxner.retrieval.corpus.records import FIELDS
from ctxner.retrieval.corpus.tables import COLUMNS

MAX_BYTES = 1 << 26  # of a file, decompressed
_NAME_OF = {
    name: {"name": "title", "description": "contents"}.get(field, field)
    for field, names in COLUMNS.items()
    for name in names
}
_JSON_FORMS = "an array of objects with a title and contents, or one object of names with texts"
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?^---[ \t]*$", re.MULTILINE | re.DOTALL)


def read_json(text: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a JSON file, numbered from 1: those of an array, or an object's names with texts or records.

    Fields have the names of JSON lines or those of a table's header.

    Args:
        text: Content of the file.
        name: Name of the file in errors.

    Raises:
        ValueError: Not JSON, or neither form.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = "; one object per line is JSON lines: name the file .jsonl" if "Extra data" in str(error) else ""
        raise ValueError(f"{name}: not valid JSON ({error}){hint}") from None
    if not isinstance(tree, list | dict):
        raise ValueError(f"{name}: found a JSON {type(tree).__name__}; wanted {_JSON_FORMS}")
    pairs = list[tuple[str | None, Any]](tree.items() if isinstance(tree, dict) else ((None, value) for value in tree))
    for number, (title, value) in enumerate(pairs, 1):
        if isinstance(value, str) and title is not None:
            yield number, {"title": title, "contents": value}
        elif isinstance(value, dict):
            yield number, {"title": title} | _renamed(value)
        else:
            entry = number if title is None else repr(title)
            raise ValueError(f"{name}: entry {entry} is {type(value).__name__}; wanted {_JSON_FORMS}")


def read_markdown(text: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The paragraphs, list items and rows of tables of a Markdown file, with their lines.

    The title is the heading above. YAML front matter, code blocks and HTML are left out.

    Args:
        text: Content of the file.
        name: Name of the file; Markdown has no faults.
    """
    del name
    if matter := _FRONT_MATTER.match(text):
        text = "\n" * matter[0].count("\n") + text[matter.end() :]
    title, in_heading, row, row_line = "", False, list[str](), 0
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type in ("heading_open", "heading_close"):
            in_heading = token.type == "heading_open"
        elif token.type == "tr_open":
            row, row_line = [], token.map[0] + 1 if token.map else 0
        elif token.type == "tr_close":
            yield row_line, {"title": title, "contents": " | ".join(row)}
            row, row_line = [], 0
        elif token.type == "inline" and in_heading:
            title = _plain(token)
        elif token.type == "inline" and row_line:
            row.append(_plain(token))
        elif token.type == "inline" and (content := _plain(token)):
            yield (token.map[0] + 1 if token.map else 0), {"title": title, "contents": content}


def _renamed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the names of `FIELDS`; names of a table's header stand for them where they are absent."""
    fields = {name: value for name, value in record.items() if name in FIELDS}
    for name, value in record.items():
        field = _NAME_OF.get(name.casefold())
        if field is not None and value is not None and not (field == "contents" and "text" in fields):
            fields.setdefault(field, value)
    return fields


def _plain(inline: Token) -> str:
    """The words of an inline token, without marks, addresses and HTML."""
    parts = []
    for token in inline.children or ():
        if token.type in ("text", "code_inline"):
            parts.append(token.content)
        elif token.type == "image":
            parts.append(_plain(token))
        elif token.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return "".join(parts).strip()
