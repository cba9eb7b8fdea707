"""Building an index: whole or not at all, with a manifest that says what it is."""

import dataclasses
import json
import subprocess
import sys

import pytest

from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.index.versions import FORMAT_VERSION, read_manifest
from ctxner.retrieval.search.bm25 import BM25Searcher
from ctxner.schema import Sentence


def corpus(path, records):
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def hit_ids(folder, *words):
    return [hit.passage.id for hit in BM25Searcher(folder).search([Sentence("s", words)], depth=10)[0].hits]


def test_the_manifest_describes_the_index(tmp_path):
    path = corpus(tmp_path / "c.jsonl", [{"id": str(n), "contents": f"word{n}"} for n in range(3)])
    built = build_index([path], tmp_path / "index")
    assert built == read_manifest(tmp_path / "index")
    assert (built.num_documents, built.language, built.corpus_files) == (3, "en", ("c.jsonl",))
    assert built.lucene_version.startswith("9.")


def test_the_corpus_hash_is_of_the_passages_and_not_of_the_file(tmp_path):
    records = [{"id": "a", "contents": "one"}, {"id": "b", "contents": "two"}]
    plain = corpus(tmp_path / "c.jsonl", [{**record, "source": "s"} for record in records])
    renamed = corpus(tmp_path / "d.jsonl", [{"source": "s", "extra": 1, **record} for record in records])
    changed = corpus(tmp_path / "e.jsonl", [{**record, "source": "t"} for record in records])
    hashes = [build_index([path], tmp_path / "index").corpus_sha256 for path in (plain, renamed, changed)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_titles_are_searched_and_come_back_apart(tmp_path):
    path = corpus(
        tmp_path / "c.jsonl", [{"id": "a", "contents": "A city.\nWith a port.", "title": "Baroka", "source": "x"}]
    )
    build_index([path], tmp_path / "index")
    (result,) = BM25Searcher(tmp_path / "index").search([Sentence("s", ("in", "Baroka"))], depth=1)
    assert result.hits[0].passage.title == "Baroka"
    assert result.hits[0].passage.text == "A city.\nWith a port."
    assert result.hits[0].passage.source == "x"


def test_building_again_replaces_the_index_and_leaves_no_rubble(tmp_path):
    build_index([corpus(tmp_path / "a.jsonl", [{"id": "old", "contents": "baroka"}])], tmp_path / "index")
    build_index([corpus(tmp_path / "b.jsonl", [{"id": "new", "contents": "baroka"}])], tmp_path / "index")
    build_index([tmp_path / "b.jsonl"], tmp_path / "index")
    assert hit_ids(tmp_path / "index", "baroka") == ["new"]
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [".lock", "CURRENT", "v000002", "v000003"]


def test_a_failed_build_leaves_the_former_index_or_nothing(tmp_path):
    bad = corpus(tmp_path / "bad.jsonl", [{"contents": "fine"}, {"contents": ""}])
    with pytest.raises(ValueError, match=r"bad\.jsonl:2"):
        build_index([bad], tmp_path / "index")
    assert not (tmp_path / "index").exists()
    build_index([corpus(tmp_path / "a.jsonl", [{"id": "old", "contents": "baroka"}])], tmp_path / "index")
    with pytest.raises(ValueError, match=r"bad\.jsonl:2"):
        build_index([bad], tmp_path / "index")
    assert hit_ids(tmp_path / "index", "baroka") == ["old"]


def test_a_killed_build_leaves_the_former_index_or_a_folder_that_says_so(tmp_path):
    big = corpus(tmp_path / "big.jsonl", [{"id": str(n), "contents": "baroka"} for n in range(1500)])
    script = "import os, sys; from ctxner.retrieval.index.build import build_index as b; "
    script += "b([sys.argv[1]], sys.argv[2], on_progress=lambda n, share: os._exit(9))"
    command = [sys.executable, "-c", script, str(big), str(tmp_path / "index")]
    assert subprocess.run(command, check=False).returncode == 9
    with pytest.raises(FileNotFoundError, match="did not finish"):
        read_manifest(tmp_path / "index")
    build_index([corpus(tmp_path / "a.jsonl", [{"id": "old", "contents": "baroka"}])], tmp_path / "index")
    assert subprocess.run(command, check=False).returncode == 9
    assert hit_ids(tmp_path / "index", "baroka") == ["old"]


def test_an_unfit_folder_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such index folder"):
        BM25Searcher(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="not an index"):
        BM25Searcher(tmp_path / "empty")
    path = corpus(tmp_path / "a.jsonl", [{"contents": "x"}])
    manifest = dataclasses.asdict(build_index([path], tmp_path / "index"))
    for change, wanted in (
        ({"format_version": FORMAT_VERSION + 1}, f"index format {FORMAT_VERSION + 1}"),
        ({"unheard_of": 1}, "damaged manifest"),
    ):
        (tmp_path / "index" / "v000001" / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(ValueError, match=wanted):
            BM25Searcher(tmp_path / "index")
    (tmp_path / "index" / "v000001" / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged manifest"):
        BM25Searcher(tmp_path / "index")


def test_damaged_lucene_files_are_an_error(tmp_path):
    manifest = build_index([corpus(tmp_path / "a.jsonl", [{"contents": "x"}])], tmp_path / "index")
    for file in manifest.shard_folders(tmp_path / "index")[0].glob("segments_*"):
        file.write_bytes(b"broken")
    with pytest.raises(ValueError, match="Lucene cannot open"):
        BM25Searcher(tmp_path / "index")


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    path = corpus(tmp_path / "a.jsonl", [{"contents": "x"}])
    with pytest.raises(ValueError, match=r"other files \(a\.jsonl\)"):
        build_index([path], tmp_path)


def test_an_unknown_language_is_refused_and_a_known_one_stems(tmp_path):
    path = corpus(
        tmp_path / "a.jsonl", [{"id": "a", "contents": "Die Häuser von Baroka"}, {"id": "b", "contents": "x"}]
    )
    with pytest.raises(ValueError, match="no analyzer for language 'xx'"):
        build_index([path], tmp_path / "index", language="xx")
    build_index([path], tmp_path / "index", language="de")
    assert hit_ids(tmp_path / "index", "Haus") == ["a"]


def test_progress_ends_at_the_number_of_documents(tmp_path):
    seen = []
    path = corpus(tmp_path / "a.jsonl", [{"contents": f"w{n}"} for n in range(2001)])
    build_index([path], tmp_path / "index", on_progress=lambda *progress: seen.append(progress))
    assert [number for number, _ in seen] == [1000, 2000, 2001]
    assert [share for _, share in seen] == sorted(share for _, share in seen)
    assert seen[-1][1] == 1.0


def searched(folder, depth):
    searcher = BM25Searcher(folder)
    results = searcher.search([Sentence(str(n), (f"w{n}", f"w{n + 1}", "the")) for n in range(20)], depth=depth)
    return [[(hit.passage, hit.bm25_score, hit.bm25_rank) for hit in result.hits] for result in results]


def test_shards_are_searched_as_one_index_in_scores_order_and_cut(tmp_path):
    words = [[f"w{(n * n + n // k) % 21}" for k in range(1, 4 + n % 2)] for n in range(500)]  # many equal scores
    path = corpus(
        tmp_path / "c.jsonl", [{"id": f"p{n * 7919 % 500}", "contents": " ".join(w)} for n, w in enumerate(words)]
    )
    one = build_index([path], tmp_path / "one")
    for num_shards in (2, 7):
        several = build_index([path], tmp_path / "several", num_shards=num_shards)
        assert several.corpus_sha256 == one.corpus_sha256
        assert len(several.shard_folders(tmp_path)) == several.num_shards == num_shards
        for depth in (1, 3, 10, 500):
            assert searched(tmp_path / "several", depth) == searched(tmp_path / "one", depth)
    assert any(len({score for _, score, _ in hits[8:12]}) < 4 for hits in searched(tmp_path / "one", 500))


def test_shards_may_be_empty(tmp_path):
    path = corpus(tmp_path / "c.jsonl", [{"id": "a", "contents": "baroka"}, {"id": "b", "contents": "port"}])
    assert build_index([path], tmp_path / "index", num_shards=5).num_documents == 2
    assert hit_ids(tmp_path / "index", "baroka") == ["a"]


@pytest.mark.parametrize("num_shards", [1, 2, 3])
def test_an_id_in_two_files_or_shards_names_both_places(tmp_path, num_shards):
    first = corpus(tmp_path / "a.jsonl", [{"id": f"a{n}", "contents": "x"} for n in range(5)])
    second = corpus(tmp_path / "b.jsonl", [{"id": "b", "contents": "x"}, {"id": "a2", "contents": "y"}])
    with pytest.raises(ValueError, match=r"b\.jsonl:2: id 'a2' was used before at .*a\.jsonl:3"):
        build_index([first, second], tmp_path / "index", num_shards=num_shards)
    assert not (tmp_path / "index").exists()


def test_progress_of_shards_is_of_all_of_them(tmp_path):
    seen = []
    path = corpus(tmp_path / "a.jsonl", [{"contents": f"w{n}"} for n in range(2500)])
    build_index([path], tmp_path / "index", num_shards=2, on_progress=lambda *progress: seen.append(progress))
    assert seen == sorted(seen)
    assert seen[-1] == (2500, 1.0)
