"""Plain text: one sentence a line, whatever the line is."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.files.lines import ReadCounts
from ctxner.files.sentences import read_sentences
from ctxner.files.text import iter_text
from ctxner.files.words import split_words


def test_a_line_is_a_sentence_and_blank_lines_are_none(tmp_path, caplog):
    path, counts = tmp_path / "posts.txt", ReadCounts()
    path.write_bytes("\ufeffHe left. She didn't!\r\n\n \t\n-DOCSTART- a\tb\n\u200b\n".encode())
    with caplog.at_level(logging.WARNING):
        first, second = iter_text(path, counts=counts)
    assert (first.id, first.words, first.tags) == ("posts-0", ("He", "left", ".", "She", "didn't", "!"), None)
    assert [first.offsets[0], first.offsets[-1]] == [(0, 2), (19, 20)]
    assert (second.id, second.words[-2:]) == ("posts-1", ("a", "b"))
    assert (counts.num_sentences, counts.num_empty_texts) == (2, 1)
    assert "2 sentences read, with {'num_empty_texts': 1}" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no sentence in the file; wanted a sentence on each line"),
        (b"a\n\xff\n", ":2: not UTF-8"),
        (b"\n \n", "no sentence"),
    ],
)
def test_bad_files_are_refused_with_their_line(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(iter_text(tmp_path / "a.txt"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"])), min_size=1))
def test_any_lines_become_their_words(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("text") / "a.any"
    path.write_text("".join(f"{line}\n" for line in ["x", *lines]), encoding="utf-8")
    words = [[line[start:end] for start, end in split_words(line)] for line in lines]
    found = read_sentences(path, kind="text")
    assert [list(own.words) for own in found.sentences[1:]] == [own for own in words if own]
