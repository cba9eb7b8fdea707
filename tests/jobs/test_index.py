"""`ctxner index` and its sub-commands: build, add, delete, verify, stats and search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctxner.demo import World
from tests.jobs.command_line import call_apart, listing


def test_index_prints_exactly_one_json_object_and_the_rest_on_stderr(folder: Path) -> None:
    code, out, err = call_apart("index", "--corpus", "world/corpus.jsonl", "--out", "runs/index", "--json")
    assert (code, out.count("\n")) == (0, 1)
    found = json.loads(out)
    assert found["num_documents"] == len((folder / "world/corpus.jsonl").read_text().splitlines())
    assert found["folder"] == "runs/index"
    assert (folder / "runs/index/CURRENT").read_text() == "v000001\n"
    assert "indexing passages" in err


def test_dry_run_of_index_counts_passages_and_writes_nothing(folder: Path) -> None:
    before = listing(folder)
    code, out, _ = call_apart("index", "--corpus", "world/corpus.jsonl", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["num_passages"] == len((folder / "world/corpus.jsonl").read_text().splitlines())
    assert listing(folder) == before


def test_missing_corpus_file_is_one_message_and_leaves_no_index(folder: Path) -> None:
    before = listing(folder)
    code, out, err = call_apart("index", "--corpus", "absent.jsonl", "--out", "index", "--json")
    assert (code, out) == (2, "")
    assert "error: absent.jsonl: no such corpus file\n" in err
    assert "Traceback" not in err
    assert listing(folder) == before


def test_an_index_is_built_changed_searched_and_checked_by_its_commands(folder: Path) -> None:
    (folder / "more.jsonl").write_text('{"id": "new", "contents": "A zyxwv came.", "title": "Zyxwv", "source": "more"}')
    (folder / "ids.txt").write_text("new\n\nunheard-of\n")

    def result(*arguments: str) -> dict:
        code, out, err = call_apart("index", *arguments, "--json")
        assert (code, out.count("\n")) == (0, 1), err
        return json.loads(out)

    built = result("build", "--corpus", "world/corpus.jsonl", "--out", "made", "--set", "index.language=en")
    before = listing(folder)
    planned = result("add", "--corpus", "more.jsonl", "--index", "made", "--dry-run")
    assert (planned["num_added"], planned["num_replaced"]) == (1, 0)
    assert listing(folder) == before
    assert result("add", "--corpus", "more.jsonl", "--index", "made")["num_documents"] == built["num_documents"] + 1
    found = result("search", "They met Zyxwv.", "--index", "made", "--depth", "2")
    assert (found["hits"][0]["id"], found["hits"][0]["title"]) == ("new", "Zyxwv")
    assert found["hits"][0]["score"] > 0
    assert result("stats", "--index", "made")["sources"]["more"] == 1
    before = listing(folder)
    assert result("delete", "--ids-file", "ids.txt", "-i", "made", "--dry-run")["unknown_ids"] == ["unheard-of"]
    assert listing(folder) == before
    assert result("delete", "--ids-file", "ids.txt", "-i", "made")["corpus_sha256"] == built["corpus_sha256"]
    assert result("verify", "--index", "made")["num_documents"] == built["num_documents"]


def test_columns_of_a_csv_file_are_named_on_the_command_line_or_in_the_config(folder: Path) -> None:
    (folder / "shop.csv").write_text("Produkt,Synonyme\nVelmora 3,Blue Glow|V-300\n")
    (folder / "more.csv").write_text("label,type\nHator,chair\n")

    def result(*arguments: object) -> dict:
        code, out, err = call_apart("index", *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    corpus = ("--corpus", "shop.csv", "--columns", "name=Produkt, aliases = Synonyme")
    assert result(*corpus, "--dry-run")["num_passages"] == 1
    assert result(*corpus, "--out", "made")["num_names"] == 3
    more = ("add", "--corpus", "more.csv", "--index", "made")
    assert result(*more, "--columns", "name=label", "--dry-run")["num_added"] == 1
    assert result(*more, "--set", "index.columns.name=label")["num_names"] == 4
    code, _, err = call_apart("index", *more)
    assert code == 2
    assert "more.csv:1: the header, split at ',', has ['label', 'type']; wanted at least one of name, title" in err


def test_verifying_a_damaged_index_is_exit_code_2_and_one_message(folder: Path) -> None:
    assert call_apart("index", "--corpus", "world/corpus.jsonl", "--out", "made")[0] == 0
    (largest,) = sorted((folder / "made/v000001/shard-000").iterdir(), key=lambda path: path.stat().st_size)[-1:]
    content = largest.read_bytes()
    largest.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    code, out, err = call_apart("index", "verify", "--index", "made")
    assert (code, out) == (2, "")
    assert "error: made/v000001/shard-000: " in err
    assert "build the index again" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("cut", ["*.fdm", "segments_1"])
def test_searching_a_damaged_index_says_what_to_do_without_a_java_stack(folder: Path, cut: str) -> None:
    assert call_apart("index", "--corpus", "world/corpus.jsonl", "--out", "made")[0] == 0
    (path,) = (folder / "made/v000001/shard-000").glob(cut)
    path.write_bytes(path.read_bytes()[:-9])
    code, out, err = call_apart("index", "search", "Velmora", "--index", "made")
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert "made/v000001/shard-000: Lucene cannot open or read the index (CorruptIndexException: " in line
    assert "`ctxner index verify --index made` says what is damaged; build the index again with `ctxner index" in line
    assert ".java:" not in err


def test_a_search_is_shown_to_people_too(folder: Path, world: World) -> None:
    assert call_apart("index", "--corpus", "world/corpus.jsonl", "--out", "made")[0] == 0
    code, out, _ = call_apart("index", "search", f"I saw {world.corpus[0].title}", "--index", "made")
    assert code == 0
    assert world.corpus[0].title in out
