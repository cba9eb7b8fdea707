"""Files of sentences of any kind: chosen by suffix, decompressed, streamed, joined to one data set, and counted."""

from __future__ import annotations

import gzip
import logging
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.files.columns import ColumnFormat, write_columns
from ctxner.files.jsonl import write_jsonl
from ctxner.files.lines import ReadCounts
from ctxner.files.sentences import iter_sentences, read_sentences
from ctxner.schema import Sentence
from tests.files.sentence_files import columns, jsonl, tagged_sentences

FIELDS = ("words", "tags")
SENTENCES = pa.schema([("id", pa.string()), ("words", pa.list_(pa.string())), ("tags", pa.list_(pa.string()))])


def test_files_are_chosen_by_suffix_also_when_compressed(tmp_path):
    path = tmp_path / "dev.BIO.gz"
    path.write_bytes(gzip.compress(b"a\tO\n"))
    assert read_sentences(path).sentences == [Sentence("dev-0", ("a",), ("O",))]
    assert read_sentences(path, id_prefix="x").sentences[0].id == "x-0"
    with pytest.raises(ValueError, match=r"unknown suffix '.pdf'; wanted .jsonl or .conll"):
        read_sentences(tmp_path / "a.pdf")
    with pytest.raises(FileNotFoundError, match=r"absent\.conll"):
        read_sentences(tmp_path / "absent.conll")


@pytest.mark.parametrize("content", [gzip.compress(b"a\tO\n" * 99)[:-9], b"a\tO\n"], ids=["cut", "plain"])
def test_broken_gzip_files_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"some.conll.gz: not a whole gzip file"):
        read_sentences(columns(tmp_path, content, "some.conll.gz"))


@pytest.mark.parametrize(
    "content", [pa.compress(b"a\tO\n" * 999, "zstd", asbytes=True)[:-9], b"a\tO\n"], ids=["cut", "plain"]
)
def test_broken_zstandard_files_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"some.conll.zst: not a whole zstd file"):
        read_sentences(columns(tmp_path, content, "some.conll.zst"))


def test_a_sentence_is_there_before_the_next_line_is_read(tmp_path):
    """The last line is at fault, and what stands before it comes out all the same."""
    contents = {"some.conll": "a\tO\n\nb\tO\n\nc\n", "some.jsonl": '{"text": "a"}\n{"text": "b"}\n{\n'}
    for name, content in contents.items():
        sentences = iter_sentences(columns(tmp_path, content, name))
        assert [next(sentences).words, next(sentences).words] == [("a",), ("b",)]
        with pytest.raises(ValueError, match=rf"{name}:\d: "):
            next(sentences)


@pytest.mark.parametrize("name", ["some.conll", "some.jsonl.gz"])
def test_streaming_memory_is_eight_bytes_a_sentence(tmp_path, name):
    def peak(number: int) -> int:
        sentences = (Sentence(f"s-{n}", ("some", "words", "x"), ("O", "O", "O")) for n in range(number))
        (write_columns if name == "some.conll" else write_jsonl)(sentences, tmp_path / name)
        tracemalloc.start()
        assert sum(1 for _ in iter_sentences(tmp_path / name)) == number
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(500), peak(4500)
    assert many - few < 3 * 8 * 4000  # the hashes, and once more while the array grows and is compared


@settings(max_examples=40, deadline=None)
@given(sentences=tagged_sentences(), compressed=st.sampled_from(["", ".gz", ".zst"]))
def test_all_formats_give_the_same_sentences_streamed_and_whole(tmp_path_factory, sentences, compressed):
    folder, iob = tmp_path_factory.mktemp("formats"), ColumnFormat(scheme="BIOES")
    files = [folder / f"some.jsonl{compressed}", folder / "some.parquet", folder / f"some.conll{compressed}"]
    write_jsonl(sentences, files[0])
    table = {
        "id": [own.id for own in sentences],
        **{name: [getattr(own, name) for own in sentences] for name in FIELDS},
    }
    pq.write_table(pa.table(table, schema=SENTENCES), files[1])
    try:
        write_columns(sentences, files[2], scheme="BIOES")
    except ValueError:
        files.pop()
    for file in files:
        counts = ReadCounts()
        assert list(iter_sentences(file, iob, counts=counts)) == read_sentences(file, iob).sentences == sentences
        assert counts == ReadCounts(num_sentences=len(sentences), recognised=counts.recognised)


