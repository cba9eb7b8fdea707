"""Checking an index finds every kind of damage; a build killed anywhere leaves none."""

import json
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.index.changes import add_passages, delete_passages
from ctxner.retrieval.index.verify import index_stats, verify_index
from ctxner.retrieval.index.versions import read_manifest
from ctxner.retrieval.lucene.shard_writer import ShardWriter, analyzer_for
from ctxner.schema import Passage

TEXTS = {"a": "Baroka is a port.", "b": "the port of Welandia", "c": "ports, ports & castles", "d": "Zorblat"}


def corpus(path, ids):
    lines = [{"id": own, "contents": TEXTS[own], "source": "x" if own == "d" else "y"} for own in ids]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def index(tmp_path):
    """An index of two shards."""
    build_index([corpus(tmp_path / "c.jsonl", "abcd")], tmp_path / "index", num_shards=2)
    return tmp_path / "index"


def edit_manifest(index, **changes):
    path = index / read_manifest(index).version / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_index_is_sound_when_built_and_after_every_change(tmp_path, index):
    seen = []
    assert verify_index(index, on_progress=lambda *done: seen.append(done)) == read_manifest(index)
    assert seen == [(4, 1.0)]
    delete_passages(["a"], index)
    assert verify_index(index).num_documents == 3
    add_passages([corpus(tmp_path / "more.jsonl", "ad")], index)
    assert verify_index(index).num_documents == 4


def test_a_changed_byte_in_any_of_lucenes_files_is_found(index):
    shard = read_manifest(index).shard_folders(index)[0]
    files = sorted(path for path in shard.iterdir() if path.stat().st_size)
    assert len(files) >= 3
    for path in files:
        content = path.read_bytes()
        place = len(content) // 2
        for damaged in (content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], content[:-1]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"shard-000: (damaged|Lucene's check failed)"):
                verify_index(index)
        path.write_bytes(content)
    verify_index(index)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"num_documents": 5}, r"manifest\.json: damaged manifest \(shard_documents has 2 shards of 4 passages"),
        ({"num_documents": 5, "shard_documents": [2, 3]}, "4 passages in Lucene's files .*, 5 in the manifest"),
        ({"corpus_sha256": f"{1:064x}"}, "not those of the manifest's hash"),
        ({"num_shards": 1, "shard_documents": [4]}, "2 passages in Lucene's files"),
        ({"version": "v000007"}, "is of version 'v000007'"),
    ],
)
def test_a_manifest_that_says_something_else_is_found(index, change, wanted):
    edit_manifest(index, **change)
    with pytest.raises(ValueError, match=wanted):
        verify_index(index)


def test_missing_shards_are_found(index):
    edit_manifest(index, num_shards=3, shard_documents=[2, 2, 0])
    with pytest.raises(FileNotFoundError, match="shard-002: the index's files are gone"):
        verify_index(index)


def test_an_id_that_two_shards_have_is_found(index):
    with ShardWriter(read_manifest(index).shard_folders(index)[1], analyzer_for("en")) as writer:
        writer.add(Passage("a", "y", "again"))
    edit_manifest(index, num_documents=5, shard_documents=[2, 3])
    with pytest.raises(ValueError, match="ids are not unique"):
        verify_index(index)


def test_statistics_are_those_of_the_passages(index):
    found = index_stats(index, num_terms=2)
    assert (found["num_documents"], found["num_shards"], found["version"]) == (4, 2, "v000001")
    assert found["sources"] == {"y": 3, "x": 1}
    assert found["frequent_terms"] == {"port": 3, "baroka": 1}
    assert found["distinct_terms"] == 5  # baroka port welandia castl zorblat
    assert found["mean_terms"] == (2 + 2 + 3 + 1) / 4
    assert found["mean_characters"] == sum(map(len, TEXTS.values())) / 4
    assert 0 < found["bytes"] == sum(path.stat().st_size for path in (index / "v000001").rglob("*") if path.is_file())


KILLED = """
import os, signal, sys
from ctxner.retrieval.index import build as index, versions
from ctxner.retrieval.lucene.jvm import start_jvm

start_jvm()
corpus, folder, kill_in_build, kill_in_publish = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
num_calls = {"build": 0, "publish": 0}
phase = "build"

def count(frame, event, argument):
    global phase
    if frame.f_code is versions.NewVersion.publish.__code__:
        phase = "publish"
    num_calls[phase] += 1
    if num_calls["build"] == kill_in_build or num_calls["publish"] == kill_in_publish:
        os.kill(os.getpid(), signal.SIGKILL)

sys.setprofile(count)  # called at every call and return of a function
index.build_index([corpus], folder)
sys.setprofile(None)
print(num_calls["build"], num_calls["publish"])
"""


def test_a_build_killed_at_any_point_leaves_a_sound_index_and_no_lock(tmp_path):
    words = [{"id": f"p{n}", "contents": f"word{n} baroka"} for n in range(60)]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, words)))
    old = build_index([corpus(tmp_path / "old.jsonl", "abcd")], tmp_path / "index")

    def build(folder, kill_in_build=-1, kill_in_publish=-1):
        points = [str(kill_in_build), str(kill_in_publish)]
        command = [sys.executable, "-c", KILLED, str(tmp_path / "new.jsonl"), str(tmp_path / folder), *points]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    num_in_build, num_in_publish = map(int, build("whole").stdout.split())
    new_hash = read_manifest(tmp_path / "whole").corpus_sha256
    points = random.Random(0)
    for n in range(10):
        point = {"kill_in_build": points.randint(1, num_in_build)}
        if n % 2:
            point = {"kill_in_publish": points.randint(1, num_in_publish)}
        assert build("index", **point).returncode == -signal.SIGKILL
        found = verify_index(tmp_path / "index")
        assert found.corpus_sha256 == old.corpus_sha256 or (n % 2 and found.corpus_sha256 == new_hash)
        if found.corpus_sha256 == new_hash:  # killed after CURRENT was replaced, before the old versions went
            build_index([tmp_path / "old.jsonl"], tmp_path / "index")
    last = build_index([tmp_path / "old.jsonl"], tmp_path / "index")
    assert sorted(path.name for path in (tmp_path / "index").iterdir())[:2] == [".lock", "CURRENT"]
    assert len(list((tmp_path / "index").iterdir())) == 4, "two versions are kept"
    assert verify_index(tmp_path / "index") == last


@pytest.mark.parametrize("array", ["hashes", "places"])
def test_names_that_are_not_those_of_the_passages_are_found(tmp_path, array):
    (tmp_path / "c.jsonl").write_text('{"id": "a", "title": "Ann"}\n{"id": "b", "title": "Bob"}\n')
    manifest = build_index([tmp_path / "c.jsonl"], tmp_path / "index")
    verify_index(tmp_path / "index")
    path = tmp_path / "index" / manifest.version / "names" / f"{array}.npy"
    np.save(path, np.load(path) ^ np.uint64(1))
    with pytest.raises(ValueError, match="the names are not those of the stored passages"):
        verify_index(tmp_path / "index")
