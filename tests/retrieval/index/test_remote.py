"""An index behind a URI: built, changed, searched and checked as one in a folder, and never half there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ctxner.files.storage import exists, names_in, remove, write_bytes
from ctxner.files.uris import path_or_uri
from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.index.changes import add_passages
from ctxner.retrieval.index.fetch import index_here, index_manifest
from ctxner.retrieval.index.remote import index_work
from ctxner.retrieval.index.verify import verify_index
from ctxner.retrieval.index.versions import IndexManifest
from ctxner.retrieval.search.bm25 import BM25Searcher
from ctxner.schema import Sentence

TEXTS = ("Velmora is a river port", "Kestrel is a newspaper", "Ostrava lies on the Ostravice")


def _corpus(path: Path, texts: Sequence[str]) -> list[Path]:
    path.write_text("".join(f'{{"id": "{n}", "contents": "{text}"}}\n' for n, text in enumerate(texts)))
    return [path]


def _build(uri: str, path: Path, texts: Sequence[str]) -> IndexManifest:
    with index_work(path_or_uri(uri)) as work:
        return work.publish(build_index(_corpus(path, texts), work.folder))


def test_it_is_built_searched_and_changed(bucket: str, tmp_path: Path) -> None:
    uri = path_or_uri(f"{bucket}/index")
    write_bytes(f"{bucket}/corpus.jsonl", _corpus(tmp_path / "corpus.jsonl", TEXTS)[0].read_bytes())
    with index_work(uri) as work:
        built = work.publish(build_index([path_or_uri(f"{bucket}/corpus.jsonl")], work.folder))
    assert (built.version, built.num_documents) == ("v000001", 3)
    assert index_manifest(uri) == built == verify_index(index_here(uri))
    with index_work(uri, changes=True) as work:
        change = add_passages(_corpus(tmp_path / "more.jsonl", [*TEXTS, "Kestrel was founded"]), work.folder)
        changed = work.publish(change.manifest)
    assert (change.num_added, change.num_replaced, changed.version) == (1, 3, "v000002")
    assert verify_index(index_here(uri)) == changed
    (result,) = BM25Searcher(index_here(uri)).search([Sentence("0", ("Kestrel",))], depth=5)
    assert {hit.passage.id for hit in result.hits} == {"1", "3"}
    assert verify_index(index_here(uri, manifest=built)) == built, "a job that began before the change goes on"


def test_the_version_before_stays_and_older_ones_go(bucket: str, tmp_path: Path) -> None:
    manifests = [_build(bucket, tmp_path / "c.jsonl", TEXTS[:number]) for number in (1, 2, 3)]
    assert [manifest.version for manifest in manifests] == ["v000001", "v000002", "v000003"]
    assert names_in(bucket) == ["CURRENT", "v000002", "v000003"]


def test_a_failed_build_leaves_the_index_as_it_was_and_a_killed_one_is_cleared(bucket: str, tmp_path: Path) -> None:
    built = _build(bucket, tmp_path / "c.jsonl", TEXTS[:1])
    with pytest.raises(RuntimeError, match="broken"), index_work(path_or_uri(bucket)):
        raise RuntimeError("broken")
    assert names_in(bucket) == ["CURRENT", "v000001"]
    write_bytes(f"{bucket}/v000002/.claim", b"killed")
    write_bytes(f"{bucket}/v000002/shard-000/x", b"half")
    assert index_manifest(path_or_uri(bucket)) == built
    assert _build(bucket, tmp_path / "c.jsonl", TEXTS).version == "v000003"
    assert names_in(bucket) == ["CURRENT", "v000001", "v000003"]


def test_two_writers_write_two_versions_and_the_slower_older_one_is_refused(bucket: str, tmp_path: Path) -> None:
    uri = path_or_uri(bucket)
    with index_work(uri) as slow:
        manifest = build_index(_corpus(tmp_path / "c.jsonl", TEXTS[:1]), slow.folder)
        newer = _build(bucket, tmp_path / "d.jsonl", TEXTS)
        with pytest.raises(BlockingIOError, match="another process has published"):
            slow.publish(manifest)
    assert newer.version == "v000002"
    assert index_manifest(uri) == newer
    assert not exists(f"{bucket}/v000001")


def test_a_folder_with_other_files_is_refused(bucket: str) -> None:
    write_bytes(f"{bucket}/notes.txt", b"mine")
    with (
        pytest.raises(ValueError, match=r"holds other files \(notes.txt\)"),
        index_work(path_or_uri(bucket)),
    ):
        pass
    remove(bucket)
    with pytest.raises(FileNotFoundError, match=r"no index there \(CURRENT is missing\)"):
        index_manifest(path_or_uri(bucket))
