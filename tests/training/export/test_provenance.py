"""Where a model comes from is told by the bytes that were read, not by names that may mean something else tomorrow."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ctxner import __version__
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.training.export.provenance import (
    PROVENANCE_FILE,
    data_provenance,
    file_hashes,
    versions,
    write_provenance,
)

PASSAGE = Passage("p", "x", "A village.")
EXAMPLES = (
    Example(Sentence("a", ("In", "Velmora"), ("O", "S-place")), (ScoredPassage(PASSAGE, 1.0, 1),)),
    Example(Sentence("b", ("Ada", "Ives", "sang"), ("B-person", "E-person", "O")), ()),
    Example(Sentence("c", ("Rain",), ("O",)), (ScoredPassage(PASSAGE, 1.0, 1, dropped="near_duplicate"),)),
)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def contexts(tmp_path: Path) -> Path:
    folder = tmp_path / "contexts"
    folder.mkdir()
    (folder / "train.parquet").write_bytes(b"rows")
    index = {"version": "v000003", "corpus_sha256": "ab" * 32, "corpus_files": ["c.jsonl"], "num_documents": 7}
    index |= {"language": "en", "unit": "paragraph", "lucene_version": "9.9.1", "created_at": "then", "seconds": 1.0}
    success = {"train": {"index": index, "retrieval": {"query": "bag"}, "seconds": 3.0, "sentences": 3}}
    (folder / "_SUCCESS").write_text(json.dumps(success))
    return folder


def test_splits_are_counted_and_their_files_hashed(tmp_path: Path, contexts: Path) -> None:
    (tmp_path / "train.conll").write_bytes(b"In O\n")
    [(split, found)] = data_provenance({"train": tmp_path / "train.conll"}, {"train": EXAMPLES}, contexts).items()
    assert split == "train"
    assert found == {
        "files": {"train.conll": sha256(b"In O\n")},
        "sentences": 3,
        "words": 6,
        "mentions": {"person": 1, "place": 1},
        "sentences_with_passages": 1,
        "contexts": {"train.parquet": sha256(b"rows")},
        "retrieval": {
            "index": {
                "version": "v000003",
                "corpus_sha256": "ab" * 32,
                "corpus_files": ["c.jsonl"],
                "num_documents": 7,
                "language": "en",
                "unit": "paragraph",
                "lucene_version": "9.9.1",
            },
            "settings": {"query": "bag"},
        },
    }


def test_contexts_that_do_not_say_where_they_come_from_are_told_as_such(tmp_path: Path, contexts: Path) -> None:
    (tmp_path / "train.conll").write_bytes(b"")
    (contexts / "_SUCCESS").unlink()
    files = {"train": tmp_path / "train.conll"}
    assert data_provenance(files, {"train": EXAMPLES}, contexts)["train"]["retrieval"] is None
    assert "contexts" not in data_provenance(files, {"train": EXAMPLES}, None)["train"]


def test_files_of_a_folder_and_a_pattern_are_named_from_what_holds_them_all(tmp_path: Path) -> None:
    for name in ("a/x.jsonl", "b/x.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(name.encode())
    expected = {name: sha256(name.encode()) for name in ("a/x.jsonl", "b/x.jsonl")}
    assert file_hashes(tmp_path) == file_hashes(tmp_path / "*" / "x.jsonl") == expected


def test_another_byte_is_another_hash(tmp_path: Path) -> None:
    path = tmp_path / "x.conll"
    path.write_bytes(b"a O\n")
    before = file_hashes(path)
    path.write_bytes(b"a O\r\n")
    assert file_hashes(path) != before


def test_it_is_written_as_json_and_versions_are_those_that_run(tmp_path: Path) -> None:
    write_provenance({"versions": versions(), "name": "Größe"}, tmp_path)
    found = json.loads((tmp_path / PROVENANCE_FILE).read_text(encoding="utf-8"))
    assert found["versions"]["ctxner"] == __version__
    assert {"python", "torch", "transformers", "deepspeed", "ray"} < set(found["versions"])
    assert found["name"] == "Größe"
