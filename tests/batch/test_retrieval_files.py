"""Staging sentences and joining rows again, without Ray: rows come in any order, in any files."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.batch.job_folder import alone
from ctxner.batch.retrieval_files import Stage, job_path, publish, row_schema, stage
from ctxner.files.node_copies import local
from ctxner.files.storage import names_in, put_file, read_bytes, write_bytes
from ctxner.files.uris import path_or_uri
from ctxner.schema import Sentence, context_schema

SPLITS = {
    "train": [Sentence(f"s-{n}", ("word", str(n))) for n in range(9000)],
    "dev": [Sentence("s-0", ("other",)), Sentence("tab\tbed", ("x",))],
}


def staged_rows(staged: Stage) -> list[dict]:
    paths = sorted(staged.job.inputs.glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def write_rows(staged: Stage, rows: Sequence[Mapping], *, num_files: int, seed: int = 0) -> None:
    """Contexts for staged sentences, shuffled over files, every third without a query."""
    parts: list[list[dict]] = [[] for _ in range(num_files)]
    rng = random.Random(seed)
    for row in rng.sample(list(rows), len(rows)):
        passage = dict.fromkeys(("id", "source", "title", "text"), "p") | {"dropped": rng.choice((None, "below_depth"))}
        query = "" if row["position"] % 3 == 0 else "q"
        rng.choice(parts).append({**row, "query": query, "passages": [passage], "error": None})
    for number, part in enumerate(parts):
        pq.write_table(pa.Table.from_pylist(part, schema=row_schema()), staged.job.rows / f"{number}.parquet")


def test_sentences_are_staged_in_order_with_their_split(tmp_path: Path) -> None:
    staged = stage(SPLITS, tmp_path, {})
    rows = staged_rows(staged)
    assert staged.job.num_rows == len(rows) == 9002
    assert [row["position"] for row in rows] == list(range(9002))
    assert rows[9000]["sentence_id"] == "dev\ts-0"
    assert len(list(staged.job.inputs.iterdir())) > 1, "many sentences are many files"
    assert staged.job.num_done() == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(0, 9))
def test_rows_of_any_files_become_one_ordered_file_a_split(num_files: int, seed: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        splits = {"train": SPLITS["train"][:50], "dev": SPLITS["dev"], "none": []}
        staged = stage(splits, folder, {})
        write_rows(staged, staged_rows(staged), num_files=num_files, seed=seed)
        counts = publish(staged, {"note": 1})
        for split, sentences in splits.items():
            table = pq.read_table(folder / f"{split}.parquet")
            assert table.schema.names == context_schema().names
            assert table["sentence_id"].to_pylist() == [own.id for own in sentences]
            assert [tuple(words) for words in table["words"].to_pylist()] == [own.words for own in sentences]
        tables = [pq.read_table(folder / f"{split}.parquet") for split in splits]
        passages = [passage for table in tables for own in table["passages"].to_pylist() for passage in own]
        assert counts == {
            "sentences": 52,
            "errors": 0,
            "without_query": sum(position % 3 == 0 for position in range(52)),
            "without_passage": sum(not own for table in tables for own in table["passages"].to_pylist()),
            "kept_passages": sum(passage["dropped"] is None for passage in passages),
        }
        manifests = json.loads((folder / "_SUCCESS").read_text())
        assert [manifests[split]["sentences"] for split in splits] == [50, 2, 0]
        assert all(manifest["note"] == 1 for manifest in manifests.values())
        assert not staged.job.rows.exists()


@pytest.mark.parametrize("change", ["missing", "twice"])
def test_a_row_missing_or_twice_is_never_published(tmp_path: Path, change: str) -> None:
    staged = stage({"dev": SPLITS["train"][:20]}, tmp_path, {})
    rows = staged_rows(staged)
    write_rows(staged, rows[:7] + rows[8:] if change == "missing" else [*rows, rows[7]], num_files=3)
    with pytest.raises(RuntimeError, match=r"of 20 is missing or there twice; remove .* and run again"):
        publish(staged, {})
    assert not (tmp_path / "dev.parquet").exists()
    assert not (tmp_path / "_SUCCESS").exists()


def test_the_same_job_finds_its_rows_again_and_any_other_starts_afresh(tmp_path: Path) -> None:
    splits = {"dev": SPLITS["train"][:20]}

    def rows_left(own: Mapping[str, Sequence[Sentence]], config: Mapping[str, object]) -> int:
        staged = stage(own, tmp_path, config)
        left = len(list(staged.job.rows.iterdir()))
        (staged.job.rows / "a.parquet").touch()
        return left

    assert rows_left(splits, {"depth": 6}) == 0
    assert rows_left(splits, {"depth": 6}) == 1
    assert rows_left(splits, {"depth": 7}) == 0
    assert rows_left({"dev": SPLITS["train"][:21]}, {"depth": 7}) == 0
    assert rows_left({"dev": [*SPLITS["train"][:20], Sentence("s-20", ("changed",))]}, {"depth": 7}) == 0
    assert not [path for path in tmp_path.iterdir() if path.name not in (".retrieving",)]


def test_what_success_said_of_other_splits_stays(tmp_path: Path) -> None:
    for split, note in (("train", 1), ("dev", 2), ("train", 3)):
        staged = stage({split: SPLITS["train"][:2]}, tmp_path, {})
        write_rows(staged, staged_rows(staged), num_files=1)
        publish(staged, {"note": note})
    manifests = json.loads((tmp_path / "_SUCCESS").read_text())
    assert {split: manifest["note"] for split, manifest in manifests.items()} == {"dev": 2, "train": 3}


@pytest.mark.parametrize("place", [1, 8999])
def test_an_id_twice_is_refused_and_nothing_is_left(tmp_path: Path, place: int) -> None:
    twice = [*SPLITS["train"], SPLITS["train"][place]]
    places = f"train: sentence {len(twice)}: id 's-{place}' was used before at train: sentence {place + 1}; ids must be"
    with pytest.raises(ValueError, match=places):
        stage({"dev": SPLITS["dev"], "train": twice}, tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_no_sentence_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sentences to retrieve for in dev, test"):
        stage({"dev": [], "test": []}, tmp_path, {})


def test_one_job_at_a_time(tmp_path: Path) -> None:
    with (
        alone(job_path(tmp_path)),
        pytest.raises(ValueError, match="another job is at work here; wait for it or stop it"),
        alone(job_path(tmp_path)),
    ):
        pass
    with alone(job_path(tmp_path / "new")):
        assert len(list((tmp_path / "new").iterdir())) == 1
    assert list(tmp_path.iterdir()) == [], "nothing is left that the lock alone has made"


def test_inputs_that_a_killed_job_left_aside_are_removed_by_the_next(tmp_path: Path) -> None:
    path = job_path(tmp_path)
    (path.with_name(f".{path.name}.0123abcd.aside") / "inputs").mkdir(parents=True)
    with alone(path):
        stage(SPLITS, tmp_path, {})
        assert {entry.name for entry in tmp_path.iterdir()} == {path.name, f"{path.name}.lock"}


def test_complete_rows_are_counted_once_a_file_and_pending_ones_not(tmp_path: Path) -> None:
    staged = stage({"dev": SPLITS["train"][:20]}, tmp_path, {})
    assert staged.job.num_done() == 0
    staged.job.checkpoint.mkdir()
    ids = pa.table({"sentence_id": ["a", "b", "c"]})
    for name in ("1.parquet", "2.pending.parquet"):
        pq.write_table(ids, staged.job.checkpoint / name)
    assert staged.job.num_done() == 3
    (staged.job.checkpoint / "2.pending.parquet").rename(staged.job.checkpoint / "2.parquet")
    assert staged.job.num_done() == 6
    (staged.job.checkpoint / "1.parquet").write_bytes(b"not read again")
    assert staged.job.num_done() == 6


def test_words_that_parquet_cannot_hold_are_staged_as_question_marks(tmp_path: Path) -> None:
    staged = stage({"dev": [Sentence("a", ("\ud83d", "x\udc00", "é"))]}, tmp_path, {})
    assert [row["words"] for row in staged_rows(staged)] == [["?", "x?", "é"]]


def test_row_groups_are_large_and_no_temporary_file_stays(tmp_path: Path) -> None:
    staged = stage({"train": SPLITS["train"]}, tmp_path, {})
    write_rows(staged, staged_rows(staged), num_files=40)
    (tmp_path / ".train.parquet.0123abcd.aside").write_bytes(b"left by a killed job")
    publish(staged, {})
    metadata = pq.read_metadata(tmp_path / "train.parquet")
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [8192, 808]
    assert {path.name for path in tmp_path.iterdir()} == {"train.parquet", "_SUCCESS"}


def test_staging_memory_is_eight_bytes_a_sentence(tmp_path: Path) -> None:
    """What Python allocates at most for 8,192 sentences and for 65,536, streamed."""

    def peak(number: int) -> int:
        tracemalloc.start()
        stage({"dev": (Sentence(f"s-{n}", ("some", "words", str(n))) for n in range(number))}, tmp_path, {})
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(8192), peak(65_536)
    assert many - few < 3 * 8 * (65_536 - 8192)  # the hashes, and once more while the array grows and is compared


def test_a_job_behind_a_uri_is_staged_joined_and_delivered_there(bucket: str, tmp_path: Path) -> None:
    uri, few = path_or_uri(f"{bucket}/contexts"), {"dev": SPLITS["dev"]}
    write_bytes(f"{uri}/_SUCCESS", b'{"train": {"sentences": 5}}')
    staged = stage(few, uri, {"settings": 1})
    rows = _rows_in_store(staged)
    write_rows(staged, rows, num_files=1)
    put_file(staged.job.rows / "0.parquet", f"{staged.job.store}/rows/0.parquet")
    (staged.job.rows / "0.parquet").unlink()
    assert stage(few, uri, {"settings": 1}).job.store == staged.job.store == f"{uri}/.retrieving"
    assert names_in(f"{staged.job.store}/rows") == ["0.parquet"], "the same job keeps its rows"
    counts = publish(staged, {"index": "i"})
    assert counts["sentences"] == 2
    assert names_in(uri) == ["_SUCCESS", "dev.parquet"]
    assert set(json.loads(read_bytes(f"{uri}/_SUCCESS", 9999))) == {"train", "dev"}
    assert [row["sentence_id"] for row in pq.read_table(local(uri) / "dev.parquet").to_pylist()] == ["s-0", "tab\tbed"]
    assert not job_path(uri).exists()


def test_rows_of_another_job_behind_a_uri_are_deleted(bucket: str, tmp_path: Path) -> None:
    uri = path_or_uri(bucket)
    staged = stage({"dev": SPLITS["dev"]}, uri, {"settings": 1})
    for name in ("rows/0.parquet", "checkpoint/0.parquet"):
        write_bytes(f"{staged.job.store}/{name}", b"old")
    stage({"dev": SPLITS["dev"]}, uri, {"settings": 2})
    assert names_in(staged.job.store) == ["inputs", "job.json"]


def _rows_in_store(staged: Stage) -> list[dict]:
    folder = local(path_or_uri(f"{staged.job.store}/inputs"))
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
