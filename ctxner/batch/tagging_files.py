"""The files of a tagging job: documents cut into parts, rows of parts, and at the end one ordered result per format.

The job's folder `.tagging` (`ctxner.batch.job_folder`) lies inside the result's folder and outlives a killed job. A row
is a part of a document; at the end parts are joined to documents. Memory does not grow with the number of documents.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctxner.batch.job_folder import JobFolder, open_job
from ctxner.batch.tagged_formats import FOLDERS, NAMES, WRITERS, Format, document_schema
from ctxner.files.atomic import new_file, new_folder, remove_leftovers
from ctxner.files.columns import column_lines
from ctxner.files.documents import Document, cut
from ctxner.files.node_copies import work_folder
from ctxner.schema import Sentence

PLACE = ("position", "document", "start")  # columns that say where a part belongs
_WORK = ".tagging"
_ROWS_PER_FILE, _CHARS_PER_FILE = 4096, 1 << 24


def part_schema() -> pa.Schema:
    """Schema of a staged part; `position` is its place in the whole job."""
    pair = pa.list_(pa.int32(), 2)
    return pa.schema(
        [
            ("position", pa.int64()),
            ("document", pa.int64()),  # position of the document
            ("start", pa.int64()),  # index of its first character in the document
            ("id", pa.string()),
            ("text", pa.string()),
            ("words", pa.list_(pa.string())),  # null unless the document was given as words
            ("offsets", pa.list_(pair)),  # of the words in the text, if the file gives them
            ("bounds", pa.list_(pair)),  # (start, end) of the sentences, if cutting the document has found them
            ("abbreviations", pa.list_(pa.list_(pa.string()))),  # short and long forms defined before this part
        ]
    )


def tagged_schema() -> pa.Schema:
    """Schema of a tagged part: `document_schema` and the columns of `PLACE`."""
    return pa.schema([*(part_schema().field(name) for name in PLACE), *document_schema()])


def stage_documents(
    documents: Iterable[Document], folder: Path, settings: Mapping[str, Any], formats: Sequence[Format] = ()
) -> JobFolder:
    """Write the parts of the documents for Ray Data to read, and keep finished rows if they belong to the same job.

    Args:
        documents: Stream of documents to tag.
        folder: Folder of the result, or its URI.
        settings: Other settings that the rows depend on.
        formats: Output formats; documents that a format cannot represent are rejected before the job starts.

    Raises:
        ValueError: There are no documents, or a word cannot be written to a column file.
    """

    def checked() -> Iterator[Document]:
        for document in documents:
            if "conll" in formats and document.words:
                column_lines(Sentence(document.id, document.words))
            yield document

    def write(inputs: Path) -> tuple[int, Mapping[str, Any]]:
        num_rows, digest = _write_parts(checked(), inputs)
        return num_rows, {"documents": digest, **settings}

    return open_job(folder, _WORK, write)


def job_path(folder: Path) -> Path:
    """The job's folder inside the folder of the result; for a URI, the driver's part of it."""
    return work_folder(folder) / _WORK


def publish_documents(
    job: JobFolder,
    folder: Path,
    formats: Sequence[Format],
    *,
    max_errors: float = 1.0,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Join the rows into documents, in order, and write `folder/NAMES[format]`, renamed when complete.

    Args:
        job: Job whose rows are all complete.
        folder: Folder of the result.
        formats: Output formats.
        max_errors: Largest share of documents that may have an error, of a part or of retrieval for a sentence.
        on_progress: Called with the number of rows joined so far.

    Returns:
        Counts: `documents`, `sentences`, `entities`, `errors` (documents with one) and `views` (sentences per view).

    Raises:
        RuntimeError: A row is missing or occurs twice.
        ValueError: More documents have an error; nothing is written and the rows stay.
    """
    counts, num_done, first_error = Counter[str](), 0, None
    with ExitStack() as stack:
        paths = {format: folder / NAMES[format] for format in formats}
        for path in paths.values():
            remove_leftovers(folder, path.name)
        aside = {
            format: stack.enter_context((new_folder if format in FOLDERS else new_file)(path))
            for format, path in paths.items()
        }
        writers = [stack.enter_context(WRITERS[format](path)) for format, path in aside.items()]
        for table in _documents(job.joined(tagged_schema())):
            _count(table, counts)
            first_error = first_error or _first_error(table)
            for write in writers:
                write(table)
            num_done += len(table)
            if on_progress:
                on_progress(num_done)
        if counts["errors"] > max_errors * counts["documents"]:
            raise ValueError(
                f"{folder}: {counts['errors']} of {counts['documents']} documents failed, more than "
                f"tagging.max_errors={max_errors} allows; first {first_error}. The rows are in {job.rows}, with the "
                f"column `error`. Mend the cause, remove {job.path} and call the job again; or call it again with a "
                "larger tagging.max_errors, which writes the rows as they are"
            )
    views = {name.removeprefix("view "): count for name, count in counts.items() if name.startswith("view ")}
    return {**{name: counts[name] for name in ("documents", "sentences", "entities", "errors")}, "views": views}


