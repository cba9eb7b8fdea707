"""The actors of a tagging job, called without Ray: a part that fails is a row with an error, alone and in company."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

pytest.importorskip("ray")

from ctxner.batch import tagging_rows
from ctxner.batch.retrieval_actors import Rows
from ctxner.batch.tagging_actors import LookUp, TagContext, TagPlain
from ctxner.batch.tagging_files import stage_documents
from ctxner.files.documents import Document
from ctxner.predictions import Prediction
from ctxner.predictor import Tagger
from ctxner.schema import Example, Passage, ScoredPassage, passage_row

GOOD, POISON = "Ada met Bob.", "This is poison."
SETTINGS = {"threads": 1, "actors": 2}  # threads: those of the process stay as they are for other tests
ERRORS = [RuntimeError, ValueError, KeyError, IndexError, UnicodeError, AssertionError, OSError]


class Poisoned:
    """A tagger that fails for a batch with the word `poison`; without an error it is the tagger."""

    def __init__(self, tagger: Tagger, error: Exception) -> None:
        self.tagger, self.error = tagger, error

    def predict(self, examples: Sequence[Example], **options: Any) -> list[Prediction]:
        if any("poison" in example.sentence.words for example in examples):
            raise self.error
        return self.tagger.predict(examples, **options)


class Search:
    """Finds a passage for each sentence, and fails for a batch with the word `poison`."""

    def look_up(self, rows: Rows) -> None:
        if any("poison" in row["words"] for row in rows):
            raise ValueError("no disk")
        passage = ScoredPassage(Passage("1", "x", "Ada is a person."), 1.0, 1)
        for row in rows:
            row |= {"query": "q", "passages": [passage_row(passage)], "error": None}


@pytest.fixture(scope="module")
def model(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tagger.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def parts_of(tmp_path: Path, *texts: str) -> pa.Table:
    job = stage_documents([Document(str(n), text) for n, text in enumerate(texts)], tmp_path, {})
    return pq.read_table(job.inputs)


def plain(model: str, error: Exception | None = None, threshold: float | None = None) -> TagPlain:
    actor = TagPlain(model, SETTINGS, threshold, False)
    if error is not None:
        actor.tagger.tagger = Poisoned(actor.tagger.tagger, error)
    return actor


def test_entities_of_words_with_offsets_are_those_of_the_words_at_their_characters_in_the_text(
    model: str, tmp_path: Path
) -> None:
    words, text = ("Paris", "Hilton", "sings", "in", "London"), "Paris  Hilton\nsings in\tLondon!"
    offsets = tuple((text.index(word), text.index(word) + len(word)) for word in words)
    documents = [Document("a", text, words, offsets), Document("b", " ".join(words), words), Document("c", "", (), ())]
    rows = plain(model)(pq.read_table(stage_documents(documents, tmp_path, {}).inputs)).to_pylist()
    located, joined, empty = ([(own["start"], own["end"], own["type"]) for own in row["entities"]] for row in rows)
    assert (len(joined) > 0, empty, rows[0]["text"]) == (True, [], text)
    begins = {len(" ".join(words[:n])) + bool(n): n for n in range(len(words))}
    ends = {len(" ".join(words[: n + 1])): n for n in range(len(words))}
    assert located == [(offsets[begins[start]][0], offsets[ends[end]][1], kind) for start, end, kind in joined]
    assert [own["text"] for own in rows[0]["entities"]] == [text[start:end] for start, end, _ in located]


@pytest.mark.parametrize("texts", [(POISON,), (GOOD, POISON), (POISON, GOOD, POISON)], ids=len)
@pytest.mark.parametrize("error", ERRORS)
def test_a_part_that_fails_is_a_row_with_its_error_alone_and_in_company(
    model: str, tmp_path: Path, error: type[Exception], texts: tuple[str, ...]
) -> None:
    rows = plain(model, error("odd"))(parts_of(tmp_path, *texts)).to_pylist()
    message = f"{error.__name__}: {error('odd')}"
    assert [row["error"] for row in rows] == [message if text == POISON else None for text in texts]
    assert [len(row["sentences"]) for row in rows] == [0 if text == POISON else 1 for text in texts]
    [whole] = plain(model)(parts_of(tmp_path / "good", GOOD)).to_pylist()
    for row in rows:
        assert row["text"] == POISON or row["entities"] == whole["entities"]


@pytest.mark.parametrize("error", [MemoryError("full"), torch.OutOfMemoryError("full")], ids=repr)
def test_a_single_part_that_does_not_fit_into_memory_ends_the_job(model: str, tmp_path: Path, error: Exception) -> None:
    for texts in ((POISON,), (GOOD, POISON)):
        with pytest.raises(type(error), match="full"):
            plain(model, error)(parts_of(tmp_path, *texts))


def test_a_batch_that_does_not_fit_into_memory_is_tagged_part_by_part(model: str, tmp_path: Path) -> None:
    class Small(Poisoned):
        def predict(self, examples: Sequence[Example], **options: Any) -> list[Prediction]:
            if len(examples) > 1:
                raise self.error
            return self.tagger.predict(examples, **options)

    actor = plain(model)
    actor.tagger.tagger = Small(actor.tagger.tagger, torch.OutOfMemoryError("full"))
    rows = actor(parts_of(tmp_path, GOOD, POISON)).to_pylist()
    assert [(row["error"], len(row["sentences"])) for row in rows] == [(None, 1), (None, 1)]


@pytest.mark.parametrize("texts", [(POISON,), (GOOD, POISON)], ids=len)
@pytest.mark.parametrize("view", ["context", "auto"])
def test_a_part_whose_retrieval_fails_keeps_the_answer_without_passages(
    model: str, tmp_path: Path, view: str, texts: tuple[str, ...]
) -> None:
    parts = parts_of(tmp_path, *texts)
    if view == "auto":
        parts = plain(model, threshold=0.0)(parts)
    rows = TagContext(model, SETTINGS, False)(LookUp(Search)(parts)).to_pylist()
    for row, text in zip(rows, texts, strict=True):
        [sentence] = row["sentences"]
        expected = (
            ("plain", "retriever_unavailable", "ValueError: no disk") if text == POISON else ("context", None, None)
        )
        assert (sentence["view"], sentence["reason"], sentence["error"]) == expected
        assert row["error"] == expected[2]


def test_an_error_of_retrieval_stays_through_the_actors_that_follow(model: str, tmp_path: Path) -> None:
    """The first tagger fails, the search after it would not."""

    class Works(Search):
        def look_up(self, rows: Rows) -> None:
            assert not any("poison" in row["words"] for row in rows)
            super().look_up(rows)

    parts = LookUp(Works)(LookUp(Search)(parts_of(tmp_path, POISON, GOOD)))
    rows = TagContext(model, SETTINGS, False)(parts).to_pylist()
    assert [row["error"] for row in rows] == ["ValueError: no disk", None]


@pytest.mark.parametrize("view", ["plain", "context", "auto"])
def test_a_part_that_cannot_be_split_is_a_row_with_its_error(
    model: str, tmp_path: Path, view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = tagging_rows.sentences_of

    def failing(text: str, *arguments: Any, **options: Any) -> Any:
        if text == POISON:
            raise IndexError("odd")
        return split(text, *arguments, **options)

    monkeypatch.setattr(tagging_rows, "sentences_of", failing)
    parts = parts_of(tmp_path, POISON, GOOD)
    if view != "context":
        parts = plain(model, threshold=None if view == "plain" else 0.0)(parts)
    if view != "plain":
        parts = TagContext(model, SETTINGS, False)(LookUp(Search)(parts))
    assert [row["error"] for row in parts.to_pylist()] == ["IndexError: odd", None]
