"""Files in whose place something else stands are refused with their name, at once and without their bytes in memory."""

import os
from pathlib import Path

import pytest

from ctxner.files.bounded import read_bounded, read_json_object


def test_a_file_of_the_bound_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert read_bounded(path, 10) == b"x" * 10
    with pytest.raises(ValueError, match=f"{path}: more than 9 bytes"):
        read_bounded(path, 9)


def test_pipes_devices_and_folders_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "endless", "folder"):
        with pytest.raises(ValueError, match=f"{tmp_path / name}: not a regular file"):
            read_bounded(tmp_path / name, 10)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "nothing", 10)


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000, "\x00"])
def test_what_is_no_json_object_is_refused_with_the_files_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path}: "):
        read_json_object(path, 1 << 20)
