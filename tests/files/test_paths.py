"""Which files are meant by a file, a folder and a pattern, in which order, and what their ids begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxner.files.paths import kind_of, sentence_files

FILES = (
    "b.conll",
    "a.jsonl.gz",
    "deep/c.PARQUET",
    "deep/d.txt.zst",
    "notes.md",
    "_SUCCESS",
    ".a.conll.12",
    ".git/e.txt",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(paths, kind=None) -> list[tuple[str, str]]:
    return [(file.as_posix(), prefix) for file, prefix in sentence_files(paths, kind).items()]


def test_a_folder_is_all_its_sentence_files_sorted(folder):
    expected = [("a.jsonl.gz", "a"), ("b.conll", "b"), ("deep/c.PARQUET", "c"), ("deep/d.txt.zst", "d")]
    assert names(".") == expected
    assert names(Path("deep"), "text") == expected[3:]
    assert names(folder, "jsonl") == [(f"{folder}/a.jsonl.gz", "a")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("*.conll", ["b.conll"]), ("?.*", ["a.jsonl.gz", "b.conll"]), ("**/[cd].*", ["deep/c.PARQUET", "deep/d.txt.zst"])],
)
def test_a_pattern_is_what_it_matches_sorted(folder, pattern, expected):
    assert [name for name, _ in names(pattern)] == expected


def test_a_file_is_itself_also_when_it_looks_like_a_pattern(folder):
    (folder / "x[1].conll").touch()
    assert names("x[1].conll") == [("x[1].conll", "x[1]")]
    assert names("absent.conll") == [("absent.conll", "absent")]


def test_files_named_twice_are_read_once_and_in_the_order_given(folder):
    assert [name for name, _ in names(["deep", "b.conll", "./b.conll", "*.conll"])] == [
        "deep/c.PARQUET",
        "deep/d.txt.zst",
        "b.conll",
    ]


def test_equal_names_are_told_apart_by_their_paths(folder):
    (folder / "deep/a.conll").touch()
    (folder / "a.txt").touch()
    assert names([folder / "deep", "a.*", "b.conll"]) == [
        (f"{folder}/deep/a.conll", "deep/a.conll"),
        (f"{folder}/deep/c.PARQUET", "c"),
        (f"{folder}/deep/d.txt.zst", "d"),
        ("a.jsonl.gz", "a.jsonl.gz"),
        ("a.txt", "a.txt"),
        ("b.conll", "b"),
    ]


def test_folders_that_are_one_data_set_count_as_a_file(folder):
    """Those that datasets saved, and brat's; descriptions of data sets hold no sentences."""
    (folder / "deep/d.txt.zst").unlink()
    for name in (
        "s/state.json",
        "s/dataset_info.json",
        "s/a.arrow",
        "brat/x.txt",
        "brat/y/x.ann",
        "dataset_infos.json",
    ):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).touch()
    assert names("brat") == [("brat", "brat")]
    assert names("s") == [("s", "s")]
    assert [kind_of(name) for name in ("brat", "s")] == ["brat", "arrow"]
    assert [name for name, _ in names(folder / "brat", "text")] == [f"{folder}/brat/x.txt"]
    (folder / "brat/y/x.ann").unlink()
    assert [name for name, _ in names(".")] == ["a.jsonl.gz", "b.conll", "brat/x.txt", "deep/c.PARQUET", "s"]


@pytest.mark.parametrize(
    ("paths", "kind", "message"),
    [
        ("*.tsv", None, r"\*\.tsv: no file matches this pattern"),
        ("de[e]p", None, r"de\[e\]p: no file matches this pattern"),
        ("deep", "jsonl", r"deep: no sentence file in this folder; wanted names that end in \.jsonl \(or with \.gz"),
        (".git/objects", None, None),
        (["b.conll", "none*"], None, r"none\*: no file matches"),
    ],
)
def test_nothing_there_is_refused(folder, paths, kind, message):
    (folder / ".git/objects").mkdir()
    with pytest.raises(FileNotFoundError, match=message or "no sentence file in this folder; wanted .* .jsonl, .conll"):
        sentence_files(paths, kind)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", "jsonl"),
        ("a.b.JSONL.GZ", "jsonl"),
        ("a.txt", "columns"),
        ("a.iob2.zst", "columns"),
        ("a.parquet", "parquet"),
        ("a.json.gz", "json"),
        ("a.spacy", "spacy"),
        ("a.arrow", "arrow"),
        ("a.ann", "brat"),
    ],
)
def test_the_suffix_says_what_a_file_is(name, kind):
    assert kind_of(name) == kind


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.gz", "a.conll.bz2", ".conll"])
def test_other_suffixes_are_refused(name):
    with pytest.raises(
        ValueError, match=r"unknown suffix .*; wanted \.jsonl or \.conll, .*\.parquet \(or with \.gz or \.zst\)"
    ):
        kind_of(name)
