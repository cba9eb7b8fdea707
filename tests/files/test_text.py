"""Plain text: one text a line, whatever the line is."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.files.lines import ReadCounts
from ctxner.files.sentences import read_sentences
from ctxner.files.text import iter_text
from ctxner.texts import sentences_of


def test_a_line_is_a_text_and_blank_lines_are_none(tmp_path, caplog):
    path, counts = tmp_path / "posts.txt", ReadCounts()
    path.write_bytes("\ufeffHe left. She didn't!\r\n\n \t\n-DOCSTART- a\tb\n\u200b\n".encode())
    with caplog.at_level(logging.WARNING):
        first, second, third = iter_text(path, counts=counts)
    assert (first.id, first.words, first.tags) == ("posts-0-0", ("He", "left", "."), None)
    assert (second.id, second.words) == ("posts-0-1", ("She", "didn't", "!"))
    assert second.offsets == ((9, 12), (13, 19), (19, 20))
    assert (third.id, third.words[-2:]) == ("posts-1", ("a", "b"))
    assert [own.document for own in (first, second, third)] == ["posts-0", "posts-0", "posts-1"]
    assert (counts.num_sentences, counts.num_empty_texts) == (3, 1)
    assert "3 sentences read, with {'num_empty_texts': 1}" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no sentence in the file; wanted a text on each line"),
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
def test_any_lines_become_the_sentences_that_are_tagged(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("text") / "a.any"
    path.write_text("".join(f"{line}\n" for line in ["x", *lines]), encoding="utf-8")
    wanted = [own.words for line in lines for own in sentences_of(line, "x")]
    assert [own.words for own in read_sentences(path, kind="text").sentences[1:]] == wanted
