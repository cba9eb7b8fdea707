"""`ctxner data`: what files are read as, what is counted, what is odd, what is shown and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ctxner.files.columns import ColumnFormat
from ctxner.files.sentences import read_sentences

Called = tuple[int, str, str]

COLUMNS = """-DOCSTART- O

Ada B-person
met O
Bob B-Person

It O
rained O

-DOCSTART- O

New B-place
York I-place
\t
It O
rained O

Ada B-person
"""
DOCCANO = [
    {"id": 1, "text": "Ada saw 🐱 in New York.", "label": [[0, 3, "person"], [13, 21, "place"]]},
    {"id": 2, "text": "Nothing here.", "label": []},
    {"id": 3, "text": "Not looked at yet."},
    {"id": 4, "text": "\u200b", "label": []},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "train.conll").write_text(COLUMNS)
    (tmp_path / "export.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in DOCCANO))
    return tmp_path


def result(call: Callable[..., Called], *arguments: str) -> dict:
    code, out, err = call("data", *arguments, "--json")
    assert (code, out.count("\n")) == (0, 1), err
    return json.loads(out)


def test_a_column_file_is_counted(folder: Path, call: Callable[..., Called]) -> None:
    (file,) = result(call, "train.conll")["files"]
    examples = file.pop("examples")
    assert file == {
        "file": "train.conll",
        "format": "columns, IOB2",
        "scheme": None,
        "sentences": 5,
        "documents": 2,
        "words": 10,
        "mentions": {"person": 2, "Person": 1, "place": 1},
        "untagged": 0,
        "without_mentions": 2,
        "share_without_mentions": 0.4,
        "repeated": 1,
        "longest": {"id": "train-0", "words": 3, "begins": "Ada met Bob"},
        "odd": [
            {
                "what": "types that differ only in case or punctuation: person, Person",
                "count": 3,
                "places": ["train.conll:3", "train.conll:5"],
            }
        ],
    }
    assert [example["id"] for example in examples] == ["train-0", "train-2", "train-4"]
    assert examples[1]["mentions"] == [{"start": 0, "end": 2, "type": "place"}]


def test_texts_without_gold_are_not_texts_without_mentions(folder: Path, call: Callable[..., Called]) -> None:
    (file,) = result(call, "export.jsonl")["files"]
    assert (file["sentences"], file["untagged"], file["without_mentions"], file["scheme"]) == (3, 1, 1, None)
    assert file["odd"] == [{"what": "texts without a word, left out", "count": 1, "places": ["export.jsonl:4"]}]


ODD_COLUMNS = """# a comment
Ada\tB-person,B-place
met\tO
\tO
Bob\tI-place
Lee\tI-place

