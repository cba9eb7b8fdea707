"""spaCy's `.spacy` files: https://spacy.io/api/data-formats#binary-training and https://spacy.io/api/docbin."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import pytest

from ctxner.files.documents import iter_documents
from ctxner.files.lines import ReadCounts
from ctxner.files.sentences import iter_sentences, read_sentences
from ctxner.schemes import tags_to_spans


def test_without_spacy_the_way_out_is_said(tmp_path, monkeypatch):
    """Where spaCy is installed, its import is made to fail as where it is not."""
    (tmp_path / "a.spacy").write_bytes(b"x")
    for name in ("spacy", "spacy.tokens"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"a\.spacy: .* pip install 'ctxner\[spacy\]'; or export"):
        read_sentences(tmp_path / "a.spacy")


def docbin(path: Path, *docs) -> Path:
    from spacy.tokens import DocBin

    DocBin(docs=docs).to_disk(path)
    return path


@pytest.fixture
def nlp():
    spacy = pytest.importorskip("spacy", reason="spaCy is the extra 'spacy'")
    return spacy.blank("en")


def made(nlp, text: str, entities: list[tuple[int, int, str]] | None):
    doc = nlp.make_doc(text)
    if entities is not None:
        doc.set_ents([doc.char_span(*entity) for entity in entities], default="outside")
    return doc


def test_entities_of_a_docbin_stand_where_spacy_has_them(tmp_path, nlp):
    """The example of spaCy's documentation, an emoji before it, and a document without annotation."""
    text = "\U0001f600 Tokyo Tower is 333m\n\ntall."
    docs = [made(nlp, text, [(2, 13, "BUILDING")]), made(nlp, "Nobody.", []), made(nlp, "Tokyo", None)]
    path, counts = docbin(tmp_path / "a.spacy", *docs), ReadCounts()
    first, second, third = iter_sentences(path, counts=counts)
    (span,) = tags_to_spans(first.tags)
    assert (first.offsets[span.start][0], first.offsets[span.end - 1][1], span.type) == (2, 13, "BUILDING")
    assert (set(second.tags), third.tags, third.id) == ({"O"}, None, "a-2")
    assert counts.recognised == {str(path): "spaCy DocBin"}
    assert [own.text for own in iter_documents(path)] == [text, "Nobody.", "Tokyo"]


def test_words_of_unknown_spacing_stay_words(tmp_path, nlp):
    """What `spacy convert` makes of CoNLL files."""
    from spacy.tokens import Doc

    words, tags = ["Don't", "visit", "New", "York"], ["O", "O", "B-LOC", "I-LOC"]
    path = docbin(tmp_path / "a.spacy", Doc(nlp.vocab, words=words, ents=tags))
    (sentence,) = read_sentences(path).sentences
    assert (sentence.words, sentence.tags) == (tuple(words), ("O", "O", "B-LOC", "E-LOC"))


def test_span_groups_are_counted_or_refused(tmp_path, nlp):
    doc = made(nlp, "Ann in Rome", None)
    doc.spans["sc"] = [doc.char_span(0, 3, "PER")]
    with pytest.raises(ValueError, match=r"a\.spacy: document 1: it has span groups \(sc\) and no entities"):
        read_sentences(docbin(tmp_path / "a.spacy", doc))
    doc.set_ents([doc.char_span(7, 11, "LOC")], default="missing")
    counts = ReadCounts()
    (sentence,) = iter_sentences(docbin(tmp_path / "a.spacy", doc), counts=counts)
    assert sentence.tags == ("O", "O", "S-LOC")
    assert set(counts.remarks) == {
        "spaCy's span groups are not read",
        "tokens without entity annotation, taken as no mention",
    }


@pytest.mark.parametrize(
    "content", [b"", b"text", zlib.compress(b"\xc1"), zlib.compress(b"\x80"), zlib.compress(b"\x91" * 9999)]
)
def test_what_is_no_docbin_is_refused(tmp_path, nlp, content):
    (tmp_path / "a.spacy").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.spacy: not readable as spaCy's DocBin"):
        read_sentences(tmp_path / "a.spacy")


def test_a_file_that_unpacks_beyond_bounds_is_refused(tmp_path, nlp, monkeypatch):
    monkeypatch.setattr("ctxner.files.docbin._MAX_BYTES", 1000)
    (tmp_path / "a.spacy").write_bytes(zlib.compress(bytes(100_000)))
    with pytest.raises(ValueError, match=r"more than 1,000 bytes once decompressed; split it"):
        read_sentences(tmp_path / "a.spacy")
