"""Readers see the old content or the new one, whenever the writer fails or is killed."""

import os
import stat
import subprocess
import sys
import threading

import pytest

from ctxner.files.atomic import new_file, new_folder, remove_leftovers, target_of, write_text

# Forks a writer for each audited operation (open, mkdir, rename, remove ...) and kills the writer just before it.
_KILLED_EVERYWHERE = """
import os, shutil, signal, sys
from pathlib import Path
from ctxner.files.atomic import new_file, new_folder

kind, target = sys.argv[1], Path(sys.argv[2])

def write(text):
    with {"file": new_file, "folder": new_folder}[kind](target) as aside:
        for name in ("a", "b"):
            part = aside if kind == "file" else aside / name
            with part.open("a") as file:
                file.write(text)
                file.flush()
                sys.audit("between writes")

def states():
    for path in target.parent.iterdir():
        parts = [path] if path.is_file() else [path / name for name in ("a", "b")]
        yield path.name, "".join(part.read_text() for part in parts if part.exists())

def count_down(left):
    left = [left]
    def hook(event, arguments):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for point in range(1000):
    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir()
    write("old")
    pid = os.fork()
    if not pid:
        count_down(point)
        write("new")
        os._exit(0)
    killed = os.waitpid(pid, 0)[1] != 0
    print(point, killed, dict(states()))
    if not killed:
        break
"""


def _killed_everywhere(kind, target):
    command = [sys.executable, "-c", _KILLED_EVERYWHERE, kind, str(target)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [(killed == "True", eval(states)) for _, killed, states in (line.split(" ", 2) for line in lines)]


def test_a_writer_killed_at_any_point_leaves_the_old_file_or_the_new_one(tmp_path):
    *killed, last = _killed_everywhere("file", tmp_path / "folder" / "target")
    assert last == (False, {"target": "newnew"}), "and nothing aside"
    seen = {states["target"] for _, states in killed}
    assert seen == {"oldold", "newnew"}
    assert len(killed) > 4


def test_a_writer_killed_at_any_point_leaves_the_old_folder_or_the_new_one(tmp_path):
    *killed, last = _killed_everywhere("folder", tmp_path / "folder" / "target")
    assert last == (False, {"target": "newnew"}), "and nothing aside"
    for _, states in killed:
        assert {"oldold", "newnew"} & set(states.values())
        assert states.get("target") in ("oldold", "newnew", None), "never a part, though for an instant none"
    assert {states.get("target") for _, states in killed} == {"oldold", "newnew", None}


def _write_half_and_fail(path):
    path.write_text("half")
    path.with_name("\0").open()


def test_a_failing_writer_leaves_the_old_content_and_nothing_aside(tmp_path):
    write_text(tmp_path / "file", "old")
    with pytest.raises(ValueError, match="embedded null"), new_file(tmp_path / "file") as aside:
        _write_half_and_fail(aside)
    with pytest.raises(ValueError, match="embedded null"), new_folder(tmp_path / "folder") as aside:
        _write_half_and_fail(aside / "part")
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "file"):
        pass  # nothing was written
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "old"}


def test_a_folder_takes_the_place_of_another_one_and_of_nothing_else(tmp_path):
    for text in ("old", "new"):
        with new_folder(tmp_path / "folder") as aside:
            (aside / text).write_text(text)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    write_text(tmp_path / "file", "old")
    with pytest.raises(NotADirectoryError), new_folder(tmp_path / "file"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    texts, done, seen = ["a" * 200_000, "b" * 100_000], threading.Event(), set()
    write_text(tmp_path / "file", texts[0])

    def rewrite():
        for number in range(40):
            write_text(tmp_path / "file", texts[number % 2])
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    while not done.is_set():
        seen.add((tmp_path / "file").read_text())
    writer.join()
    assert seen <= set(texts)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_permissions_are_those_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "text")
        with new_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def test_text_is_written_byte_for_byte(tmp_path):
    write_text(tmp_path / "file", "a\r\nb\n€")
    assert (tmp_path / "file").read_bytes() == "a\r\nb\n€".encode()


def test_leftovers_are_those_of_one_target_or_of_all(tmp_path):
    left, others = ".file.0123abcd.aside", [".file.x.0123abcd.aside", ".file.aside", "file.0123abcd.aside", "file"]
    assert [target_of(name) for name in (left, *others)] == ["file", "file.x", None, None, None]
    (tmp_path / left).mkdir()
    for name in others:
        write_text(tmp_path / name, "text")
    remove_leftovers(tmp_path, "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others[1:])
