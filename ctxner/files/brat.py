"""Texts annotated with brat: a folder of `.txt` files, each with an `.ann` file beside it (standoff).

Text-bound annotations (`T` lines) are the mentions. Events, relations, attributes and notes are counted and not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from ctxner.files.folders import ANNOTATIONS, visible_files
from ctxner.files.forms.form import Reading
from ctxner.files.lines import SURROGATE, lines_of, unwrapped
from ctxner.files.records import Record

_MAX_BYTES = 1 << 26
_OTHERS = {
    **{"E": "events", "R": "relations", "*": "equivalences", "A": "attributes", "M": "modifications"},
    **{"N": "normalizations", "#": "notes"},
}
_TEXT_BOUND = re.compile(r"T\S*\t(\S+) (\d+ \d+(?:;\d+ \d+)*)(?:\t(.*))?")
_WRAPPED = "mentions over a line break (--set data.wrapped=true makes it a space, if the lines are wrapped)"
_DISCONTINUOUS = "discontinuous mention, read as its whole extent"


def brat_records(path: str | Path, prefix: str, reading: Reading) -> Iterator[Record]:
    """Place, id, text and entities of each document of a folder and those below it, or of one `.ann` file.

    Fragments of a mention that only blanks part are one mention. Other discontinuous mentions are read from their first
    to their last character, and counted. If gold is wanted, a text without `.ann` file is left out and counted.

    Raises:
        ValueError: A line that is no annotation, offsets outside the text, or a covered text that differs, with
            file:line; an `.ann` file without text.
    """
    path = Path(path)
    reading.counts.recognised[str(path)] = "brat standoff"
    for file in _texts(path):
        annotations = file.with_suffix(ANNOTATIONS)
        name = SURROGATE.sub("\ufffd", file.relative_to(path).with_suffix("").as_posix()) if path.is_dir() else ""
        id = f"{prefix}/{name}" if name else prefix
        if annotations.is_file():
            text = _text(file, reading)
            yield str(annotations), id, {"text": text, "document_id": id, **_gold(annotations, text, reading)}
        elif reading.tagged:
            reading.counts.remark(f"text without {ANNOTATIONS} file, not read", str(file))
        else:
            yield str(file), id, {"text": _text(file, reading)}


def _texts(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path.with_suffix(".txt")]
    return sorted({file.with_suffix(".txt") for file in visible_files(path) if file.suffix in (".txt", ANNOTATIONS)})


def _text(path: Path, reading: Reading) -> str:
    """The text with its line ends and byte order mark, since offsets count them; wrapped lines are joined."""
    if not path.is_file():
        raise ValueError(f"{path.with_suffix(ANNOTATIONS)}: no {path.name} beside it; wanted the annotated text")
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path}: larger than {_MAX_BYTES:,} bytes; cut the document")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}; convert it (iconv -f latin1 -t utf-8)") from error
    if not reading.wrapped or (joined := unwrapped(text)) == text:
        return text
    reading.counts.remark("texts whose wrapped lines are joined (data.wrapped)", str(path))
    return joined


def _gold(path: Path, text: str, reading: Reading) -> dict[str, Any]:
    try:
        return {"entities": list(_entities(path, text, reading))}
    except ValueError:
        if reading.tagged:
            raise
        return {}


def _entities(path: Path, text: str, reading: Reading) -> Iterator[list[Any]]:
    for line_no, line in lines_of(path):
        where = f"{path}:{line_no}"
        if line[:1] in _OTHERS:
            reading.counts.remark(f"brat's {_OTHERS[line[0]]} are not read", where)
        elif line.strip():
            yield _entity(line, text, where, reading)


def _entity(line: str, text: str, where: str, reading: Reading) -> list[Any]:
    match = _TEXT_BOUND.fullmatch(line)
    if match is None:
        raise ValueError(f"{where}: {line!r:.80} is no annotation; wanted e.g. 'T1<tab>Person 0 3<tab>Ann'")
    type_, ranges, covered = match.groups()
    fragments = [_range(given, text, where) for given in ranges.split(";")]
    joined = " ".join(text[start:end] for start, end in fragments)
    if covered is not None and joined.split() != covered.split():
        raise ValueError(
            f"{where}: {ranges!r} covers {joined!r:.80} in the text, but the line says {covered!r:.80}; "
            "was the text changed after it was annotated?"
        )
    start, end = fragments[0][0], fragments[-1][1]
    gaps = "".join(text[before:after] for (_, before), (after, _) in pairwise(fragments))
    if gaps.strip() or fragments != sorted(fragments):
        reading.counts.remark(_DISCONTINUOUS, where)
        start, end = min(first for first, _ in fragments), max(last for _, last in fragments)
    if "\n" in text[start:end].strip():
        reading.counts.remark(_WRAPPED, where)
    return [start, end, type_]


def _range(given: str, text: str, where: str) -> tuple[int, int]:
    start, end = (int(number[:12]) for number in given.split(" "))
    if not start < end <= len(text):
        raise ValueError(f"{where}: offsets {given!r:.40}; wanted start < end <= {len(text)}, the length of the text")
    return start, end
