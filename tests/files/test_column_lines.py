"""How column files are cut into sentences, lines and columns, and in which encodings files are read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.config import load_config
from ctxner.files.columns import ColumnFormat
from ctxner.files.documents import iter_documents
from ctxner.files.sentences import read_sentences
from tests.files.column_samples import remarks, write


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([*"O#*()|1é", "B-x", "I-x", "1-2", "(x*", "*)", "name=B-x", "-DOCSTART-", ""]))),
    st.sampled_from(["\t", " ", "|", "\r"]),
    st.sampled_from([ColumnFormat(), ColumnFormat(1, 2), ColumnFormat(-2, -1, repair=True), ColumnFormat(0, None)]),
)
def test_any_cells_are_read_or_refused_by_file_and_the_same_each_time(tmp_path_factory, rows, separator, format):
    path = write(tmp_path_factory.mktemp("cells"), "\n".join(separator.join(row) for row in rows))
    try:
        sentences = read_sentences(path, format).sentences
    except ValueError as error:
        assert str(error).startswith(str(path))  # noqa: PT017  (either outcome is fine)
    else:
        assert read_sentences(path, format).sentences == sentences
        assert all(own.tags is None or len(own.tags) == len(own.words) for own in sentences)


@pytest.mark.parametrize("space", ["\u00a0", "\u2028", "\u3000", "\x0b", "\x85"])
def test_only_tabs_and_spaces_part_columns_and_only_lf_parts_lines(tmp_path, space):
    path = write(tmp_path, f"10{space}000 CD B-NUM\nkm NN O\n\n{space}x NN O\n")
    assert [own.words for own in read_sentences(path).sentences] == [(f"10{space}000", "km"), (f"{space}x",)]


@pytest.mark.parametrize("end", ["\t", "\t\t", " \t ", "\t\u00a0"])
def test_blank_columns_after_the_tags_are_dropped_on_any_line(tmp_path, end):
    path = write(tmp_path, f"a\tB-x{end}\nb\tI-x\nc\tO{end}\n\nd\tO\n")
    assert [own.tags for own in read_sentences(path).sentences] == [("B-x", "E-x", "O"), ("O",)]


@pytest.mark.parametrize(
    ("comment", "num_comments"),
    [
        ("# text = Bo\tO and B-x", 1),
        ("#\thttp://x.org [2009]", 1),
        ("# id 7\tdomain=en", 1),
        ("# O", 0),
        ("#\tO", 0),
        ("# x\tB-x", 0),
        ("#begin document (x)", 1),
    ],
)
def test_a_line_before_the_first_word_is_a_comment_unless_it_is_a_word_with_its_tag(tmp_path, comment, num_comments):
    result = read_sentences(write(tmp_path, f"{comment}\nBo\tO\n\n{comment}\n{comment}\nx\tO\n"))
    assert [len(own.words) for own in result.sentences] == ([1, 1] if num_comments else [2, 3])
    assert result.num_comments == 3 * num_comments


def test_long_sentences_are_remarked_and_a_file_without_blank_lines_is_refused(tmp_path):
    lines = "w\tO\n" * 3001
    message = r"f.conll:1: 3001 words without a blank line; wanted one after each sentence, .* awk '{print} \$1 == "
    with pytest.raises(ValueError, match=message):
        read_sentences(write(tmp_path, lines))
    result = read_sentences(write(tmp_path, f"a\tO\n\n{lines}\nb\tO\n"))
    assert [len(own.words) for own in result.sentences] == [1, 3001, 1]
    assert remarks(result) == {"sentence of more than 1000 words": ["3"]}
    assert len(read_sentences(write(tmp_path, "w\tO\n" * 1000)).sentences) == 1
    with pytest.raises(ValueError, match=r"f.conll:3: 50001 words without a blank line"):
        read_sentences(write(tmp_path, "a\tO\n\n" + "w\tO\n" * 60_000))


def test_cr_alone_as_the_end_of_lines_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"f.conll:1: lines end in CR alone, .*: tr '\\r' '\\n' < .*f\.conll > conv"):
        read_sentences(write(tmp_path, "a\tO\rb\tO\r\rc\tO\r"))


@pytest.mark.parametrize(
    ("encoding", "word"), [("cp1252", "naïve–€"), ("latin-1", "Å"), ("shift_jis", "東京"), ("utf-16", "Zoë")]
)
def test_another_encoding_is_read_when_it_is_named(tmp_path, encoding, word):
    path = write(tmp_path, f"{word}\tB-x\r\nb\tO\r\n\r\nc\tO\r\n".encode(encoding))
    with pytest.raises(ValueError, match=r"f.conll:1: (not UTF-8.*--set data.encoding=cp1252|NUL)"):
        read_sentences(path)
    format = load_config(None, [f"data.encoding={encoding}"]).data.column_format()
    assert [own.words for own in read_sentences(path, format).sentences] == [(word, "b"), ("c",)]
    assert next(iter_documents(path, format=format)).words == (word, "b")


def test_bytes_that_the_named_encoding_lacks_are_refused_by_line(tmp_path):
    path = write(tmp_path, b"a\tO\n\nb\x81\tO\n")
    with pytest.raises(ValueError, match=r"f.conll:3: not cp1252: byte 0x81; give another data.encoding"):
        read_sentences(path, ColumnFormat(encoding="cp1252"))
    with pytest.raises(ValueError, match=r"not utf-16"):
        read_sentences(write(tmp_path, b"\xff\xfea\0\t\0O\0\n\0\x00\xd8"), ColumnFormat(encoding="utf-16"))


def test_plain_text_in_another_encoding_is_read_when_it_is_named(tmp_path):
    path, format = write(tmp_path, "Zoë fährt.\n".encode("cp1252"), "a.txt"), ColumnFormat(encoding="cp1252")
    assert next(iter_documents(path, "text", format=format)).text == "Zoë fährt."
    assert next(iter_documents(path, "files", format=format)).text == "Zoë fährt.\n"
    assert read_sentences(path, format, kind="text").sentences[0].words[0] == "Zoë"
    for kind in ("text", "files"):
        with pytest.raises(ValueError, match=r"not UTF-8: byte 0xeb at offset 2; .*--set data.encoding=cp1252"):
            list(iter_documents(path, kind))
