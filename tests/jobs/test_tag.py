"""The result of `ctxner tag` behind a URI: files and folders arrive whole, and nothing of an older result stays."""

from __future__ import annotations

from pathlib import Path

import fsspec

from jobs.tag import _upload


def test_a_folder_of_the_result_replaces_an_older_one_behind_the_uri(tmp_path: Path) -> None:
    for number_of_documents in (2, 1):
        folder = tmp_path / "job"
        (folder / "tagged.brat").mkdir(parents=True)
        for number in range(number_of_documents):
            (folder / f"tagged.brat/{number}.txt").write_text(f"text {number}")
        (folder / "_SUCCESS").write_text(f"{number_of_documents}")
        (folder / ".tagging").mkdir()
        _upload(folder, "memory://bucket/out")
        assert not folder.exists()
    files = fsspec.filesystem("memory")
    assert sorted(files.find("/bucket/out")) == ["/bucket/out/_SUCCESS", "/bucket/out/tagged.brat/0.txt"]
    assert files.cat("/bucket/out/tagged.brat/0.txt") == b"text 0"
