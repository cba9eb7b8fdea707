"""What commands print at their end: whole words in 80 columns, no control characters, paths and commands to copy."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rich.table import Table

from jobs import summaries
from jobs.console import in_words, show, show_table

LONG = "/".join(["runs", *["a-long-folder-name"] * 8])
INDEX = {
    "folder": "runs/index", "version": "v000003", "num_documents": 12_345, "num_texts": 5, "num_names": 12_400,
    "corpus_files": ["a.jsonl", "b.csv"], "language": "en", "num_shards": 1,
}  # fmt: skip
TRAINED = {
    "model": "runs/first/model",
    "run": "runs/first",
    "page": "runs/first/training.html",
    "best": {"epoch": 3, "dev_f1": {"plain": 0.462, "context": 0.71}, "dev_sentences": 1000, "losses": {"nll": 1.5}},
    "epochs": 4,
    "steps": 1234,
    "scores": {
        view: {
            "micro": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "num_gold": 4, "num_predicted": 4},
            "per_type": {"ship": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "num_gold": 4, "num_predicted": 4}},
        }
        for view in ("plain", "context")
    },
}


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def printed(result: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[str]:
    show(result)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_training_ends_in_its_scores_where_the_model_lies_and_what_to_do_next(capsys) -> None:
    lines = printed(summaries.of_train(TRAINED), capsys)
    assert lines == [
        "type  plain P  plain R  plain F1  context P  context R  context F1  gold",
        "all      50.0     50.0      50.0       50.0       50.0        50.0     4",
        "ship     50.0     50.0      50.0       50.0       50.0        50.0     4",
        "",
        "best epoch  3 of 4, 1,234 steps in all",
        "F1 on dev   plain 46.2, context 71.0 (percent, of the best epoch, 1,000",
        "            sentences of dev)",
        "model       runs/first/model",
        "page        runs/first/training.html",
        "score it:   ctxner evaluate runs/first/model",
        'tag a text: ctxner tag-text runs/first/model "some text"',
    ]


@pytest.mark.parametrize(
    ("more", "first"),
    [
        ({"seconds": 2.5, "passages_per_second": 4938}, "passages  12,345, of which 5 are texts; 12,400 names"),
        ({"num_added": 3, "num_replaced": 1, "num_deleted": 0, "unknown_ids": []}, "added     3"),
        ({"num_deleted": 1, "unknown_ids": ["x", "y"]}, "deleted           1"),
        ({"sound": True}, "sound     yes: checksums, number of passages, ids and corpus hash"),
    ],
)
def test_an_index_is_summed_up_in_lines(more: dict, first: str, capsys) -> None:
    lines = printed(summaries.of_index({**INDEX, **more}), capsys)
    assert lines[0].split() == ["index", "runs/index,", "version", "v000003"]
    assert lines[1] == first
    assert lines[-1] == 'search it: ctxner index search "some text" --index runs/index'
    assert ("not in the index  x, y" in lines) == bool(more.get("unknown_ids"))


def test_retrieval_and_tagging_say_what_failed_and_what_was_done_before(capsys) -> None:
    result = {
        "sentences": 1000, "kept_passages": 5500, "without_passage": 20, "without_query": 0, "errors": 1,
        "index": {"num_documents": 99, "version": "v000001"}, "seconds": 4000.4, "resumed_from": 400, "folder": "made",
        "retrieval": {"query": "entries"},
    }  # fmt: skip
    assert printed(summaries.of_retrieve(result), capsys) == [
        "sentences        1,000, 5.5 passages each",
        "without passage  20 of 1,000 (2.0%)",
        "by names alone   none",
        "failed           1 of 1,000 (0.1%)",
        "searched         99 passages, version v000001",
        "time             1:06:40; 400 sentences were done before",
        "contexts         made",
        "train on them: ctxner train -c CONFIG --set data.contexts=made",
    ]
    tagged = {
        "documents": 10, "sentences": 25, "entities": 7, "views": {"plain": 20, "context": 5}, "errors": 0,
        "seconds": 9.24, "sentences_per_second": 12.5, "resumed_from": 0, "folder": "s3://bucket/out",
        "skipped": [{"file": "bad.jsonl", "error": "bad.jsonl:1: not UTF-8"}], "skipped_files": 1,
    }  # fmt: skip
    assert printed(summaries.of_tag(tagged), capsys) == [
        "documents       10, 25 sentences",
        "entities        7",
        "views           plain 20, context 5",
        "failed          none",
        "time            9.2 s, 12.5 sentences/s while tagging",
        "files left out  bad.jsonl (bad.jsonl:1: not UTF-8)",
        "written         s3://bucket/out",
    ]


def test_a_study_says_which_cells_failed_and_why(capsys) -> None:
    result = {"study": "tiny", "done": ["a", "b"], "done_before": 3, "failed": {"c": "train: ValueError: no"},
              "missing": {"d": "x.conll: no file", "e": "x.conll: no file"}, "results": "docs/tiny"}  # fmt: skip
    assert printed(summaries.of_study(result), capsys) == [
        "done now     a, b",
        "done before  3",
        "failed, c    train: ValueError: no",
        "left out     2 cells: x.conll: no file",
        "results      docs/tiny",
        "tables: ctxner experiment report tiny",
    ]


def test_no_word_is_broken_in_80_columns_and_long_paths_stay_whole(capsys) -> None:
    lines = printed({"model": LONG, "told": "many words " * 20, "next": {"go": f"ctxner tag-text {LONG} x"}}, capsys)
    assert lines[0] == f"model  {LONG}"
    assert printed({"plain against my_models/x": 1, "num_parts": 2}, capsys) == [
        "plain against my_models/x  1",
        "parts                      2",
    ]
    assert lines[-1] == f"go: ctxner tag-text {LONG} x"
    assert all(len(line) <= 80 for line in lines[1:-1])
    assert {word for line in lines[2:-1] for word in line.split()} == {"many", "words"}
    table = Table("step", "found", "what to do", box=None)
    table.add_row("extraordinary", LONG, "some advice that takes more than the room that is left there")
    show_table(table)
    words = capsys.readouterr().out.split()
    assert {"extraordinary", LONG, "advice"} <= set(words)


def test_a_log_has_the_words_of_a_terminal_and_nothing_that_commands_one(
    capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = {**summaries.of_train(TRAINED), "told": "a\x1b[2Jb\x07\u202e", "next": {"go\x00": "rm \x1b[1A"}}
    plain = printed(result, capsys)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", "".join(plain))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = printed(result, capsys)
    assert "\x1b[1m" in "".join(coloured)
    assert [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in coloured] == plain


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "none"), ([], "none"), ({}, "none"), (True, "yes"), (1234567, "1,234,567"), (0.123456, "0.1235"),
        (12345.6, "12,346"), (["a", "b"], "a, b"), ({"train": 12, "dev_f1": 0.5}, "train 12, dev_f1 0.5"),
        ({"a": ["x", "y"], "b": 1}, "(a x, y), b 1"), ("as it is", "as it is"),
    ],
)  # fmt: skip
def test_values_are_written_as_a_person_writes_them(value: Any, words: str) -> None:
    assert in_words(value) == words
