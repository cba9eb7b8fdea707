"""`ctxner retrieve` before Ray: which sentences it would retrieve for, and what it refuses."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Called = tuple[int, str, str]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three passages, built in a process of its own."""
    folder = tmp_path_factory.mktemp("index")
    (folder / "corpus.txt").write_text("Velmora is a port.\nThe Quodun sank.\nKim met Dana.\n")
    build = [sys.executable, "-m", "jobs", "index", "--corpus", folder / "corpus.txt", "--out", folder / "index"]
    subprocess.run(build, check=True, capture_output=True)
    return folder / "index"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five sentences without gold tags in files of every kind, and two tagged ones."""
    (tmp_path / "shards/deep").mkdir(parents=True)
    (tmp_path / "shards/a.conll").write_text("We\nmet\n\nIt\nrained\n")
    (tmp_path / "shards/b.jsonl.gz").write_bytes(gzip.compress(b'{"id": "mine", "text": "Kim left."}\n'))
    pq.write_table(pa.table({"text": ["Dana stayed."]}), tmp_path / "shards/deep/c.parquet")
    (tmp_path / "posts.txt").write_text("We met in Velmora.\n\nIt rained.\n")
    (tmp_path / "gold.conll").write_text("Kim\tB-person\nleft\tO\n\nIt\tNN\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    def run(*arguments: object) -> Called:
        from jobs.cli import main

        monkeypatch.setattr(sys, "argv", ["ctxner", "retrieve", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return run


@pytest.mark.parametrize(
    ("files", "number"),
    [
        (("shards",), 4),
        (("shards/**/*.parquet", "shards/b.jsonl.gz"), 2),
        (("posts.txt", "--format", "text"), 2),
        (("posts.txt", "--format", "columns"), 2),
        (("gold.conll",), 2),
        (("gold.conll", "shards", "--set", "data.token_column=-1"), 6),
    ],
    ids=str,
)
def test_dry_run_counts_the_sentences_of_files_without_gold_tags(folder, index, call, files, number):
    before = sorted(folder.rglob("*"))
    code, out, _ = call(*files, "--out", "made", "--index", index, "--dry-run", "--json")
    assert code == 0
    assert json.loads(out) == {
        "sentences": {"sentences": number},
        "passages_in_index": 3,
        "pairs_at_most": 6 * number,
        "folder": "made",
    }
    assert sorted(folder.rglob("*")) == before


def test_dry_run_of_a_config_counts_its_splits_which_may_be_many_files(folder, index, call):
    (folder / "tagged").mkdir()
    for name in "ab":
        (folder / f"tagged/{name}.conll").write_text("Kim\tB-person\nleft\tO\n\nIt\tO\n")
    settings = ("data.train=tagged", "data.test=tagged/b*", "data.contexts=made", f"index.folder={index}")
    code, out, _ = call(*(part for own in settings for part in ("--set", own)), "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["sentences"] == {"train": 4, "test": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("posts.txt", "--out", "made"),
            "posts.txt: words in columns, or one text per line? give --format columns",
        ),
        (("shards", "--split", "test", "--out", "made"), "--split chooses among the config's data sets"),
        (("--format", "text", "--set", "data.test=posts.txt"), "--format text is for FILES"),
        (("shards",), "data.contexts is not set; give the folder to write contexts to, e.g. --out"),
        (("none*", "--out", "made"), "none*: no file matches this pattern"),
        (("shards", "--format", "text", "--out", "made"), "shards: no sentence file in this folder; wanted names that"),
        (("shards", "absent.conll", "--out", "made"), "absent.conll: no such file"),
        (("shards/a.pdf", "--out", "made"), "shards/a.pdf: unknown suffix"),
        (("shards", "--out", "made", "--index", "absent"), "absent: no such index folder"),
        (("--set", "data.test=absent/*", "--out", "made"), "absent/*: no file matches this pattern"),
    ],
)
def test_what_a_user_can_mend_is_one_message_before_anything_is_written(folder, call, arguments, message):
    before = sorted(folder.rglob("*"))
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "fine"}\n{"text": 5}\n', "bad.jsonl:2: 'text' is 5; wanted a string"),
        ('{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}\n', "bad.jsonl:2: id '1' was used before at"),
        ('{"id": "mine", "text": "x"}\n', "id 'mine' was used before at sentences: sentence 3; ids must be unique"),
    ],
)
def test_what_is_wrong_in_a_file_is_found_before_ray_starts(folder, index, call, content, message):
    import ray

    (folder / "shards/bad.jsonl").write_text(content)
    code, out, err = call("shards", "--out", "made", "--index", index)
    assert (code, out) == (2, "")
    assert message in err
    assert not ray.is_initialized()
    assert not (folder / "made").exists()


def test_a_config_s_split_is_still_read_with_its_tags(folder, index, call):
    settings = ("--set", "data.test=gold.conll", "--out", "made", "--index", index)
    code, _, err = call(*settings)
    assert code == 2
    assert "gold.conll:4: 'NN' is not a tag of IOB2" in err
