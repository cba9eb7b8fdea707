"""The tables in docs/formats.md say what the samples of these tests are read as."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ctxner.files.sentences import read_sentences
from ctxner.labels import gold_spans
from ctxner.schemes import SCHEMES
from tests.files import column_samples, test_brat
from tests.files.forms import test_annotated_texts, test_tagged_words

TABLE = Path(__file__).parents[2] / "docs" / "formats.md"
Sample = Callable[[Path], Path]


def _columns(form: str) -> Sample:
    return lambda folder: column_samples.write(folder, column_samples.FORMS[form][0])


def _records(form: str) -> Sample:
    return lambda folder: test_annotated_texts.write(folder, *test_annotated_texts.FILES[form])


def _brat(folder: Path) -> Path:
    (folder / "a.txt").write_bytes(test_brat.TEXT.encode())
    (folder / "a.ann").write_text(test_brat.ANNOTATIONS)
    return folder


def _parquet(folder: Path) -> Path:
    path = folder / "a.parquet"
    pq.write_table(test_tagged_words.table(test_tagged_words.NUMBERS, test_tagged_words.FEATURES), path)
    return path


def _strings(folder: Path) -> Path:
    return test_tagged_words.lines(folder, *test_tagged_words.rows(test_tagged_words.STRINGS))


def _saved(folder: Path) -> Path:
    return test_tagged_words.saved(folder / "train", ["a.arrow", "b.arrow"])


def _gliner(folder: Path) -> Path:
    record = {
        "tokenized_text": ["Steve", "Jobs", "founded", "Apple"],
        "ner": [[0, 1, "person"], [3, 3, "organization"]],
    }
    (folder / "a.json").write_text(json.dumps([record]))
    return folder / "a.json"


SAMPLES: dict[str, Sample] = {
    "CoNLL-2003": _columns("conll-2003"),
    "CoNLL-U, NorNE": _columns("norne"),
    "CoNLL-2012, OntoNotes": _columns("conll-2012"),
    "GermEval 2014": _columns("germeval"),
    "UNER": _columns("uner"),
    "MultiCoNER": _columns("multiconer"),
    "Label Studio, CONLL2003": _columns("label-studio"),
    "WikiNER": _columns("wikiner"),
    "doccano, `label`": _records("doccano (JSON lines)"),
    "doccano, `entities`": _records("doccano, relations"),
    "Prodigy": _records("Prodigy (JSON lines)"),
    "Label Studio, JSON": _records("Label Studio (JSON)"),
    "Label Studio, JSON-MIN": _records("Label Studio JSON-MIN (JSON)"),
    "spaCy's training pairs": _records("spaCy training pairs (JSON)"),
    "Hugging Face, Parquet": _parquet,
    "Hugging Face, strings": _strings,
    "Hugging Face, `load_from_disk`": _saved,
    "GLiNER": _gliner,
    "brat": _brat,
}


def _rows(first: str) -> Iterator[list[str]]:
    """The rows of the table whose first column is called so."""
    text = TABLE.read_text(encoding="utf-8")
    for line in text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def test_the_table_has_a_row_for_each_sample() -> None:
    assert {row[0] for row in _rows("format")} - {"spaCy, `.spacy`"} == set(SAMPLES)


def test_the_table_of_tags_has_a_row_for_each_spelling() -> None:
    spellings = {"suffixes", "lower case", "no prefix", "no type"}
    assert [row[0] for row in _rows("spelling")][:6] == ["IOB1", "IOB2", "BIOES", "BILOU", "BMEWO", "BMES"]
    assert {row[0] for row in _rows("spelling")} == spellings | set(SCHEMES)


@pytest.mark.parametrize("row", _rows("spelling"), ids=lambda row: row[0])
def test_a_spelling_is_read_as_the_table_says(row: list[str], tmp_path: Path) -> None:
    _, tags, read_as, bioes = row
    given = tags.strip("`").split()
    columns, records = tmp_path / "a.conll", tmp_path / "a.jsonl"
    columns.write_text("".join(f"w\t{tag}\n" for tag in given))
    records.write_text(json.dumps({"words": ["w"] * len(given), "tags": given}))
    for path, form in ((columns, "columns"), (records, "words and tags")):
        result = read_sentences(path)
        assert result.sentences[0].tags == tuple(bioes.strip("`").split())
        assert result.recognised[str(path)].startswith(form)
        assert result.recognised[str(path)].endswith(f", {read_as}")


@pytest.mark.parametrize("name", SAMPLES)
def test_a_row_says_what_the_sample_is_read_as(name: str, tmp_path: Path) -> None:
    (row,) = [row for row in _rows("format") if row[0] == name]
    path = SAMPLES[name](tmp_path)
    result = read_sentences(path)
    num_mentions = sum(len(gold_spans(sentence)) for sentence in result.sentences if sentence.tags is not None)
    read_as = result.recognised[str(path)].replace("|", "\\|")
    assert row[2:4] == [read_as, f"{len(result.sentences)}, {num_mentions}"]
