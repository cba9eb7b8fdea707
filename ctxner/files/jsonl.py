"""Sentences in JSON lines: texts with character spans, or words with tags (`ctxner.files.records`).

Tags become BIOES on reading. Errors name `file:line`. Changes that a reader makes are counted in its result.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ctxner.files.gold import Overlaps
from ctxner.files.lines import SURROGATE, ReadCounts, ReadResult, bare_name, lines_of, write_lines
from ctxner.files.records import BEYOND_TAGS, Record, iter_records
from ctxner.schema import Sentence


def iter_jsonl(
    path: str | Path,
    *,
    scheme: str = "BIOES",
    repair_tags: bool = False,
    tagged: bool = True,
    id_prefix: str | None = None,
    counts: ReadCounts | None = None,
    overlaps: Overlaps = "longest",
) -> Iterator[Sentence]:
    """Read JSON lines, one text or one sentence of words per line; memory grows by eight bytes per id.

    Two forms: `{"id", "text", "entities": [{"start", "end", "type"}]}` with half-open offsets in code points, and
    `{"id", "words", "tags", "scheme", "offsets"}`; in a line with both, `words` is used. Doccano's `label`, `labels`
    and `entities` are read too. A text is split into sentences and words as any other, whatever its mentions
    (`ctxner.files.records.text_sentences`). Without gold a sentence is unlabelled, but annotations under another key
    are refused. Null means absent; `scheme` beats the argument.
    Lone surrogates become U+FFFD (offsets stay). A text without words is skipped and counted. Ids that the file does
    not give are `{id_prefix}-{n}` from 0. `document_id` or `doc_id` (string or integer) names the document that the
    sentence is a part of; the same id in another line or file is the same document.

    Args:
        path: File; `.gz` and `.zst` are decompressed.
        scheme: Tag scheme of lines that do not name one.
        repair_tags: Whether illegal tag sequences are mended and counted, instead of refused.
        tagged: Whether gold is wanted; if not, no sentence has tags, and annotations are no reason to refuse a line.
        id_prefix: Beginning of ids that the file does not give; None for the file's name without suffixes.
        counts: Fresh counters to add to; complete when the iterator ends.
        overlaps: `longest`: of overlapping mentions the longest become tags; `refuse`: they are an error.

    Raises:
        ValueError: A line that is not UTF-8 or not JSON, a wrong field, annotations under a key that is not read, a
            mention out of range, empty or (with `refuse`) overlapping another, or an illegal tag, with file:line; at
            the end, an id used twice, or no sentence in the file.
    """
    prefix, counts = id_prefix or bare_name(path)[0], ReadCounts() if counts is None else counts
    records = partial(jsonl_records, path, prefix)
    yield from iter_records(
        records, scheme=scheme, repair_tags=repair_tags, tagged=tagged, counts=counts, overlaps=overlaps
    )
    counts.check(path, '{"text": ..., "entities": [...]} or {"words": [...], "tags": [...]} on each line')


def read_jsonl(
    path: str | Path, *, scheme: str = "BIOES", repair_tags: bool = False, id_prefix: str | None = None
) -> ReadResult:
    """All sentences of JSON lines; see `iter_jsonl`."""
    result = ReadResult()
    result.sentences += iter_jsonl(path, scheme=scheme, repair_tags=repair_tags, id_prefix=id_prefix, counts=result)
    return result


def write_jsonl(sentences: Iterable[Sentence], path: str | Path) -> None:
    """Write the `words` form, all or nothing.

    `read_jsonl` gives back ids, words, BIOES tags, offsets, documents and the mentions that tags cannot express. The
    text is not written, since sentences may share it.
    """

    def line(sentence: Sentence) -> str:
        record: dict[str, Any] = {"id": sentence.id, "words": sentence.words}
        if sentence.tags is not None:
            record |= {"tags": sentence.tags, "scheme": "BIOES"}
        if sentence.offsets is not None:
            record["offsets"] = sentence.offsets
        if sentence.document is not None:
            record["document_id"] = sentence.document
        if sentence.beyond_tags:
            record[BEYOND_TAGS] = [dataclasses.asdict(mention) for mention in sentence.beyond_tags]
        return json.dumps(record, ensure_ascii=False)

    write_lines(path, map(line, sentences))


def jsonl_records(path: str | Path, prefix: str) -> Iterator[Record]:
    """Place, id and fields that are not null, of each line that is not blank."""
    number = 0
    for line_no, line in lines_of(path):
        if not line.strip():
            continue
        where = f"{path}:{line_no}"
        record = _json_object(line, where)
        given = record.get("id")
        id = f"{prefix}-{number}" if given is None else SURROGATE.sub("\ufffd", str(given))
        yield where, id, record
        number += 1


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error}); wanted one object per line") from error
    if isinstance(record, dict):
        record = {name: value for name, value in record.items() if value is not None}
    if not isinstance(record, dict) or not ("text" in record or "words" in record):
        raise ValueError(f"{where}: wanted an object with 'text' or 'words'; found {line[:80]!r}")
    if not isinstance(record.get("id"), str | int | None):
        raise ValueError(f"{where}: 'id' is {record['id']!r}; wanted a string or an integer")
    return record
