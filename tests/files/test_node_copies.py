"""A node's copies of what lies behind URIs: made once, noticed when the store changes, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctxner.files import node_copies
from ctxner.files.node_copies import fetched, local
from ctxner.files.storage import remove, write_bytes


def test_local_paths_are_used_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTXNER_CACHE", str(tmp_path / "cache"))
    given = [Path("runs/a"), tmp_path / "x"]
    assert fetched(given) == given
    assert local("org/model") == "org/model"
    assert local("./a") == "./a"
    assert not (tmp_path / "cache").exists()


def test_a_file_a_folder_and_a_pattern_are_copied_under_their_names(bucket: str) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.txt", ".hidden/x", "deep/d.jsonl"):
        write_bytes(f"{bucket}/{name}", name.encode())
    assert local(Path(f"{bucket}/a.jsonl").name) == "a.jsonl"
    assert Path(local(f"{bucket}/a.jsonl")).read_text() == "a.jsonl"
    folder = Path(local(bucket))
    assert folder.name == bucket.rsplit("/", 1)[1]
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert found == ["a.jsonl", "b.jsonl", "c.txt", "deep/d.jsonl"]
    pattern = Path(local(f"{bucket}/*.jsonl"))
    assert sorted(path.name for path in pattern.parent.glob(pattern.name)) == ["a.jsonl", "b.jsonl"]
    assert not (pattern.parent / "c.txt").exists()


def test_copies_of_several_places_lie_to_each_other_as_in_the_store(bucket: str) -> None:
    for name in ("x/a", "y/a"):
        write_bytes(f"{bucket}/{name}", name.encode())
    first, here, second = fetched([f"{bucket}/x/a", "/local", f"{bucket}/y/a"])
    assert here == Path("/local")
    assert os.path.relpath(second, first) == "../../y/a"
    assert (first.read_text(), second.read_text()) == ("x/a", "y/a")


def test_a_second_copy_is_made_only_when_the_store_has_changed(bucket: str, tmp_path: Path) -> None:
    write_bytes(f"{bucket}/a", b"1")
    first = Path(local(f"{bucket}/a"))
    first.write_bytes(b"touched")
    assert Path(local(f"{bucket}/a")).read_bytes() == b"touched"
    copies = {first}
    for content in (b"2", b"3"):  # the same size
        write_bytes(f"{bucket}/a", content)
        copies.add(Path(local(f"{bucket}/a")))
        assert Path(local(f"{bucket}/a")).read_bytes() == content
    assert len(copies) == 3
    assert sum(path.exists() for path in copies) == 2, "only the two used last are kept"


def test_those_that_want_it_at_once_share_one_copy(bucket: str) -> None:
    write_bytes(f"{bucket}/a", b"1")
    with ThreadPoolExecutor(3) as pool:  # the lock holds between threads as between processes
        copies = list(pool.map(local, [f"{bucket}/a"] * 3))
    assert len(set(copies)) == 1
    folder = next(path for path in Path(copies[0]).parents if (path / ".lock").exists())
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1


def test_what_a_killed_copy_left_is_cleared(bucket: str) -> None:
    write_bytes(f"{bucket}/a", b"1")
    folder = next(path for path in Path(local(f"{bucket}/a")).parents if (path / ".lock").exists())
    rubble = folder / ".0123456789abcdef.0123abcd.aside"
    rubble.mkdir()
    write_bytes(f"{bucket}/a", b"2")
    local(f"{bucket}/a")
    assert not rubble.exists()


def test_too_small_a_disk_is_refused_before_copying(bucket: str, tmp_path: Path, monkeypatch) -> None:
    write_bytes(f"{bucket}/a", b"1" * 2000)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"0 MiB, but .* has 0 MiB free; .* CTXNER_CACHE") as error:
        local(f"{bucket}/a")
    assert error.value.errno == errno.ENOSPC
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.name != ".lock" and path.is_file()]


def test_a_store_that_changes_while_it_is_copied_is_no_copy(bucket: str, tmp_path: Path, monkeypatch) -> None:
    write_bytes(f"{bucket}/a", b"1")
    listed, asked = node_copies._listed, list[Path]()

    def changing(uri: Path):
        asked.append(uri)
        if len(asked) == 2:
            write_bytes(f"{bucket}/b", b"2")
        return listed(uri)

    monkeypatch.setattr(node_copies, "_listed", changing)
    with pytest.raises(OSError, match=rf"{bucket}: it changed while it was copied") as error:
        local(bucket)
    assert error.value.errno == errno.ESTALE
    assert not list((tmp_path / "cache").rglob("a"))


def test_nothing_behind_a_uri_is_an_error(bucket: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{bucket}/x: no such file, folder or pattern"):
        local(f"{bucket}/x")
    write_bytes(f"{bucket}/a", b"1")
    with pytest.raises(FileNotFoundError, match=r"no such file, folder or pattern"):
        local(f"{bucket}/*.txt")
    remove(bucket)
