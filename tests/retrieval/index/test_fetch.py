"""A node's copy of an index: made once, whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.index.fetch import fetch_index, index_manifest, source_manifest
from ctxner.retrieval.index.verify import verify_index
from ctxner.retrieval.index.versions import read_manifest
from ctxner.retrieval.search.bm25 import BM25Searcher
from ctxner.schema import Sentence

TEXTS = ("Velmora is a river port", "Kestrel is a newspaper", "Ostrava lies on the Ostravice")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An index in "shared storage"."""
    _build(tmp_path / "shared", TEXTS)
    return tmp_path / "shared"


def _build(folder: Path, texts: tuple[str, ...]) -> None:
    corpus = folder.with_suffix(".jsonl")
    corpus.write_text("".join(f'{{"id": "{n}", "contents": "{text}"}}\n' for n, text in enumerate(texts)))
    build_index([corpus], folder, num_shards=2)


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_copy_is_a_sound_index_that_finds_the_same(source: Path, tmp_path: Path, prefix: str) -> None:
    manifest = source_manifest(f"{prefix}{source}")
    assert manifest == read_manifest(source) == index_manifest(tmp_path, f"{prefix}{source}") == index_manifest(source)
    copy = fetch_index(f"{prefix}{source}", tmp_path / "node", manifest)
    assert verify_index(copy) == manifest
    sentence = Sentence("0", ("Kestrel", "reports", "from", "Velmora"))
    found = [BM25Searcher(folder).search([sentence], depth=3) for folder in (source, copy)]
    assert found[0] == found[1]
    assert {hit.passage.id for hit in found[1][0].hits} == {"0", "1"}


def test_a_second_fetch_copies_nothing(source: Path, tmp_path: Path) -> None:
    manifest = source_manifest(str(source))
    copy = fetch_index(str(source), tmp_path / "node", manifest)
    shutil.rmtree(source)
    assert fetch_index(str(source), tmp_path / "node", manifest) == copy


def test_a_job_keeps_its_version_when_a_newer_one_is_published(source: Path, tmp_path: Path) -> None:
    old = source_manifest(str(source))
    _build(source, TEXTS[:1])
    new = source_manifest(str(source))
    assert (old.version, new.version) == ("v000001", "v000002")
    copies = [fetch_index(str(source), tmp_path / "node", manifest) for manifest in (old, new)]
    assert [read_manifest(copy).num_documents for copy in copies] == [3, 1]
    _build(source, TEXTS[:2])
    with pytest.raises(FileNotFoundError, match="version v000001 is gone meanwhile; start the job again"):
        fetch_index(str(source), tmp_path / "other", old)
    assert not list((tmp_path / "other").glob("[!.]*"))


def test_only_the_copies_used_last_are_kept(source: Path, tmp_path: Path) -> None:
    copies = []
    for num_texts in (3, 2, 1):
        _build(source, TEXTS[:num_texts])
        copies.append(fetch_index(str(source), tmp_path / "node", source_manifest(str(source))))
        os.utime(copies[-1], (len(copies), len(copies)))
    assert [copy.is_dir() for copy in copies] == [False, True, True]


def test_processes_that_want_it_at_once_share_one_copy(source: Path, tmp_path: Path) -> None:
    manifest, context = source_manifest(str(source)), multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        copies = pool.starmap(fetch_index, [(str(source), tmp_path / "node", manifest)] * 3)
    assert len(set(copies)) == 1
    assert verify_index(copies[0]) == manifest


def test_what_a_killed_copy_left_is_cleared(source: Path, tmp_path: Path) -> None:
    rubble = tmp_path / "node" / ".0123456789abcdef.0123abcd.aside"
    rubble.mkdir(parents=True)
    fetch_index(str(source), tmp_path / "node", source_manifest(str(source)))
    assert not rubble.exists()


def test_too_small_a_disk_is_refused_before_copying(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"0 MiB, but .* has 0 MiB free; .* set index.folder to a folder"):
        fetch_index(str(source), tmp_path / "node", source_manifest(str(source)))
    assert not list((tmp_path / "node").glob("[!.]*"))


def test_no_index_there_and_unknown_schemes_are_clear_errors(source: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no index there \(.*CURRENT is missing\)"):
        source_manifest(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"gopher://x.*: .*wanted a path, or s3://"):
        source_manifest("gopher://x")
    (source / "CURRENT").write_text("../../etc\n")
    with pytest.raises(ValueError, match=r"CURRENT: names '../../etc', wanted a version \(there are: v000001\)"):
        source_manifest(str(source))
