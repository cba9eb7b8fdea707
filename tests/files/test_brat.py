"""Folders of texts annotated with brat, in its standoff format: https://brat.nlplab.org/standoff.html."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxner.files.columns import ColumnFormat
from ctxner.files.documents import Document, iter_documents
from ctxner.files.lines import ReadCounts
from ctxner.files.sentences import iter_sentences, read_sentences
from ctxner.schemes import tags_to_spans
from ctxner.training.export.provenance import file_hashes

TEXT = "Sony announced today\nthat North and South\nAmerica buy \U0001f600 Zoë's phones.\r\n"
#       0    5         15    21   26    32  36    42      50  54 55 ...
ANNOTATIONS = """\
T1\tOrganization 0 4\tSony
E1\tAnnounce:T2 Source:T1
T2\tAnnounce 5 14\tannounced
R1\tOrigin Arg1:T1 Arg2:T3
T3\tLocation 36 41;42 49\tSouth America
T5\tPerson 56 59\tZoë
*\tEquiv T1 T4
A1\tNegated E1
N1\tReference T1 Wikidata:Q41187\tSony
#1\tAnnotatorNotes T1\tsure

"""
WRAPPED_LINES = "mentions over a line break (--set data.wrapped=true makes it a space, if the lines are wrapped)"
SPANS = [(0, 4, "Organization"), (5, 14, "Announce"), (36, 49, "Location"), (56, 59, "Person")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "corpus"
    (path / "deep").mkdir(parents=True)
    for name, text, standoff in (("b", TEXT, ANNOTATIONS), ("deep/a", "Nothing here.", "")):
        (path / f"{name}.txt").write_bytes(text.encode())
        (path / f"{name}.ann").write_text(standoff)
    (path / "annotation.conf").write_text("[entities]\n")
    return path


def mentions(sentences) -> list[tuple[int, int, str]]:
    """By characters, those that go on in another sentence too: a line break ends a sentence."""
    spans = [
        (sentence.offsets[span.start][0], sentence.offsets[span.end - 1][1], span.type)
        for sentence in sentences
        for span in tags_to_spans(sentence.tags)
    ]
    beyond = [(own.start, own.end, own.type) for sentence in sentences for own in sentence.beyond_tags]
    return sorted(spans + beyond)


def test_text_bound_annotations_are_mentions_and_the_rest_is_counted(folder):
    assert [TEXT[start:end].split() for start, end, _ in SPANS] == [
        ["Sony"],
        ["announced"],
        ["South", "America"],
        ["Zoë"],
    ]
    counts = ReadCounts()
    sentences = list(iter_sentences(folder, counts=counts))
    assert [(own.id, own.document) for own in sentences] == [
        ("corpus/b-0", "corpus/b"),
        ("corpus/b-1", "corpus/b"),
        ("corpus/b-2", "corpus/b"),
        ("corpus/deep/a", "corpus/deep/a"),
    ]
    assert (mentions(sentences[:3]), mentions(sentences[3:])) == (SPANS, [])
    assert counts.recognised == {str(folder): "brat standoff"}
    what = ("events", "relations", "equivalences", "attributes", "normalizations", "notes")
    assert {name: own.count for name, own in counts.remarks.items()} == {
        f"brat's {name} are not read": 1 for name in what
    } | {"mentions that go on in another sentence": 1, WRAPPED_LINES: 1}
    assert counts.remarks["brat's events are not read"].places == [f"{folder}/b.ann:2"]


@pytest.mark.parametrize("name", ["b.ann", "b.txt", "b.*"])
def test_a_document_may_be_named_alone(folder, name):
    sentences = read_sentences(folder / name).sentences
    assert ({sentence.document for sentence in sentences}, mentions(sentences)) == ({"b"}, SPANS)


def test_discontinuous_mentions_are_read_as_their_whole_extent_and_counted(folder):
    (folder / "b.ann").write_text("T1\tLocation 26 31;42 49\tNorth America\n")
    counts = ReadCounts()
    assert mentions(list(iter_sentences(folder / "b.ann", counts=counts))) == [(26, 49, "Location")]
    remark = counts.remarks["discontinuous mention, read as its whole extent"]
    assert (remark.count, remark.places) == (1, [f"{folder}/b.ann:1"])


def test_a_text_without_annotations_is_left_out_of_gold_and_tagged(folder):
    (folder / "README.txt").write_text("How we annotated.")
    counts = ReadCounts()
    assert {sentence.document for sentence in iter_sentences(folder, counts=counts)} == {"corpus/b", "corpus/deep/a"}
    remark = counts.remarks["text without .ann file, not read"]
    assert (remark.count, remark.places) == (1, [f"{folder}/README.txt"])
    assert list(iter_documents(folder)) == [
        Document("corpus/README", "How we annotated."),
        Document("corpus/b", TEXT),
        Document("corpus/deep/a", "Nothing here."),
    ]


def test_a_byte_order_mark_counts_as_brat_counts_it(folder):
    (folder / "b.txt").write_bytes("\ufeffSony".encode())
    (folder / "b.ann").write_text("T1\tOrganization 1 5\tSony\n")
    assert mentions(read_sentences(folder / "b.ann").sentences) == [(1, 5, "Organization")]


@pytest.mark.parametrize("name", ["b.txt", "b.ann", "deep/a.txt"])
def test_the_hashes_of_a_folder_change_with_each_of_its_files(folder, name):
    before = file_hashes(folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    assert {key for key, value in file_hashes(folder).items() if before[key] != value} == {name}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T1\tPerson 0 4\tBob", "'0 4' covers 'Sony' in the text, but the line says 'Bob'; was the text changed"),
        ("T1\tPerson 0 400\tSony", "offsets '0 400'; wanted start < end <= 71, the length of the text"),
        ("T1\tPerson 4 4\t", "offsets '4 4'; wanted start < end"),
        ("T1\tPerson 0 99999999999999999999999999\tx", "offsets '0 9{26}'; wanted start < end"),
        ("T1 Person 0 4 Sony", "is no annotation; wanted e"),
        ("T1\tPerson -1 4\tx", "is no annotation"),
        ("hello", "'hello' is no annotation"),
    ],
)
def test_bad_lines_are_refused_with_their_place(folder, line, message):
    assert len(TEXT) == 71
    (folder / "b.ann").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=rf"b\.ann:1: .*{message}"):
        read_sentences(folder)
    sentences = read_sentences(folder, ColumnFormat(tag_column=None)).sentences
    assert {sentence.tags for sentence in sentences} == {None}  # where gold is not wanted it is no reason to refuse


def test_annotations_without_their_text_and_texts_that_are_not_utf8_are_refused(folder):
    (folder / "c.ann").write_text("")
    with pytest.raises(ValueError, match=r"c\.ann: no c\.txt beside it"):
        read_sentences(folder)
    (folder / "c.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"c\.txt: not UTF-8 at byte 3"):
        read_sentences(folder)


WRAPPED = "Ann Lee and Bob\r\nRay Cole sing in New\nYork.\n\nTitle\n \nBob sings."


def test_wrapped_lines_are_joined_by_a_setting_alike_in_training_and_tagging(tmp_path):
    """A line break ends a sentence in brat too (its ssplit.py), so that it takes a setting."""
    (tmp_path / "a.txt").write_bytes(WRAPPED.encode())
    places = [(WRAPPED.index("Bob"), WRAPPED.index("Ray") + 3), (WRAPPED.index("New"), WRAPPED.index("York") + 4)]
    covered = [" ".join(WRAPPED[start:end].split()) for start, end in places]
    lines = (f"T{start}\tx {start} {end}\t{text}\n" for (start, end), text in zip(places, covered, strict=True))
    (tmp_path / "a.ann").write_text("".join(lines))
    counts = ReadCounts()
    as_it_is = list(iter_sentences(tmp_path, counts=counts))
    assert not any(tags_to_spans(sentence.tags) for sentence in as_it_is)
    assert (counts.remarks[WRAPPED_LINES].count, counts.remarks[WRAPPED_LINES].places[0]) == (
        2,
        f"{tmp_path / 'a.ann'}:1",
    )
    counts, joined = ReadCounts(), ColumnFormat(wrapped=True)
    sentences = list(iter_sentences(tmp_path, joined, counts=counts))
    assert mentions(sentences) == [(start, end, "x") for start, end in places]
    assert not any(sentence.beyond_tags for sentence in sentences)
    assert [" ".join(sentence.words) for sentence in sentences] == [
        "Ann Lee and Bob Ray Cole sing in New York .",
        "Title",
        "Bob sings .",
    ]
    assert counts.remarks["texts whose wrapped lines are joined (data.wrapped)"].count == 1
    assert WRAPPED_LINES not in counts.remarks
    (document,) = iter_documents(tmp_path / "a.txt", "files", format=joined)
    assert document.text == sentences[0].text
    assert len(document.text) == len(WRAPPED)