# another
Rome\tI-Place
"""
ODD_RECORDS = [
    {"words": ["Ada", "", "Rome"], "tags": ["B-person", "O", "I-place"]},
    {"words": []},
    {"text": "\u200b", "entities": []},
    {"text": "In Rome.", "entities": [[3, 7, "Place"]]},
    {"text": "A Roman.", "entities": [[2, 6, "PLACE"]]},
]


def test_each_odd_thing_is_said_with_the_lines_where_it_is(folder: Path, call: Callable[..., Called]) -> None:
    (folder / "odd.conll").write_text(ODD_COLUMNS)
    (folder / "odd.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in ODD_RECORDS))
    options = "--set", "data.scheme=IOB2", "--set", "data.repair=true"
    columns, records = result(call, "odd.conll", "odd.jsonl", *options)["files"]
    assert {odd["what"]: (odd["count"], odd["places"]) for odd in columns["odd"]} == {
        "comment lines, not read": (2, ["odd.conll:1", "odd.conll:8"]),
        "cells with several tags, of which one was read": (1, ["odd.conll:2"]),
        "empty words, read as _": (1, ["odd.conll:4"]),
        "tags changed by data.repair": (2, ["odd.conll:5", "odd.conll:9"]),
        "types that differ only in case or punctuation: place, Place": (2, ["odd.conll:5", "odd.conll:9"]),
    }
    odd = {odd["what"]: (odd["count"], odd["places"]) for odd in records["odd"]}
    assert (
        odd.items()
        >= {
            "empty words, read as _": (1, ["odd.jsonl:1: word 1"]),
            "tags changed by data.repair": (1, ["odd.jsonl:1: word 2"]),
            "texts without a word, left out": (2, ["odd.jsonl:2", "odd.jsonl:3"]),
            "types that differ only in case or punctuation: place, Place, PLACE": (
                3,
                ["odd.jsonl:1: word 2", "odd.jsonl:4", "odd.jsonl:5"],
            ),
        }.items()
    )


def test_of_many_places_the_first_are_said(folder: Path, call: Callable[..., Called]) -> None:
    (folder / "many.conll").write_text("x\tO\n\tO\n\n" * 9)
    (file,) = result(call, "many.conll")["files"]
    (odd,) = file["odd"]
    assert (odd["count"], odd["places"]) == (9, [f"many.conll:{line_no}" for line_no in (2, 5, 8, 11, 14)])


def test_several_files_are_shown_one_by_one_and_together(folder: Path, call: Callable[..., Called]) -> None:
    code, out, err = call("data", "train.conll", "exp*.jsonl")
    assert code == 0
    lines = [line.strip() for line in out.splitlines()]
    assert "• [Ada = person] met [Bob = Person]" in lines
    assert "• [Ada = person] saw 🐱 in [New York = place] ." in lines
    assert "odd 1 × texts without a word, left out, first export.jsonl:4" in lines
    assert any(line.split() == ["together", "8", "25", "6", "3"] for line in lines)
    assert "\x1b" not in out
    assert "sentences read, with" not in err  # said by the result


def test_many_files_are_one_line_each(folder: Path, call: Callable[..., Called]) -> None:
    for number in range(60):
        (folder / f"part-{number:02d}.conll").write_text("Ada B-person\n")
    code, out, _ = call("data", "part-*.conll")
    assert code == 0
    assert "person  60 " in out
    assert "part-49.conll" in out
    assert "part-50.conll" not in out
    assert "and 10 further files" in out


def test_mentions_are_coloured_at_a_terminal(folder: Path, call: Callable[..., Called], monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    code, out, _ = call("data", "train.conll")
    assert code == 0
    assert "\x1b[30;106m Ada \x1b[0m\x1b[1;36m person \x1b[0m" in out
    assert "[Ada" not in out.replace("\x1b[", "")


def test_what_a_file_holds_is_no_command_to_the_terminal(folder: Path, call: Callable[..., Called]) -> None:
    line = {"text": "\x1b]0;owned\x07\x1b[2J Ada [bold]x[/bold] \u202eback", "label": [[13, 16, "p\x1b[31m"]]}
    (folder / "odd.jsonl").write_text(json.dumps(line))
    code, out, _ = call("data", "odd.jsonl")
    assert code == 0
    assert not set(out) & {"\x1b", "\x07", "\u202e"}
    assert "bold ] x [ / bold ]" in out


def test_the_examples_show_as_many_types_as_they_can(folder: Path, call: Callable[..., Called]) -> None:
    """Nine types: four sentences with two each, one with the ninth, and before them a hundred with the first."""
    sentences = [[("w", "B-T0")]] * 100 + [[("w", f"B-T{n}"), ("w", f"B-T{n + 1}")] for n in range(0, 8, 2)]
    sentences.append([("w", "B-T8")])
    text = "\n\n".join("\n".join(" ".join(pair) for pair in sentence) for sentence in sentences)
    (folder / "many.conll").write_text(text)
    (file,) = result(call, "many.conll")["files"]
    assert len(file["examples"]) == 5
    types = {mention["type"] for example in file["examples"] for mention in example["mentions"]}
    assert types == {f"T{n}" for n in range(9)}


def test_a_fault_is_said_with_its_place_and_other_commands_point_here(
    folder: Path, call: Callable[..., Called]
) -> None:
    (folder / "bad file.conll").write_text("Ada B-person\nsang X\n")
    code, out, err = call("data", "bad file.conll")
    assert (code, out) == (2, "")
    assert "error: bad file.conll:2: 'X' is not a tag of IOB2" in err
    assert "ctxner data" not in err
    code, out, err = call("train", "--set", "data.train='bad file.conll'", "--set", "data.dev=train.conll")
    assert (code, out) == (2, "")
    assert "error: bad file.conll:2: 'X' is not a tag of IOB2" in err
    assert err.endswith("\nwhat is in the file: ctxner data 'bad file.conll'\n")


def test_settings_and_the_configs_files_are_used(folder: Path, call: Callable[..., Called]) -> None:
    (folder / "iob1.conll").write_text("Ada I-person\nBob B-person\n")
    assert call("data", "iob1.conll", "-s", "data.scheme=IOB2")[0] == 2
    assert result(call, "iob1.conll")["mentions"] == {"person": 2}
    (folder / "config.yaml").write_text("data: {train: iob1.conll, dev: export.jsonl, scheme: IOB1}\n")
    assert [file["file"] for file in result(call, "-c", "config.yaml")["files"]] == ["iob1.conll", "export.jsonl"]
    code, _, err = call("data")
    assert code == 2
    assert "no file; give FILES, or set data.train" in err


def test_conversion_keeps_words_tags_offsets_ids_and_documents(folder: Path, call: Callable[..., Called]) -> None:
    assert result(call, "train.conll", "export.jsonl", "--to", "jsonl", "all.jsonl")["written"] == "all.jsonl"
    read = [*read_sentences("train.conll", ColumnFormat()).sentences, *read_sentences("export.jsonl").sentences]
    assert read_sentences("all.jsonl").sentences == [replace(sentence, text=None) for sentence in read]
    assert result(call, "all.jsonl")["files"][0]["documents"] == 5  # each text is one


def test_conversion_to_columns_keeps_words_and_tags(folder: Path, call: Callable[..., Called]) -> None:
    (folder / "tagged.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in DOCCANO[:2]))
    result(call, "tagged.jsonl", "--to", "columns", "made.conll")
    assert (folder / "made.conll").read_text() == (
        "Ada\tB-person\nsaw\tO\n🐱\tO\nin\tO\nNew\tB-place\nYork\tI-place\n.\tO\n\nNothing\tO\nhere\tO\n.\tO\n\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("export.jsonl", "--to", "columns", "made.conll"),
            "sentence '3' has no tags, and sentences before it have some",
        ),
        (("export.jsonl", "--to", "jsonl", "made.conll"), "made.conll: the name says columns; wanted .jsonl"),
        (("export.jsonl", "copy.jsonl", "--to", "jsonl", "made.jsonl"), "two of the files give the same sentence id"),
        (("absent.conll",), "absent.conll: no such file"),
        (
            ("cut.jsonl", "--to", "columns", "made.conll"),
            "overlaps another; write JSON lines, which hold it (`--to jsonl`",
        ),
        (
            ("piped.jsonl", "--to", "columns", "made.conll"),
            "from a column file; replace it, or write JSON lines, which hold it (`--to jsonl`",
        ),
        (
            ("train.conll", "--set", "data.tag_column=0"),
            "token and tag column are both 0; --set data.tag_column=N names another column",
        ),
    ],
)
def test_what_cannot_be_written_leaves_no_file(
    folder: Path, call: Callable[..., Called], arguments: tuple[str, ...], message: str
) -> None:
    (folder / "copy.jsonl").write_bytes((folder / "export.jsonl").read_bytes())
    (folder / "cut.jsonl").write_text(json.dumps({"text": "Antitrust laws", "label": [[4, 9, "per"]]}))
    (folder / "piped.jsonl").write_text(json.dumps({"words": ["a\tb"], "tags": ["O"]}))
    before = sorted(folder.iterdir())
    code, out, err = call("data", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert sorted(folder.iterdir()) == before


def test_a_dry_run_reads_and_checks_but_writes_nothing(folder: Path, call: Callable[..., Called]) -> None:
    before = sorted(folder.iterdir())
    assert result(call, "train.conll", "--to", "jsonl", "made.jsonl", "--dry-run")["would_write"] == "made.jsonl"
    assert call("data", "export.jsonl", "--to", "columns", "made.conll", "--dry-run")[0] == 2
    assert sorted(folder.iterdir()) == before
