"""Adding and deleting: the index is afterwards as if it had been built so, and the version before stays whole."""

import json
import random

import pytest

from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.index.changes import add_passages, delete_passages
from ctxner.retrieval.index.versions import read_manifest
from ctxner.retrieval.search.bm25 import BM25Searcher
from ctxner.schema import Sentence

WORDS = [f"w{n}" for n in range(40)]


def records(numbers, seed):
    """Passages of few words, so that many have equal scores."""
    random_of = {n: random.Random(f"{seed}/{n}") for n in numbers}
    return [
        {"id": f"p{n}", "contents": " ".join(own.choices(WORDS, k=own.randint(2, 5))), "source": "s"}
        for n, own in random_of.items()
    ]


def write(path, passages):
    path.write_text("".join(json.dumps(passage) + "\n" for passage in passages))
    return path


def hits(folder, depth):
    """Ids and exact scores of the best passages of every query."""
    queries = [Sentence(str(n), tuple(WORDS[n : n + 1 + n % 3])) for n in range(len(WORDS))]
    searcher = BM25Searcher(folder)
    found = [
        [(hit.passage.id, hit.passage.text, hit.bm25_score) for hit in result.hits]
        for result in searcher.search(queries, depth=depth)
    ]
    searcher.close()
    assert any(found)
    return found


@pytest.mark.parametrize("num_shards", [1, 3])
def test_scores_and_hash_after_changes_are_those_of_a_fresh_build(tmp_path, num_shards):
    old, new = records(range(300), "old"), records(range(250, 400), "new")
    build_index([write(tmp_path / "old.jsonl", old)], tmp_path / "index", num_shards=num_shards)
    added = add_passages([write(tmp_path / "new.jsonl", new)], tmp_path / "index")
    assert (added.num_added, added.num_replaced) == (100, 50)
    gone = [f"p{n}" for n in range(0, 400, 7)]
    deleted = delete_passages([*gone, "unheard of", *gone], tmp_path / "index")
    assert (deleted.num_deleted, deleted.unknown_ids) == (len(gone), ("unheard of",))
    left = {record["id"]: record for record in [*old, *new] if record["id"] not in gone}
    fresh = build_index([write(tmp_path / "left.jsonl", left.values())], tmp_path / "fresh")
    assert deleted.manifest == read_manifest(tmp_path / "index")
    assert deleted.manifest.parent == added.manifest.version == "v000002"
    assert deleted.manifest.num_documents == len(left)
    assert deleted.manifest.corpus_sha256 == fresh.corpus_sha256
    for depth in (1, 4, 1000):
        assert hits(tmp_path / "index", depth) == hits(tmp_path / "fresh", depth)


def test_an_open_searcher_goes_on_with_its_version(tmp_path):
    build_index([write(tmp_path / "old.jsonl", records(range(50), "old"))], tmp_path / "index")
    searcher = BM25Searcher(tmp_path / "index")
    query = [Sentence("s", ("w1", "w2"))]
    before = searcher.search(query, depth=50)
    add_passages([write(tmp_path / "new.jsonl", records(range(80), "new"))], tmp_path / "index")
    assert searcher.search(query, depth=50) == before != BM25Searcher(tmp_path / "index").search(query, depth=50)


def test_the_version_before_is_not_written_to_and_the_one_before_that_goes(tmp_path):
    build_index([write(tmp_path / "old.jsonl", records(range(50), "old"))], tmp_path / "index")
    old = tmp_path / "index" / read_manifest(tmp_path / "index").version
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    add_passages([write(tmp_path / "new.jsonl", records(range(40, 80), "new"))], tmp_path / "index")
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    delete_passages(["p1"], tmp_path / "index")
    assert sorted(path.name for path in (tmp_path / "index").glob("v*")) == ["v000002", "v000003"]


def test_a_fault_in_the_added_corpus_changes_nothing(tmp_path):
    build_index([write(tmp_path / "old.jsonl", records(range(20), "old"))], tmp_path / "index")
    before = read_manifest(tmp_path / "index"), hits(tmp_path / "index", 5)
    twice = [*records(range(10, 30), "new"), {"id": "p11", "contents": "again"}]
    with pytest.raises(ValueError, match=r"twice\.jsonl:21: id 'p11' was used before at .*twice\.jsonl:2"):
        add_passages([write(tmp_path / "twice.jsonl", twice)], tmp_path / "index")
    with pytest.raises(ValueError, match=r"bad\.jsonl:2"):
        add_passages([write(tmp_path / "bad.jsonl", [{"contents": "x"}, {}])], tmp_path / "index")
    assert (read_manifest(tmp_path / "index"), hits(tmp_path / "index", 5)) == before


def test_deleting_nothing_or_everything_is_refused(tmp_path):
    build_index([write(tmp_path / "old.jsonl", records(range(3), "old"))], tmp_path / "index")
    with pytest.raises(ValueError, match=r"none of the ids is in the index \(p7, p8\)"):
        delete_passages(["p7", "p8"], tmp_path / "index")
    with pytest.raises(ValueError, match="no passage would be left"):
        delete_passages(["p0", "p1", "p2"], tmp_path / "index")
    assert read_manifest(tmp_path / "index").version == "v000001"


def test_changing_what_is_no_index_is_refused_and_makes_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such index folder"):
        add_passages([write(tmp_path / "c.jsonl", records(range(3), "x"))], tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="no such index folder"):
        delete_passages(["p1"], tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
