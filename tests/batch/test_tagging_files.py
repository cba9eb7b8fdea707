"""Staging documents and joining tagged parts again, without Ray: rows come in any order, in any files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctxner.batch.job_folder import JobFolder
from ctxner.batch.tagged_formats import document_schema
from ctxner.batch.tagging_files import PLACE, publish_documents, stage_documents, tagged_schema
from ctxner.files.columns import ColumnFormat
from ctxner.files.documents import Document
from ctxner.files.sentences import read_sentences
from ctxner.texts import sentences_of

LONG = "Ada met Bob. " * 700  # three parts
DOCUMENTS = [
    Document("a", "Ada is here. Bob is not."),
    Document("empty", ""),
    Document("long", LONG),
    Document("split", "New York", ("New", "York")),
    Document("a", "twice the id"),
]


def parts_of(job: JobFolder) -> list[dict[str, Any]]:
    return [row for path in sorted(job.inputs.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def tagged(part: dict[str, Any]) -> dict[str, Any]:
    """The part, with each Ada, Bob and York a person, and an alternative without any."""
    row = {name: part[name] for name in (*PLACE, "id", "text")}
    words = part["words"]
    sentences = sentences_of(words or part["text"], "s", bounds=part["bounds"]) if words is None or words else []
    row |= {"entities": [], "sentences": [], "error": "odd" if part["id"] == "empty" else None}
    for number, sentence in enumerate(sentences):
        _, offsets = sentence.located()
        tags = ["S-person" if word in ("Ada", "Bob", "York") else "O" for word in sentence.words]
        own = [
            {"text": word, "type": "person", "start": part["start"] + start, "end": part["start"] + end}
            | {"confidence": 0.5, "sentence": number}
            for word, tag, (start, end) in zip(sentence.words, tags, offsets, strict=True)
            if tag != "O"
        ]
        row["entities"] += own
        place = {"start": part["start"] + offsets[0][0], "end": part["start"] + offsets[-1][1], "view": "plain"}
        others = [{"probability": 0.25, "entities": own[:1]}]
        row["sentences"].append(
            {**place, "entropy": 0.1, "words": sentence.words, "tags": tags, "alternatives": others}
        )
    return row


def write_rows(job: JobFolder, *, seed: int = 0, num_files: int = 3) -> None:
    rng, files = random.Random(seed), [[] for _ in range(num_files)]
    rows = [tagged(part) for part in parts_of(job)]
    for row in rng.sample(rows, len(rows)):
        rng.choice(files).append(row)
    for number, rows in enumerate(files):
        pq.write_table(pa.Table.from_pylist(rows, schema=tagged_schema()), job.rows / f"{number}.parquet")


@pytest.mark.parametrize("seed", range(5))
def test_rows_in_any_order_become_the_documents_in_theirs(tmp_path: Path, seed: int) -> None:
    job = stage_documents(DOCUMENTS, tmp_path, {})
    write_rows(job, seed=seed)
    (tmp_path / ".tagged.jsonl.0123abcd.aside").write_text("left by a killed job")
    counts = publish_documents(job, tmp_path, ["parquet", "jsonl", "conll"])
    assert not list(tmp_path.glob(".tagged*"))
    table = pq.read_table(tmp_path / "tagged.parquet")
    assert table.schema.equals(document_schema())
    rows = table.to_pylist()
    assert [(row["id"], row["text"]) for row in rows] == [(own.id, own.text) for own in DOCUMENTS]
    for row in rows:
        for entity in row["entities"]:
            sentence = row["sentences"][entity["sentence"]]
            assert row["text"][entity["start"] : entity["end"]] == entity["text"]
            assert sentence["start"] <= entity["start"] < entity["end"] <= sentence["end"]
            first = sentence["alternatives"][0]["entities"][0]
            assert first["sentence"] == entity["sentence"], "sentences are numbered through a document's parts"
    assert [len(row["entities"]) for row in rows] == [2, 0, 1400, 1, 0]
    assert [row["error"] for row in rows] == [None, "odd", None, None, None]
    assert counts == {"documents": 5, "sentences": 704, "entities": 1403, "errors": 1, "views": {"plain": 704}}
    lines = [json.loads(line) for line in (tmp_path / "tagged.jsonl").read_text().splitlines()]
    assert [(own["id"], own["entities"]) for own in lines] == [(row["id"], row["entities"]) for row in rows]
    sentences = read_sentences(tmp_path / "tagged.conll", ColumnFormat()).sentences
    assert [own.tags for own in sentences] == [tuple(one["tags"]) for row in rows for one in row["sentences"]]
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"tagged.{own}" for own in ("parquet", "jsonl", "conll")),
        ".tagging",
    }


def test_a_missing_row_is_never_published(tmp_path: Path) -> None:
    job = stage_documents(DOCUMENTS, tmp_path, {})
    write_rows(job)
    (job.rows / "0.parquet").unlink()
    with pytest.raises(RuntimeError, match="is missing or there twice"):
        publish_documents(job, tmp_path, ["parquet", "jsonl"])
    assert [path.name for path in tmp_path.iterdir()] == [".tagging"]


@pytest.mark.parametrize(("num_failed", "refused"), [(1, False), (2, True), (20, True)])
def test_a_job_with_more_errors_than_allowed_writes_nothing_and_keeps_its_rows(
    tmp_path: Path, num_failed: int, refused: bool
) -> None:
    """The limit is a share of the documents; a larger one writes the same rows."""
    documents = [Document("empty" if number < num_failed else "a", f"Ada {number}.") for number in range(20)]
    job = stage_documents(documents, tmp_path, {})
    write_rows(job)
    (tmp_path / "tagged.parquet").write_text("of an older job")
    if refused:
        message = (
            rf"{num_failed} of 20 documents failed, more than tagging.max_errors=0.05 allows; first 'empty': odd\. "
            rf"The rows are in {job.rows}, .*remove {job.path} and call the job again; or .* larger tagging.max_errors"
        )
        with pytest.raises(ValueError, match=message):
            publish_documents(job, tmp_path, ["parquet", "jsonl"], max_errors=0.05)
        assert {path.name for path in tmp_path.iterdir()} == {".tagging", "tagged.parquet"}
        assert (tmp_path / "tagged.parquet").read_text() == "of an older job"
    assert publish_documents(job, tmp_path, ["parquet"], max_errors=1 if refused else 0.05)["errors"] == num_failed
    assert sum(row["error"] == "odd" for row in pq.read_table(tmp_path / "tagged.parquet").to_pylist()) == num_failed


def test_the_same_documents_find_their_rows_again_and_others_do_not(tmp_path: Path) -> None:
    write_rows(stage_documents(DOCUMENTS, tmp_path, {"view": "plain"}))
    assert len(list(stage_documents(DOCUMENTS, tmp_path, {"view": "plain"}).rows.iterdir())) == 3
    assert not list(stage_documents(DOCUMENTS, tmp_path, {"view": "auto"}).rows.iterdir())
    write_rows(stage_documents(DOCUMENTS, tmp_path, {}))
    assert not list(stage_documents([*DOCUMENTS[:-1], Document("b", "twice the id")], tmp_path, {}).rows.iterdir())


def test_documents_that_cannot_be_tagged_or_written_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no documents to tag"):
        stage_documents([], tmp_path, {})
    with pytest.raises(ValueError, match=r"word 1 'b\\tc' would be read back differently from a column file"):
        stage_documents([*DOCUMENTS, Document("odd", "a b\tc", ("a", "b\tc"))], tmp_path, {}, ["conll"])
    assert list(tmp_path.iterdir()) == []
