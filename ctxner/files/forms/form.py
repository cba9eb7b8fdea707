"""What a form of records is, and what its reader gets.

A form is a way in which others write annotated texts: Prodigy's, doccano's, Hugging Face's.
`ctxner.files.forms.recognise` tells which form a record has and turns it into a record of `ctxner.files.records`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ctxner.files.gold import Overlaps
from ctxner.files.lines import ReadCounts
from ctxner.files.records import Record

Fields = Mapping[str, Any]  # fields of a record that are not null


@dataclass(frozen=True)
class Reading:
    """How the records of a file are to be read.

    Attributes:
        tagged: Whether gold is wanted. If not, gold that cannot be read is no reason to refuse a record.
        labels: Names of the tags that numbers stand for, in order, as the user gives them; they beat `names`.
        names: The same as the file itself tells them, by key of the record.
        wrapped: Whether a line break within a paragraph of brat's texts is a space.
        counts: Counters to add to.
        overlaps: Treatment of overlapping mentions (`ctxner.files.records.text_sentences`).
    """

    tagged: bool = True
    labels: Sequence[str] | None = None
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    wrapped: bool = False
    counts: ReadCounts = field(default_factory=ReadCounts)
    overlaps: Overlaps = "longest"


@dataclass(frozen=True, slots=True)
class Form:
    """A form of records.

    Attributes:
        name: Name as people know it.
        fits: Whether a record has this form.
        uses: The keys of a record that `content` and `gold` turn into others; all other keys stay.
        content: `text` or `words` of a record; called with the record and its place.
        gold: `entities` or `tags` of a record, nothing if it has no gold, None if it is not to be learnt from.
    """

    name: str
    fits: Callable[[Fields], bool]
    uses: Callable[[Fields], Collection[str]] = lambda fields: ()
    content: Callable[[Fields, str], Fields] = lambda fields, where: {}
    gold: Callable[[Fields, str, Reading], Fields | None] = lambda fields, where, reading: {}


def items(value: Any, key: str, where: str) -> list[dict[str, Any]]:
    """The value itself, a list of objects; ValueError if it is something else."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"{where}: {key!r} is {value!r:.80}; wanted a list of objects")
    return value


def counted_once(read: Callable[[Reading], Iterator[Record]], reading: Reading) -> Callable[[], Iterator[Record]]:
    """A function that reads a file's records, as `iter_records` wants it: called again, it counts nothing twice."""

    def records() -> Iterator[Record]:
        counts = ReadCounts()
        try:
            yield from read(replace(reading, counts=counts))
        finally:
            reading.counts.recognised = counts.recognised | reading.counts.recognised  # a scheme was added to a form
            for what, remark in counts.remarks.items():
                before = reading.counts.remarks.get(what)
                if before is None or before.count < remark.count:
                    reading.counts.remarks[what] = remark

    return records
