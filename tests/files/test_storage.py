"""Stores behind URIs: what is written is read, folders are never half there, and errors say what to do."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctxner.files import storage
from ctxner.files.storage import create, exists, names_in, put_file, put_folder, read_bytes, remove, write_bytes


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> str:
    """URI of an empty folder in each kind of store."""
    return f"memory://{uuid.uuid4().hex}" if request.param == "memory" else request.getfixturevalue("bucket")


def test_what_is_written_is_read_listed_and_deleted(store: str, tmp_path: Path) -> None:
    assert not exists(store)
    assert names_in(store) == []
    (tmp_path / "file").write_bytes(b"first")
    put_file(tmp_path / "file", f"{store}/a")
    write_bytes(f"{store}/deep/b", b"")
    assert (read_bytes(f"{store}/a", 5), read_bytes(f"{store}/deep/b", 9)) == (b"first", b"")
    assert names_in(store) == ["a", "deep"]
    assert exists(f"{store}/deep")
    with pytest.raises(ValueError, match=r"/a: more than 4 bytes"):
        read_bytes(f"{store}/a", 4)
    remove(store)
    remove(store)
    assert not exists(f"{store}/a")


def test_of_several_writers_at_once_one_creates_an_object(store: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda number: create(f"{store}/lock", b"%d" % number), range(4)))
    assert made.count(True) == 1
    assert read_bytes(f"{store}/lock", 9) == b"%d" % made.index(True)


def test_a_folder_replaces_the_one_before_and_its_marker_comes_last(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, names in ((first, ("old", "same", "MARK")), (second, ("new", "deep/er", "same", "MARK", ".hidden"))):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{folder.name} {name}")
    put_folder(first, store, last="MARK")
    assert names_in(store) == ["MARK", "old", "same"]
    seen = list[bool]()
    files = storage.filesystem(store)[0]
    put = files.put
    monkeypatch.setattr(files, "put", lambda *args, **more: [seen.append(exists(f"{store}/MARK")), put(*args, **more)])
    put_folder(second, store, last="MARK")
    assert seen == [False], "others were written while the folder looked whole"
    assert names_in(store) == ["MARK", "deep", "new", "same"]
    assert read_bytes(f"{store}/same", 99) == b"second same"
    assert read_bytes(f"{store}/deep/er", 99) == b"second deep/er"


def test_an_absent_object_and_an_absent_bucket_are_named(bucket: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{bucket}/x: not there, or no such bucket"):
        read_bytes(f"{bucket}/x", 9)
    with pytest.raises(FileNotFoundError, match=r"s3://absent-bucket/x: not there, or no such bucket"):
        write_bytes("s3://absent-bucket/x", b"1")
    assert not exists("s3://absent-bucket"), "a bucket was made"


def test_refused_keys_are_told_from_a_store_that_does_not_answer(s3, bucket: str, monkeypatch) -> None:
    with s3.asking_for_keys(), pytest.raises(PermissionError, match=rf"{bucket}/x: access refused .* check the keys"):
        write_bytes(f"{bucket}/x", b"1")
    monkeypatch.setitem(storage._OPTIONS, "s3", {"config_kwargs": {"retries": {"total_max_attempts": 1}}})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ConnectionError, match=rf"{bucket}/x: the store does not answer .* AWS_ENDPOINT_URL"):
        write_bytes(f"{bucket}/x", b"1")


def test_no_keys_at_all_are_access_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PermissionError, match=r"access refused \(NoCredentialsError"):
        read_bytes(f"{bucket}/x", 9)


def test_an_unknown_scheme_and_an_absent_package_are_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"gopher://x: .* wanted a path, or s3://, gs://, abfs://"):
        exists("gopher://x")
    with pytest.raises(ValueError, match=r"gs://x/y: .* pip install 'ctxner\[gcs\]'"):
        exists("gs://x/y")


def test_a_store_that_is_silent_for_seconds_is_waited_for(s3, bucket: str, monkeypatch) -> None:
    import threading

    with ThreadPoolExecutor(1) as pool:
        resumed = threading.Event()
        with s3.silent():
            answer = pool.submit(write_bytes, f"{bucket}/x", b"1")
            assert not resumed.wait(2)
            assert not answer.done()
        answer.result(timeout=60)
    assert read_bytes(f"{bucket}/x", 1) == b"1"


def test_arrow_reads_and_writes_with_the_same_settings(bucket: str) -> None:
    import pickle

    files, path = storage.arrow_filesystem(f"{bucket}/deep/x")
    with pickle.loads(pickle.dumps(files)).open_output_stream(path) as stream:
        stream.write(b"1")
    assert read_bytes(f"{bucket}/deep/x", 9) == b"1"


def test_a_path_of_this_machine_may_hold_what_chains_uris(tmp_path: Path) -> None:
    """Before: `a::b` was read as a file system in another."""
    folder = tmp_path / "a::b"
    folder.mkdir()
    write_bytes(folder / "file", b"kept")
    assert (names_in(folder), read_bytes(folder / "file", 9)) == (["file"], b"kept")
