"""Answers in the files of annotation tools hold the same mentions, as parsers after each tool's documentation say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctxner.batch import annotation_files
from ctxner.batch.tagging_files import publish_documents, stage_documents, tagged_schema
from ctxner.files.documents import Document
from ctxner.files.sentences import read_sentences
from ctxner.labels import gold_spans
from ctxner.schema import Sentence
from ctxner.texts import sentences_of

TYPES = {"Ada": "person", "Bob": "person", "York": "city name", "Zürich": "city_name", "🐱": "animal"}
DOCUMENTS = [
    Document("a/b", "🐱 Ada is here.\r\nBob is not. "),
    Document("a/b", "Twice the id: Zürich.\u2028Ada\tcame\n"),
    Document("é" * 300 + "/../x", "No mention.\n"),
    Document("failed", "Ada, but the part failed"),
    Document("empty", ""),
    Document("words", "New York 🐱", ("New", "York", "🐱")),
    Document("..", "\ufeffBob"),
]
Mentions = list[tuple[int, int, str]]


def mentions_of(document: Document) -> Mentions | None:
    """The mentions that the rows have, by the words of `TYPES`; None for the document that failed."""
    if document.id == "failed":
        return None
    words = re.finditer("|".join(TYPES), document.text)
    return [(word.start(), word.end(), TYPES[word[0]]) for word in words]


def row_of(part: dict[str, Any]) -> dict[str, Any]:
    document = Document(part["id"], part["text"], part["words"])
    mentions = mentions_of(document)
    sentences = sentences_of(part["words"] or part["text"], "s") if mentions is not None else []
    places = [sentence.located()[1] for sentence in sentences]

    def number_of(start: int) -> int:
        return next(number for number, offsets in enumerate(places) if start < offsets[-1][1])

    entities = [
        {"text": part["text"][start:end], "type": type, "start": start, "end": end}
        | {"confidence": (start + 1) / 64, "sentence": number_of(start)}
        for start, end, type in mentions or ()
    ]
    rows = [
        {"start": offsets[0][0], "end": offsets[-1][1], "view": "plain", "words": sentence.words}
        for sentence, offsets in zip(sentences, places, strict=True)
    ]
    place = {name: part[name] for name in ("position", "document", "start", "id", "text")}
    return {**place, "entities": entities, "sentences": rows, "error": "odd" if mentions is None else None}


def publish(folder: Path, format: str, documents: list[Document] = DOCUMENTS) -> None:
    job = stage_documents(documents, folder, {})
    parts = [row for path in sorted(job.inputs.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    pq.write_table(pa.Table.from_pylist(list(map(row_of, parts)), schema=tagged_schema()), job.rows / "0.parquet")
    publish_documents(job, folder, [format])


def read_brat(folder: Path) -> Iterator[tuple[str, str, Mentions | None]]:
    """Id, text and mentions, after https://brat.nlplab.org/standoff.html, and the labels of visual.conf."""
    conf = (folder / "visual.conf").read_text(encoding="utf-8").partition("[labels]\n")[2].partition("\n[")[0]
    labels = dict(line.split(" | ") for line in conf.splitlines() if line)
    entities = (folder / "annotation.conf").read_text(encoding="utf-8").partition("[entities]\n")[2].partition("\n[")[0]
    assert entities.split() == list(labels)
    for line in (folder / "_ids.jsonl").read_text(encoding="utf-8").splitlines():
        names = json.loads(line)
        text = (folder / names["file"]).read_bytes().decode()
        annotations = (folder / names["file"]).with_suffix(".ann")
        if not annotations.exists():
            yield names["id"], text, None
            continue
        mentions: Mentions = []
        for number, annotation in enumerate(annotations.read_bytes().decode().splitlines(), start=1):
            id, type_and_places, covered = annotation.split("\t", 2)
            type, places = type_and_places.split(" ", 1)
            fragments = [tuple(map(int, place.split())) for place in places.split(";")]
            assert id == f"T{number}"
            assert covered == " ".join(text[start:end] for start, end in fragments)
            mentions.append((fragments[0][0], fragments[-1][1], labels[type]))
        yield names["id"], text, mentions


def test_brat_holds_the_same_mentions_under_names_that_any_system_takes(tmp_path: Path) -> None:
    publish(tmp_path, "brat")
    read = list(read_brat(tmp_path / "tagged.brat"))
    assert read == [(document.id, document.text, mentions_of(document)) for document in DOCUMENTS]
    files = [path.name for path in (tmp_path / "tagged.brat").iterdir()]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name) for name in files)
    assert len([name for name in files if name.endswith(".txt")]) == len(DOCUMENTS)
    types = {line.split("\t")[1].split(" ")[0] for path in tmp_path.rglob("*.ann") for line in path.open()}
    assert types == {"person", "city_name", "city_name_", "animal"}