def _write_parts(documents: Iterable[Document], folder: Path) -> tuple[int, str]:
    """Write the parts; returns the number of rows, and a digest of all documents."""
    digest, rows, num_chars, position = hashlib.sha256(), list[dict[str, Any]](), 0, 0

    def flush() -> None:
        nonlocal rows, num_chars
        pq.write_table(pa.Table.from_pylist(rows, schema=part_schema()), folder / f"{position:012d}.parquet")
        rows, num_chars = [], 0

    for number, document in enumerate(documents):
        words = list(document.words) if document.words is not None else None
        digest.update("\0".join((document.id, document.text, *(words or ()), "\n")).encode())
        digest.update(repr(document.offsets).encode() if document.offsets else b"")
        for part in cut(document.text) if words is None else cut(document.text, len(document.text)):
            place: dict[str, Any] = {"position": position, "document": number, "start": part.start}
            split = {"words": words, "offsets": document.offsets, "bounds": part.bounds}
            place |= {"id": document.id, "text": part.text, "abbreviations": part.abbreviations}
            rows.append({**place, **split})
            position, num_chars = position + 1, num_chars + len(part.text)
            if len(rows) >= _ROWS_PER_FILE or num_chars >= _CHARS_PER_FILE:
                flush()
    if rows:
        flush()
    if not position:
        raise ValueError("no documents to tag in these files")
    return position, digest.hexdigest()


def _documents(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables of whole documents; the last document of a table may continue in the next table."""
    rest = tagged_schema().empty_table()
    for table in tables:
        table = pa.concat_tables([rest, table])
        if not len(table):
            continue
        documents = table["document"].to_numpy()
        last = int(np.searchsorted(documents, documents[-1]))
        rest = table.slice(last)
        yield from _whole(table.slice(0, last))
    yield from _whole(rest)


def _whole(parts: pa.Table) -> Iterator[pa.Table]:
    """Documents joined from their parts; a document of one part stays as it is."""
    if not len(parts):
        return
    documents = parts["document"].to_numpy()
    first = np.flatnonzero(np.diff(documents, prepend=-1))
    lengths = np.diff([*first, len(parts)])
    for is_cut, group in groupby(zip(first.tolist(), lengths.tolist(), strict=True), lambda run: run[1] > 1):
        runs = list(group)
        table = parts.slice(runs[0][0], sum(length for _, length in runs))
        if is_cut:
            rows = [_merged(parts.slice(start, length).to_pylist()) for start, length in runs]
            table = pa.Table.from_pylist(rows, schema=document_schema())
        yield table.select(document_schema().names)


def _merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One document joined from its parts. Sentences are numbered again; offsets already refer to the document."""
    entities, sentences = list[dict[str, Any]](), list[dict[str, Any]]()

    def moved(entities: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**entity, "sentence": entity["sentence"] + len(sentences)} for entity in entities]

    for part in parts:
        entities += moved(part["entities"])
        sentences += [
            {
                **sentence,
                "alternatives": sentence["alternatives"]
                and [{**other, "entities": moved(other["entities"])} for other in sentence["alternatives"]],
            }
            for sentence in part["sentences"]
        ]
    error = next((part["error"] for part in parts if part["error"] is not None), None)
    text = "".join(part["text"] for part in parts)
    return {"id": parts[0]["id"], "text": text, "entities": entities, "sentences": sentences, "error": error}


def _count(table: pa.Table, counts: Counter[str]) -> None:
    counts["documents"] += len(table)
    counts["errors"] += len(table) - table["error"].null_count
    counts["entities"] += pc.sum(pc.list_value_length(table["entities"])).as_py() or 0
    views = pc.struct_field(pc.list_flatten(table["sentences"]), "view")
    counts["sentences"] += len(views)
    for row in pc.value_counts(views).to_pylist():
        counts[f"view {row['values']}"] += row["counts"]


def _first_error(table: pa.Table) -> str | None:
    failed = table.select(["id", "error"]).filter(pc.is_valid(table["error"])).slice(0, 1).to_pylist()
    return f"{failed[0]['id']!r}: {failed[0]['error']}" if failed else None
