"""The versions of an index folder: one writer at a time, and no rubble of those that died."""

import json
import subprocess
import sys
import tracemalloc

import pytest

from ctxner.files.atomic import target_of
from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.index.versions import new_version, read_manifest


@pytest.fixture
def built(tmp_path):
    """A corpus and an index folder with one version."""
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": "a", "contents": "baroka"}))
    build_index([tmp_path / "c.jsonl"], tmp_path / "index")
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_second_writer_is_refused_while_the_first_lives_and_not_afterwards(built):
    script = "import sys, pathlib; from ctxner.retrieval.index.versions import new_version as v\n"
    script += "with v(pathlib.Path(sys.argv[1])): print('in', flush=True); input()"
    command = [sys.executable, "-c", script, str(built / "index")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"in\n"
        with pytest.raises(BlockingIOError, match=f"locked by process {first.pid}, which is writing into this index"):
            build_index([built / "c.jsonl"], built / "index")
        assert any(target_of(name) == "v000002" for name in names(built / "index"))
        first.kill()
    assert build_index([built / "c.jsonl"], built / "index").version == "v000002"
    assert names(built / "index") == [".lock", "CURRENT", "v000001", "v000002"]


def test_rubble_of_every_kind_goes_with_the_next_build(built):
    index = built / "index"
    (index / "building-0123456789ab" / "shard-000").mkdir(parents=True)
    (index / "v000002").mkdir()  # renamed, but its writer died before CURRENT named it
    (index / "CURRENT.new").write_text("v0000")
    (index / ".v000002.0123abcd.aside" / "shard-000").mkdir(parents=True)
    (index / ".CURRENT.0123abcd.aside").write_text("v0000")
    assert read_manifest(index).version == "v000001"
    assert build_index([built / "c.jsonl"], index).version == "v000002"
    assert names(index) == [".lock", "CURRENT", "v000001", "v000002"]


def test_a_version_that_was_never_published_leaves_nothing(built):
    with new_version(built / "index") as version:
        (version.building / "file").write_text("x")
    assert names(built / "index") == [".lock", "CURRENT", "v000001"]
    with pytest.raises(RuntimeError), new_version(built / "fresh"):
        raise RuntimeError
    assert not (built / "fresh").exists()


def test_a_damaged_current_is_an_error_that_says_what_to_do(built):
    for content in (b"", b"v1", b"../etc", b"\xff\xfe"):
        (built / "index" / "CURRENT").write_bytes(content)
        for use in (read_manifest, lambda folder: build_index([built / "c.jsonl"], folder)):
            with pytest.raises(ValueError, match=r"CURRENT: names .* \(there are: v000001\); write one into it"):
                use(built / "index")
    (built / "index" / "CURRENT").write_text("v000009\n")
    with pytest.raises(FileNotFoundError, match=r"v000009.manifest\.json: gone"):
        read_manifest(built / "index")


def test_an_index_of_the_first_format_is_named_so_and_replaced_by_a_build(tmp_path):
    (tmp_path / "index" / "lucene-0123456789ab").mkdir(parents=True)
    (tmp_path / "index" / "manifest.json").write_text('{"format_version": 1}')
    with pytest.raises(ValueError, match="index format 1, this version reads 3; build the index again"):
        read_manifest(tmp_path / "index")
    (tmp_path / "c.jsonl").write_text('{"contents": "baroka"}')
    build_index([tmp_path / "c.jsonl"], tmp_path / "index")
    assert names(tmp_path / "index") == [".lock", "CURRENT", "v000001"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_shards", 10**9),  # a folder name for each took 23 GB
        ("num_shards", 10**400),
        ("num_shards", 0),
        ("num_shards", 2),
        ("num_shards", 1.0),
        ("num_shards", True),
        ("num_shards", None),
        ("shard_documents", [10**15]),
        ("shard_documents", [1, 0]),
        ("shard_documents", []),
        ("shard_documents", "1"),
        ("num_documents", -1),
        ("num_documents", 2),
        ("num_names", [1]),
        ("language", "x" * 1000),
        ("unit", "page"),
        ("corpus_files", [1]),
        ("version", None),
        ("format_version", []),
        ("unknown", 1),
    ],
)
def test_fields_of_a_manifest_are_bounded_before_they_are_used(built, field, value):
    path = built / "index" / "v000001" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"^{path}: "):
        read_manifest(built / "index")
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["CURRENT", "v000001/manifest.json"])
def test_what_replaces_a_file_of_an_index_is_refused_at_once_and_named(built, name):
    path = built / "index" / name
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises((ValueError, FileNotFoundError), match=f"{path}: "):
        read_manifest(built / "index")
    path.unlink()
    path.write_text(" " * (2 << 20))
    with pytest.raises(ValueError, match=f"{path}: more than 1,048,576 bytes"):
        read_manifest(built / "index")