def test_a_mention_over_a_line_break_is_fragments_in_brat(tmp_path: Path) -> None:
    row = {"id": "x", "text": "in New \r\n York\u2028City.", "error": None}
    row["entities"] = [{"start": 3, "end": 19, "type": "city", "text": row["text"][3:19], "confidence": 0.5}]
    with annotation_files.brat(tmp_path) as write:
        write(row)
    assert (tmp_path / "000000-x.ann").read_text(encoding="utf-8") == "T1\tcity 3 6;10 14;15 19\tNew York City\n"


def test_label_studio_gets_tasks_with_predictions_and_their_scores(tmp_path: Path) -> None:
    """The form of https://labelstud.io/guide/predictions: regions with ids of their own, labels of one config."""
    publish(tmp_path, "label-studio")
    tasks = json.loads((tmp_path / "tagged.label-studio.json").read_text(encoding="utf-8"))
    assert len(tasks) == len(DOCUMENTS)
    ids = [region["id"] for task in tasks for made in task.get("predictions", ()) for region in made["result"]]
    assert len(set(ids)) == len(ids) == 8
    for document, task in zip(DOCUMENTS, tasks, strict=True):
        assert task["data"] == {"text": document.text, "document_id": document.id}
        mentions = mentions_of(document)
        if mentions is None:
            assert "predictions" not in task
            continue
        (prediction,) = task["predictions"]
        assert prediction["result"] == [
            {
                "id": region["id"],
                "from_name": "label",
                "to_name": "text",
                "type": "labels",
                "value": {"start": start, "end": end, "text": document.text[start:end], "labels": [type]},
                "score": (start + 1) / 64,
            }
            for (start, end, type), region in zip(mentions, prediction["result"], strict=True)
        ]
        assert prediction.get("score") == min(((start + 1) / 64 for start, *_ in mentions), default=None)