def test_many_files_are_one_data_set_with_unique_ids(tmp_path, caplog):
    for part, text in (("b", "x\tO\n\ny\tO\n"), ("a", "# c\n\tO\n")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "part.conll").write_text(text)
    (tmp_path / "own.jsonl").write_text('{"id": "mine", "words": ["z"], "tags": ["O"]}\n{"text": "w"}\n')
    with caplog.at_level(logging.WARNING):
        result = read_sentences(tmp_path)
    assert [(own.id, own.words) for own in result.sentences] == [
        ("a/part.conll-0", ("_",)),
        ("b/part.conll-0", ("x",)),
        ("b/part.conll-1", ("y",)),
        ("mine", ("z",)),
        ("own-1", ("w",)),
    ]
    assert (result.num_sentences, result.num_comments, result.num_empty_tokens) == (5, 1, 1)
    assert "a/part.conll: 1 sentences read, with {'num_empty_tokens': 1, 'num_comments': 1}" in caplog.text
    assert len(read_sentences(tmp_path / "*" / "part.*").sentences) == 3


def test_an_id_that_two_files_give_is_refused(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"id": "same", "text": "z"}\n')
    with pytest.raises(ValueError, match=r"\*.jsonl: two of the files give the sentence id 'same'; ids must be unique"):
        read_sentences(tmp_path / "*.jsonl")


def test_an_empty_file_among_many_is_named(tmp_path):
    (tmp_path / "a.conll").write_text("x\tO\n")
    (tmp_path / "b.conll").write_text("\n")
    with pytest.raises(ValueError, match=r"b\.conll: no sentence in the file"):
        read_sentences(tmp_path)


def test_the_kind_that_is_given_beats_the_suffix(tmp_path):
    path = columns(tmp_path, "Bo ran\nHi all\n", "some.log")
    assert [own.words for own in iter_sentences(path, kind="text")] == [("Bo", "ran"), ("Hi", "all")]
    assert [own.words for own in iter_sentences(path, ColumnFormat(tag_column=None), kind="columns")] == [("Bo", "Hi")]
    with pytest.raises(ValueError, match=r"some.log:1: not JSON"):
        list(iter_sentences(path, kind="jsonl"))


def test_remarks_keep_their_first_places_and_add_up(caplog):
    counts, other = ReadCounts(num_sentences=1), ReadCounts()
    for line in range(1, 8):
        counts.remark("tags without prefix", f"a.conll:{line}")
    other.remark("tags without prefix", "b.conll:3")
    other.remark("nested mentions", "b.conll:4")
    other.recognised["b.conll"] = "CoNLL-2003, IOB1"
    counts.add(other)
    assert counts.remarks["tags without prefix"].count == 8
    assert counts.remarks["tags without prefix"].places == [f"a.conll:{line}" for line in range(1, 6)]
    assert counts.remarks["nested mentions"].places == ["b.conll:4"]
    with caplog.at_level("INFO"):
        counts.check("ab", "sentences")
    assert "b.conll: read as CoNLL-2003, IOB1" in caplog.text
    assert "ab: tags without prefix: 8 times, first a.conll:1" in caplog.text


def test_only_what_a_files_name_does_not_say_is_told(tmp_path, caplog):
    with caplog.at_level("INFO"):
        read_sentences(columns(tmp_path, "a\tB-x\nb\tO\n", "a.conll"))
        read_sentences(jsonl(tmp_path, {"text": "a", "entities": []}))
        assert caplog.text == ""
        read_sentences(columns(tmp_path, "a\tI-x\nb\tO\n", "b.conll"))
    assert "b.conll: read as columns, IOB1" in caplog.text
