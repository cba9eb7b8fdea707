"""Documents of every kind of file, and the parts of long ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.files.documents import Document, cut, iter_documents
from ctxner.files.words import split_sentences
from ctxner.texts import sentences_of


def test_each_kind_of_file_gives_its_documents_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 7, "text": "One.  Two."}\n\n{"text": ""}\n{"words": ["New", "York"]}\n')
    (tmp_path / "b.conll").write_text("# comment\nWe\tO\nmet\tO\n\nHi\tB-wrong-\n")
    pq.write_table(pa.table({"id": ["x", "x"], "text": ["tab\there", "\r\n"]}), tmp_path / "c.parquet")
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as file:
        file.write(json.dumps({"text": "half \ud83d pair"}) + "\n")
    assert list(iter_documents(tmp_path)) == [
        Document("7", "One.  Two."),
        Document("a-1", ""),
        Document("a-2", "New York", ("New", "York")),
        Document("b-0", "We met", ("We", "met")),
        Document("b-1", "Hi", ("Hi",)),
        Document("x", "tab\there"),
        Document("x", "\r\n"),
        Document("d-0", "half \ufffd pair"),
    ]


@pytest.mark.parametrize("offsets", [[[0, 3], [4, 8]], None])
def test_of_words_and_text_the_words_count_in_every_file_and_their_offsets_are_kept(tmp_path: Path, offsets) -> None:
    both = {"id": "a", "text": "New York.", "words": ["New", "York"], "offsets": offsets}
    (tmp_path / "a.jsonl").write_text(json.dumps(both))
    pq.write_table(pa.Table.from_pylist([both]), tmp_path / "a.parquet")
    wanted = Document("a", "New York", ("New", "York"))
    if offsets:
        wanted = Document("a", "New York.", ("New", "York"), ((0, 3), (4, 8)))
    assert list(iter_documents(tmp_path)) == [wanted, wanted]


def test_plain_text_is_a_document_a_line_or_a_file_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffOne.\r\n\n Two \n".encode())
    assert list(iter_documents(path, "text")) == [Document("a-0", "One."), Document("a-1", " Two ")]
    assert list(iter_documents(path, "files")) == [Document("a", "One.\r\n\n Two \n")]
    with pytest.raises(
        ValueError, match=r"a\.txt: one document per line, or one document per file, or words in columns\? give --f"
    ):
        iter_documents(path)


@pytest.mark.parametrize(
    ("name", "content", "kind", "problem"),
    [
        ("a.jsonl", b'{"text": 3}\n', None, "a.jsonl:1: 'text' is 3; wanted a string"),
        ("a.jsonl", b'{"text": "x"}\n{"no": 1}\n', None, "a.jsonl:2: wanted an object with 'text' or 'words'"),
        ("a.jsonl", b'{"words": ["x", 3]}\n', None, "a.jsonl:1: wanted 'words' and 'tags' to be lists of strings"),
        ("a.txt", b"ok\n\xff\n", "text", "a.txt:2: not UTF-8: byte 0xff at offset 3"),
        ("a.txt", b"ok\n\xff\n", "files", "a.txt: not UTF-8: byte 0xff at offset 3"),
        ("a.txt.gz", b"no gzip", "files", "a.txt.gz: not a whole compressed file"),
        ("a.parquet", b"no parquet", None, "a.parquet: row 1: not readable as Parquet"),
        ("a.doc", b"", None, "unknown suffix '.doc'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path: Path, name, content, kind, problem) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=problem.replace("[", r"\[")):
        list(iter_documents(tmp_path / name, kind))


def test_a_file_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        iter_documents([tmp_path / "absent.jsonl"])


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab .!?\n。😀\u0301é'\"1"), max_size=120), st.integers(1, 60))
def test_parts_joined_are_the_text_and_their_sentences_its_sentences(text: str, max_chars: int) -> None:
    parts = list(cut(text, max_chars))
    assert "".join(part.text for part in parts) == text
    found = list[tuple[int, int]]()
    for part in parts:
        assert part.start == sum(len(own.text) for own in parts[: parts.index(part)])
        bounds = split_sentences(part.text) if part.bounds is None else part.bounds
        found += [(part.start + first, part.start + last) for first, last in bounds]
    assert found == split_sentences(text)
    long = [part for part in parts if len(part.text.rstrip()) > max_chars and part.bounds is not None]
    assert all(len(part.bounds) == 1 for part in long), "only one long sentence makes a long part"


def test_a_short_text_is_its_only_part() -> None:
    [part] = cut("One. Two.")
    assert (part.start, part.text, part.bounds) == (0, "One. Two.", None)


def test_a_part_knows_the_abbreviations_that_earlier_parts_define() -> None:
    """The oracle: the sentences of the document as a whole."""
    filler = "Nothing else was said about it. " * 3
    defined = "".join(f"Alpha{n} beta gamma (A{n}BG) came. {filler}" for n in range(130))
    text = f"They gave puromycin aminonucleoside (PAN). {defined}Then PAN helped, A3BG and A99BG too."
    text += f" A99 beta gun (A99BG). {filler * 9}Now A99BG is new."
    whole = [(sentence.words, sentence.abbreviations) for sentence in sentences_of(text, "a")]
    parts = list(cut(text, 400))
    assert len(parts) > 20
    sentences = [
        (sentence.words, sentence.abbreviations)
        for part in parts
        for sentence in sentences_of(part.text, "a", bounds=part.bounds, abbreviations=part.abbreviations)
    ]
    assert sentences == whole
    assert [pair for _, used in whole for pair in used][-1] == ("A99BG", "A99 beta gun")
    assert max(len(part.abbreviations) for part in parts) == 100


def test_a_file_with_a_fault_is_left_out_whole_and_told(tmp_path):
    """One in another encoding, one cut off in the middle of its lines; without `on_error` either ends the reading."""
    (tmp_path / "a.jsonl").write_text('{"text": "One."}\n{"text": 3}\n')
    (tmp_path / "b.jsonl").write_bytes('{"text": "Größe."}\n'.encode("latin-1"))
    (tmp_path / "c.jsonl").write_text('{"text": "Two."}\n')
    told = []
    documents = iter_documents(tmp_path, on_error=lambda file, error: told.append((file.name, str(error))))
    assert [document.text for document in documents] == ["Two."]
    assert [name for name, _ in told] == ["a.jsonl", "b.jsonl"]
    assert "a.jsonl:2: 'text' is 3" in told[0][1]
    assert "b.jsonl:1: not UTF-8" in told[1][1]
    with pytest.raises(ValueError, match=r"a\.jsonl:2"):
        list(iter_documents(tmp_path))