def test_doccano_lines_come_back_by_our_reader_as_the_same_mentions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(tmp_path, "doccano")
    assert "2 documents have characters beyond U+FFFF" in caplog.text
    lines = (tmp_path / "tagged.doccano.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line)["document_id"] for line in lines] == [document.id for document in DOCUMENTS]
    result = read_sentences(tmp_path / "tagged.doccano.jsonl")
    for id in {document.id for document in DOCUMENTS if document.text}:  # two documents have the same id
        mentions = [mentions_of(document) for document in DOCUMENTS if document.text and document.id == id]
        sentences = [sentence for sentence in result.sentences if sentence.document == id]
        assert all(sentence.tags is None for sentence in sentences) == (mentions == [None])
        spans = [
            ((sentence.offsets or ())[span.start][0], (sentence.offsets or ())[span.end - 1][1], span.type)
            for sentence in sentences
            for span in (gold_spans(sentence) if sentence.tags is not None else ())
        ]
        assert spans == [mention for of_document in mentions for mention in of_document or ()]


def accepted(folder: Path) -> Path:
    """The tasks as Label Studio exports them once somebody has accepted the predictions: they are annotations then."""
    tasks = json.loads((folder / "tagged.label-studio.json").read_text(encoding="utf-8"))
    for number, task in enumerate(tasks):
        results = [prediction["result"] for prediction in task.pop("predictions", ())]
        task |= {"id": number, "annotations": [{"id": number, "result": result} for result in results]}
    (folder / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    return folder / "export.json"


@pytest.mark.parametrize("format", ["brat", "label-studio"])
def test_what_brat_and_label_studio_get_comes_back_by_our_reader(tmp_path: Path, format: str) -> None:
    publish(tmp_path, format)
    result = read_sentences(tmp_path / "tagged.brat" if format == "brat" else accepted(tmp_path))
    names = {"city name": "city_name_"} if format == "brat" else {}
    mentions = [
        (document.text[start:end], names.get(type, type))
        for document in DOCUMENTS
        for start, end, type in mentions_of(document) or ()
    ]
    read = [
        ((sentence.text or "")[slice(*range_of(sentence, span.start, span.end))], span.type)
        for sentence in result.sentences
        for span in (gold_spans(sentence) if sentence.tags is not None else ())
    ]
    assert sorted(read) == sorted(mentions)
    assert len(read) == 8


def range_of(sentence: Sentence, first: int, end: int) -> tuple[int, int]:
    """First character of a run of words and one past its last, in the sentence's text."""
    assert sentence.offsets
    return sentence.offsets[first][0], sentence.offsets[end - 1][1]


def test_spacy_gets_documents_with_the_same_entities_and_confidences(tmp_path: Path, monkeypatch) -> None:
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed: pip install 'ctxner[spacy]'")
    monkeypatch.setattr(annotation_files, "_TOKENS_PER_FILE", 10)
    publish(tmp_path, "spacy")
    vocab = spacy.blank("en").vocab
    files = sorted((tmp_path / "tagged.spacy").iterdir())
    assert [path.name for path in files] == [f"{number:04d}.spacy" for number in range(len(files))]
    assert len(files) > 1
    docs = [doc for path in files for doc in spacy.tokens.DocBin().from_disk(path).get_docs(vocab)]
    assert [(doc.text, doc.user_data["id"]) for doc in docs] == [(made.text, made.id) for made in DOCUMENTS]
    for doc, document in zip(docs, DOCUMENTS, strict=True):
        mentions = mentions_of(document)
        assert [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents] == (mentions or [])
        assert [ent._.confidence for ent in doc.ents] == [(ent.start_char + 1) / 64 for ent in doc.ents]
        assert all(token.ent_iob == 0 for token in doc) if mentions is None else doc.has_annotation("ENT_IOB")


def test_what_spacy_gets_comes_back_by_our_reader(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("spacy", reason="spaCy is not installed: pip install 'ctxner[spacy]'")
    monkeypatch.setattr(annotation_files, "_TOKENS_PER_FILE", 10)
    publish(tmp_path, "spacy")
    result = read_sentences(tmp_path / "tagged.spacy")
    read = [
        ((sentence.text or "")[slice(*range_of(sentence, span.start, span.end))], span.type)
        for sentence in result.sentences
        for span in (gold_spans(sentence) if sentence.tags is not None else ())
    ]
    mentions = [
        (document.text[start:end], type) for document in DOCUMENTS for start, end, type in mentions_of(document) or ()
    ]
    assert sorted(read) == sorted(mentions)
    assert len(read) == 8


@pytest.mark.parametrize("format", ["brat", "label-studio", "doccano"])
def test_a_job_that_fails_leaves_what_was_there(tmp_path: Path, format: str) -> None:
    """The second part of a job is missing: the first one is written aside by then."""
    publish(tmp_path, format)
    before = {path: path.read_bytes() for path in tmp_path.glob("tagged*/*")} | {
        path: path.read_bytes() for path in tmp_path.glob("tagged*") if path.is_file()
    }
    assert before
    job = stage_documents([Document("1", "Ada"), Document("2", "Bob")], tmp_path, {})
    pq.write_table(
        pa.Table.from_pylist([row_of(pq.read_table(job.inputs).to_pylist()[0])], schema=tagged_schema()),
        job.rows / "0.parquet",
    )
    with pytest.raises(RuntimeError, match="missing or there twice"):
        publish_documents(job, tmp_path, [format])
    assert all(path.read_bytes() == content for path, content in before.items())
    assert {path.name for path in tmp_path.iterdir()} == {
        ".tagging",
        *(path.relative_to(tmp_path).parts[0] for path in before),
    }
    publish_documents(stage_and_write(tmp_path, [Document("1", "Ada")]), tmp_path, [format])
    assert not [
        path for path in before if path.parent.name == "tagged.brat" and path.exists() and "000001" in path.name
    ]


def stage_and_write(folder: Path, documents: list[Document]) -> Any:
    job = stage_documents(documents, folder, {"again": True})
    rows = list(map(row_of, pq.read_table(job.inputs).to_pylist()))
    pq.write_table(pa.Table.from_pylist(rows, schema=tagged_schema()), job.rows / "0.parquet")
    return job


def test_no_document_is_still_a_file_of_each_tool(tmp_path: Path) -> None:
    for name, writer in (("a.json", annotation_files.label_studio), ("a.jsonl", annotation_files.doccano)):
        with writer(tmp_path / name):
            pass
    assert json.loads((tmp_path / "a.json").read_text()) == []
    assert (tmp_path / "a.jsonl").read_text() == ""


def test_without_spacy_a_job_is_refused_before_it_reads_anything(tmp_path: Path, monkeypatch) -> None:
    import sys

    from ctxner.config import Config
    from jobs import tag

    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / "spacy").is_dir()])
    monkeypatch.delitem(sys.modules, "spacy", raising=False)
    for act in (tag.run, tag.plan):
        with pytest.raises(ValueError, match=r"--to spacy needs spaCy, .*: pip install 'ctxner\[spacy\]'"):
            act(Config(), "absent", [str(tmp_path / "absent.jsonl")], str(tmp_path / "out"), formats=["spacy"])
    assert not list(tmp_path.iterdir())
