"""Sentences in JSON lines and in JSON files: texts with character spans, or words with tags (`ctxner.files.records`).

What annotation tools and others write is read too (`ctxner.files.forms.recognise`). Tags become BIOES on reading.
Errors name `file:line`. Changes that a reader makes are counted in its result.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ctxner.files.dataset_info import names_beside
from ctxner.files.forms.form import Reading, counted_once
from ctxner.files.forms.recognise import recognised
from ctxner.files.gold import Overlaps
from ctxner.files.json_values import holds_array, json_values
from ctxner.files.lines import ReadCounts, ReadResult, bare_name, lines_of, write_lines
from ctxner.files.records import BEYOND_TAGS, Record, iter_records
from ctxner.files.tags import AUTO
from ctxner.schema import Sentence


def iter_jsonl(
    path: str | Path,
    *,
    scheme: str = AUTO,
    repair_tags: bool = False,
    tagged: bool = True,
    id_prefix: str | None = None,
    labels: Sequence[str] | None = None,
    counts: ReadCounts | None = None,
    overlaps: Overlaps = "longest",
) -> Iterator[Sentence]:
    """Read JSON lines, a text or a sentence of words per line, or JSON with one array; eight bytes of memory per id.

    Two forms: `{"id", "text", "entities": [{"start", "end", "type"}]}` with half-open offsets in code points, and
    `{"id", "words", "tags", "scheme", "offsets"}`; in a line with both, `words` is used. The forms of others are in
    `ctxner.files.forms`: doccano, Prodigy, Label Studio, spaCy's training pairs, GLiNER, Hugging Face's `tokens` and
    `ner_tags`. A text is split into sentences and words as any other, whatever its mentions
    (`ctxner.files.records.text_sentences`). Without gold a sentence is unlabelled, but annotations under a key that is
    not read are refused. Null means absent; `scheme` beats the argument.
    Lone surrogates become U+FFFD (offsets stay). A text without words is skipped and counted. Ids that the file does
    not give are `{id_prefix}-{n}` from 0. `document_id` or `doc_id` (string or integer) names the document that the
    sentence is a part of; the same id in another line or file is the same document.

    Args:
        path: File; `.gz` and `.zst` are decompressed.
        scheme: Tag scheme of lines that do not name one; `auto` recognises it from all of them.
        repair_tags: Whether illegal tag sequences are mended and counted, instead of refused.
        tagged: Whether gold is wanted; if not, no sentence has tags, and annotations are no reason to refuse a line.
        id_prefix: Beginning of ids that the file does not give; None for the file's name without suffixes.
        labels: Tags that the numbers in `ner_tags` stand for, in order; None: a `dataset_info.json` beside the file.
        counts: Fresh counters to add to; complete when the iterator ends.
        overlaps: `longest`: of overlapping mentions the longest become tags; `refuse`: they are an error.

    Raises:
        ValueError: A line that is not UTF-8 or not JSON, a wrong field, annotations under a key that is not read, a
            mention out of range, empty or (with `refuse`) overlapping another, or an illegal tag, with file:line; at
            the end, an id used twice, or no sentence in the file.
    """
    prefix, counts = id_prefix or bare_name(path)[0], ReadCounts() if counts is None else counts
    records = counted_once(partial(jsonl_records, path, prefix), Reading(tagged, labels, counts=counts))
    yield from iter_records(
        records,
        scheme=scheme,
        repair_tags=repair_tags,
        tagged=tagged,
        counts=counts,
        path=path,
        overlaps=overlaps,
    )
    counts.check(path, '{"text": ..., "entities": [...]} or {"words": [...], "tags": [...]} on each line')


def read_jsonl(
    path: str | Path, *, scheme: str = AUTO, repair_tags: bool = False, id_prefix: str | None = None
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


def jsonl_records(path: str | Path, prefix: str, reading: Reading) -> Iterator[Record]:
    """Place, id and fields of each record; a file that begins with an array is read as JSON, whatever its name."""
    if reading.labels is None:
        reading = replace(reading, names=names_beside(path))
    if bare_name(path)[1] == ".json" or holds_array(path):
        return recognised(json_values(path), path, "JSON", prefix, reading)
    return recognised(_line_values(path), path, "JSON lines", prefix, reading)


def _line_values(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Place and content of each line that is not blank."""
    for line_no, line in lines_of(path):
        if not line.strip():
            continue
        where = f"{path}:{line_no}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not JSON ({error}); wanted one object per line") from error
        yield where, value
