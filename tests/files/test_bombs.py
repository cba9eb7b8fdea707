"""Small files that expand to gigabytes, and files without line ends, end in an error that names the file."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import re
import subprocess
import sys
import textwrap
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

_MEMORY = 3 << 27  # bytes of data that a reader may take; each file of `_write` holds 900 MB
_PIECE = 1 << 22
_READ = """
    import gc, json, resource, sys
    resource.setrlimit(resource.RLIMIT_DATA, ({memory}, {memory}))
    from ctxner.files.columns import ColumnFormat
    from ctxner.files.documents import iter_documents
    from ctxner.files.sentences import iter_sentences
    from ctxner.retrieval.corpus.reader import read_corpus
    read = {{
        "sentences": lambda path: iter_sentences(path, ColumnFormat()),
        "documents": lambda path: iter_documents([path]),
        "corpus": lambda path: read_corpus([path]),
    }}
    for name, path in json.load(sys.stdin):
        try:
            number = sum(1 for _ in read[name](path))
            print(json.dumps([name, path, "read", number]))
        except Exception as error:
            print(json.dumps([name, path, type(error).__name__, str(error)]))
        gc.collect()  # each file has the whole memory
"""
_COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


def _write(path: Path, begin: bytes, piece: bytes) -> None:
    """A file of `begin` and 220 times `piece`: for compressed files as members that stand behind each other."""
    compress = _COMPRESS.get(path.suffix, bytes)
    if path.suffix in _COMPRESS:
        path.write_bytes(compress(begin) + compress(piece) * 220)
    else:  # with holes, so that it takes no room on the disk
        with path.open("wb") as file:
            file.write(begin)
            file.truncate(len(piece) * 220)


def test_bombs_end_in_an_error_that_names_the_file_and_leaves_the_memory(tmp_path: Path) -> None:
    letters, lines = b"a" * _PIECE, b"word O\n" * (_PIECE // 7)
    cases: list[tuple[str, str, bytes, bytes]] = [
        ("sentences", "a.jsonl.gz", b'{"text": "', letters),
        ("sentences", "a.json.gz", b'[{"text": "', letters),
        ("sentences", "a.json.zst", b"[", b"[" * _PIECE),
        ("sentences", "a.conll.gz", b"Ann B-PER\n", letters),
        ("sentences", "a.conll.zst", b"Ann B-PER\n", lines),
        ("sentences", "a.conll", b"Ann B-PER\n", letters),
        ("documents", "b.jsonl.gz", b'{"text": "', letters),
        ("documents", "b.txt.gz", b"Ann sings\n", letters),
        ("documents", "b.txt.zst", b"Ann sings\n", letters),
        ("documents", "b.txt", b"Ann sings\n", letters),
        ("corpus", "c.jsonl.gz", b'{"text": "', letters),
        ("corpus", "c.txt.zst", b"Ann sings\n", letters),
        ("corpus", "c.txt", b"Ann sings\n", letters),
        ("corpus", "c.csv.gz", b'name,text\n"', letters),
        ("corpus", "c.csv.zst", b'name,text\n"', b"a\n" * (_PIECE // 2)),
        ("corpus", "c.names.gz", b"Ann\n", letters),
        ("corpus", "c.md.gz", b"# Ann\n", b"text\n" * (_PIECE // 5)),
        ("corpus", "c.obo.gz", b"format-version: 1.2\n", letters),
        ("corpus", "c.xml.bz2", b"<mediawiki><page><revision><text>", letters),
    ]
    for _, name, begin, piece in cases:
        _write(tmp_path / name, begin, piece)
    _assert_refused([(reader, tmp_path / name) for reader, name, _, _ in cases])


@pytest.mark.parametrize("suffix", _COMPRESS)
def test_a_file_that_expands_beyond_reason_is_refused_with_the_line(tmp_path: Path, suffix: str) -> None:
    """Before, only the file was named; of many records, one may be the bomb."""
    from ctxner.files.compression import CorpusFile, bounded_lines

    path = tmp_path / f"a.txt{suffix}"
    _write(path, b"Ann sings\nin Paris\n\n", b"a" * _PIECE)
    lines = list[bytes]()
    with CorpusFile(path) as file, pytest.raises(ValueError, match=r"a\.txt\.\w+:4: expands to more than 500 times"):
        lines += (line for _, line in bounded_lines(file.stream, path))
    _write(path, b"", (b"a" * 99_999 + b"\n") * (_PIECE // 100_000))
    with CorpusFile(path) as file, pytest.raises(ValueError, match=r"a\.txt\.\w+:\d+: expands") as refused:
        deque(bounded_lines(file.stream, path), maxlen=0)
    line_no, limit = int(str(refused.value).split(":")[1]), max(1 << 26, 500 * path.stat().st_size)
    assert (1 << 26) // 100_000 <= line_no <= limit // 100_000 + 2


def _assert_refused(cases: Sequence[tuple[str, Path]], why: str = "", *, memory: int = _MEMORY) -> None:
    task = json.dumps([(reader, str(path)) for reader, path in cases])
    code = textwrap.dedent(_READ).format(memory=memory)
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}  # the others keep what is freed
    done = subprocess.run(
        [sys.executable, "-c", code], input=task, capture_output=True, text=True, timeout=1200, env=environment
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == len(cases), done.stderr[-2000:]
    for reader, path, kind, message in outcomes:
        assert kind == "ValueError", (reader, path, kind, message)
        assert message.startswith(path), (reader, path, message)
        assert re.search(why, message), (reader, path, message)


def test_rows_that_repeat_a_value_of_a_dictionary_are_refused_before_they_are_written_out(tmp_path: Path) -> None:
    """A Parquet file of two kilobytes holds 20 GB of text: a dictionary has the value once, and each row its number."""
    settings = {"compression": "zstd", "store_schema": False, "dictionary_pagesize_limit": 1 << 30}
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["a" * 20_000_000]))
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet", **settings)
    pq.write_table(pa.table({"contents": text}), tmp_path / "b.parquet", **settings)
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000_000, pa.int32()), pa.array(["a" * 100_000]))
    lists = pa.ListArray.from_arrays(pa.array([0, 1_000_000, 2_000_000], pa.int32()), words)
    pq.write_table(pa.table({"words": lists}), tmp_path / "c.parquet", **settings)
    short = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["a" * 100_000]))
    table = pa.table({"text": short})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    again = pa.chunked_array([pa.array(["a" * 2_000_000] * 10)] * 100)  # a value may repeat the one before
    delta = {"compression": "zstd", "use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    delta |= {"data_page_size": 1 << 30, "write_batch_size": 1000}
    pq.write_table(pa.table({"text": again}), tmp_path / "d.parquet", **delta)
    assert pq.ParquetFile(tmp_path / "d.parquet").num_row_groups == 1
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1 << 20
    cases = [("sentences", "a.parquet"), ("documents", "a.parquet"), ("corpus", "b.parquet")]
    cases += [
        ("sentences", "c.parquet"),
        ("sentences", "d.parquet"),
        ("sentences", "a.arrow"),
        ("documents", "a.arrow"),
    ]
    why = r"row \d+: (the file expands more than 500-fold, to over|a row of) \d+ MiB|a text of 20,000,000 characters"
    _assert_refused([(reader, tmp_path / name) for reader, name in cases], why, memory=3 << 29)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_files_that_repeat_themselves_a_hundred_times_are_read_whole(tmp_path: Path, suffix: str) -> None:
    from ctxner.files.lines import lines_of

    block = "".join(f"{number * 7919 % 1_000_003:070}\n" for number in range(20_000)).encode()
    path = tmp_path / f"lines.txt{suffix}"
    path.write_bytes(_COMPRESS[suffix](block) * 60)
    assert path.stat().st_size * 500 > len(block) * 60
    assert sum(1 for _ in lines_of(path)) == 20_000 * 60


def test_a_sentence_of_too_many_words_is_refused(tmp_path: Path) -> None:
    """As in column files, where blank lines may be missing."""
    from ctxner.files.columns import ColumnFormat
    from ctxner.files.sentences import iter_sentences

    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"words": ["a"] * 50_001, "tags": ["O"] * 50_001}))
    with pytest.raises(ValueError, match=r"a.jsonl:1: a sentence of 50,001 words"):
        list(iter_sentences(path, ColumnFormat()))
