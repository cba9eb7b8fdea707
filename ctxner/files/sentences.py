"""Reading sentences from any number of files: column files, records of any form, or plain text.

`iter_sentences` reads one by one, `read_sentences` all at once. The formats are in `ctxner.files.columns`,
`ctxner.files.record_files` and `ctxner.files.text`. A corpus of passages is read by `ctxner.retrieval.corpus`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from ctxner.files.abbreviations import with_abbreviations
from ctxner.files.columns import ColumnFormat, iter_columns
from ctxner.files.forms.form import Reading, counted_once
from ctxner.files.lines import ReadCounts, ReadResult
from ctxner.files.paths import Kind, kind_of, sentence_files
from ctxner.files.record_files import records_of
from ctxner.files.records import iter_records
from ctxner.files.tags import file_scheme
from ctxner.files.text import iter_text
from ctxner.schema import Sentence


def iter_sentences(
    paths: str | Path | Sequence[str | Path],
    format: ColumnFormat | None = None,
    *,
    kind: Kind | None = None,
    id_prefix: str | None = None,
    counts: ReadCounts | None = None,
) -> Iterator[Sentence]:
    """Read sentence files one after the other; memory grows by eight bytes per sentence.

    Files are looked up at once and read when the iterator reaches them. Ids that the files give are kept and checked to
    be unique within each file. Other ids are `{prefix}-{n}` with n from 0 in each file; the prefix comes from
    `ctxner.files.paths.sentence_files`.

    Args:
        paths: Files, folders of files, patterns such as `shards/*.jsonl.gz`. Columns: one of `COLUMN_SUFFIXES`; JSON
            lines: `.jsonl`; JSON: `.json`; each also with `.gz` or `.zst`; Parquet: `.parquet`; Arrow: `.arrow`, or a
            folder that `datasets` saved; spaCy: `.spacy`; brat: a folder of `.txt` and `.ann`. A named file with
            another suffix is looked into (`ctxner.files.paths.kind_of`).
        format: Layout of column files. Records use its `scheme`, `repair`, `labels` and `overlaps`; without it, their
            scheme is recognised. Plain text uses its `encoding`. With `tag_column=None`, gold is not looked at in any
            file.
        kind: Format of all files, whatever their suffixes; required to read plain text.
        id_prefix: Prefix of ids in place of the file's name; used only with a single file.
        counts: Counters to add to; complete when the iterator ends.

    Raises:
        FileNotFoundError: A file does not exist, or a folder or pattern has no file.
        ValueError: An unknown suffix, or a fault in a file, with its place.
    """
    files = sentence_files(paths, kind)
    kinds = {file: kind or kind_of(file) for file in files}
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file}: no such file")
    if id_prefix and len(files) == 1:
        files = dict.fromkeys(files, id_prefix)
    return _iter_files(files, kinds, format, counts)


def read_sentences(
    paths: str | Path | Sequence[str | Path],
    format: ColumnFormat | None = None,
    *,
    kind: Kind | None = None,
    id_prefix: str | None = None,
) -> ReadResult:
    """All sentences of files, folders and patterns; see `iter_sentences`.

    Raises:
        FileNotFoundError: A file does not exist, or a folder or pattern has no file.
        ValueError: An unknown suffix, a fault in a file, or an id that two files give.
    """
    result, seen = ReadResult(), set[str]()
    result.sentences += iter_sentences(paths, format, kind=kind, id_prefix=id_prefix, counts=result)
    for sentence in result.sentences:
        if sentence.id in seen:
            raise ValueError(f"{paths}: two of the files give the sentence id {sentence.id!r}; ids must be unique")
        seen.add(sentence.id)
    return result


def refuse_untagged(sentences: Iterable[Sentence], source: Path) -> None:
    """Refuse sentences without gold tags where gold is needed: they are not sentences without mentions.

    Args:
        sentences: Sentences to check.
        source: File, folder or pattern that they were read from, for the error.

    Raises:
        ValueError: A sentence has no gold tags; the error names the first and tells how many there are.
    """
    if untagged := [sentence.id for sentence in sentences if sentence.tags is None]:
        raise ValueError(
            f"{source}: {len(untagged)} sentences have no gold tags, first {untagged[0]!r}; tag them or leave them out"
        )


def _iter_files(
    files: Mapping[Path, str], kinds: Mapping[Path, Kind], format: ColumnFormat | None, counts: ReadCounts | None
) -> Iterator[Sentence]:
    for file, prefix in files.items():
        file_counts = ReadCounts()
        try:
            yield from with_abbreviations(_iter_file(file, kinds[file], format, prefix, file_counts))
        except ValueError as error:
            error.add_note(f"what is in the file: ctxner data {shlex.quote(str(file))}")  # commands print notes
            raise
        if counts is not None:
            counts.add(file_counts)


def _iter_file(
    path: Path, kind: Kind, format: ColumnFormat | None, id_prefix: str, counts: ReadCounts
) -> Iterator[Sentence]:
    if kind == "columns":
        yield from iter_columns(path, format or ColumnFormat(), id_prefix=id_prefix, counts=counts)
        return
    if kind == "text":
        encoding = (format or ColumnFormat()).encoding
        yield from iter_text(path, encoding=encoding, id_prefix=id_prefix, counts=counts)
        return
    format = format or ColumnFormat()
    tagged = format.tag_column is not None
    reading = Reading(tagged, format.labels, wrapped=format.wrapped, counts=counts, overlaps=format.overlaps)
    records = counted_once(partial(records_of, path, kind, id_prefix), reading)
    yield from iter_records(
        records,
        scheme=file_scheme(format.scheme),
        repair_tags=format.repair,
        tagged=tagged,
        counts=counts,
        path=path,
        overlaps=format.overlaps,
    )
    counts.check(path, "records with 'text' and 'entities', or 'words' and 'tags', or in a form of another tool")
