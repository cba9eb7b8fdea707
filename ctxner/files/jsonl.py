"""Records in JSON lines and in JSON files, ours and those of annotation tools; and writing sentences as JSON lines.

Errors name `file:line`. `ctxner.files.forms.recognise` tells the form of records; `ctxner.files.records` reads them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctxner.files.dataset_info import names_beside
from ctxner.files.forms.form import Reading
from ctxner.files.forms.recognise import recognised
from ctxner.files.json_values import MAX_CHARS, holds_array, json_values
from ctxner.files.lines import bare_name, lines_of, write_lines
from ctxner.files.records import BEYOND_TAGS, Record
from ctxner.schema import Sentence


def write_jsonl(sentences: Iterable[Sentence], path: str | Path) -> None:
    """Write the `words` form, all or nothing.

    Reading gives back ids, words, BIOES tags, offsets, documents and the mentions that tags cannot express. The
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
        if len(line) > MAX_CHARS:
            raise ValueError(f"{where}: a record of more than {MAX_CHARS:,} characters; cut the document")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not JSON ({error}); wanted one object per line") from error
        yield where, value
