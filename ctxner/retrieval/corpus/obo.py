"""Terms of an ontology in the OBO format (1.2, 1.4) -> records. Source: The OBO Flat File Format Guide 1.4.

A full reader (pronto, fastobo, obonet) would be one more dependency, for the six tags that an entry needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

_FIELDS = {"id": "id", "name": "title", "namespace": "type", "def": "contents", "is_obsolete": "is_obsolete"}
_QUOTED = re.compile(r'"((?:[^"\\]++|\\.)*+)"\s*([^\s\[]*)')  # a text, and the word behind it: a synonym's scope
_MAX_TERM_LENGTH = 1 << 24  # characters, as of a page in a dump
_ESCAPES = {"n": "\n", "t": "\t", "W": " "}
# A narrow synonym names a kind of the term, so the term still tells its type. A broad one names other things too, and
# a related one may name a different thing: as aliases they would mislead. Without a scope, a synonym is related.
_IS_ALIAS = {"EXACT": True, "NARROW": True, "BROAD": False, "RELATED": False, "": False}


def read_terms(lines: Iterable[tuple[int, str]], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The terms that have a name and are not obsolete, each with the line of its `[Term]`.

    Args:
        lines: Lines that are not blank, with their numbers.
        name: Name of the file in errors.

    Raises:
        ValueError: A line that is not `tag: value`, a definition or synonym without quotes, an unknown scope, a tag
            that is given twice but may be once, a term without an id, or one that is too long; with the line.
    """
    stanza, start, length, default_namespace, term = "", 0, 0, "", dict[str, Any]()
    for line_no, line in chain(lines, [(0, "[end]")]):
        place, (tag, colon, value) = f"{name}:{line_no}", line.strip().partition(":")
        if tag.startswith("["):
            if stanza == "[Term]" and "id" not in term:
                raise ValueError(f"{name}:{start}: a [Term] without a line 'id: ...'")
            if stanza == "[Term]" and "title" in term and term.get("is_obsolete") != "true":
                yield start, {"type": default_namespace, **term}
            stanza, start, length, term = tag, line_no, 0, {}
        elif (length := length + len(line)) > _MAX_TERM_LENGTH and stanza == "[Term]":
            raise ValueError(f"{place}: the [Term] of line {start} has more than {_MAX_TERM_LENGTH:,} characters")
        elif not colon and not tag.startswith("!"):
            raise ValueError(f"{place}: found {tag!r:.200}, wanted 'tag: value', or a stanza such as [Term]")
        elif not stanza and tag == "default-namespace":
            default_namespace = _plain(value)
        elif stanza == "[Term]" and tag == "synonym":
            text, scope = _quoted(value, place)
            if scope not in _IS_ALIAS:
                raise ValueError(f"{place}: unknown scope {scope!r} of a synonym, wanted EXACT, NARROW, BROAD, RELATED")
            if _IS_ALIAS[scope]:
                term.setdefault("aliases", []).append(text)
        elif stanza == "[Term]" and tag in _FIELDS:
            if _FIELDS[tag] in term:
                raise ValueError(f"{place}: {tag!r} occurs twice in the [Term] of line {start}, wanted it once")
            term[_FIELDS[tag]] = _quoted(value, place)[0] if tag == "def" else _plain(value)


def _quoted(value: str, place: str) -> tuple[str, str]:
    if not (match := _QUOTED.match(value.strip())):
        raise ValueError(f'{place}: found {value.strip()!r:.200}, wanted a text in quotes such as "text" [source]')
    return _unescaped(match[1]), match[2]


def _plain(value: str) -> str:
    """A value without its comment (` ! ...`) and its modifiers (` {name="value"}`)."""
    value = value.partition(" !")[0].strip()
    text, _, modifiers = value.rpartition(" {")
    return _unescaped(text if text and modifiers.endswith("}") and "=" in modifiers else value)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text)
