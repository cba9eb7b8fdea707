"""Schemes, spans and label ids: against seqeval, conlleval's rules and enumeration."""

from __future__ import annotations

import warnings
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB1, IOB2, IOBES, Entities

from ctxner.labels import LabelSet
from ctxner.schema import Sentence, Span
from ctxner.schemes import SCHEMES, convert, fitting_schemes, lenient_spans, repair, spans_to_tags, tags_to_spans

TYPES = ("PER", "creative-work")
ANY_TAG = st.sampled_from(["O", *(f"{prefix}-{type}" for prefix in "BIES" for type in TYPES)])


@st.composite
def spans_and_length(draw: st.DrawFn) -> tuple[tuple[Span, ...], int]:
    """Flat mentions, often adjoining, in a sentence."""
    spans, position = [], 0
    for _ in range(draw(st.integers(0, 5))):
        start = position + draw(st.integers(0, 2))
        position = start + draw(st.integers(1, 4))
        spans.append(Span(start, position, draw(st.sampled_from(TYPES))))
    return tuple(spans), position + draw(st.integers(0, 2))


def seqeval_spans(tags: list[str]) -> set[Span]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {Span(start, end + 1, type) for type, start, end in get_entities(tags)}


@settings(deadline=None)
@given(spans_and_length(), st.sampled_from(SCHEMES))
def test_spans_survive_every_scheme(mentions, scheme):
    spans, num_words = mentions
    tags = spans_to_tags(reversed(spans), num_words, scheme)
    assert len(tags) == num_words
    assert tags_to_spans(tags, scheme.lower()) == spans
    assert repair(tags, scheme) == (tags, 0)


@settings(deadline=None)
@given(spans_and_length(), st.sampled_from(SCHEMES), st.sampled_from(SCHEMES))
def test_conversion_there_and_back_is_lossless(mentions, source, target):
    tags = spans_to_tags(*mentions, source)
    assert convert(convert(tags, source, target), target, source) == tags


@settings(deadline=None)
@given(spans_and_length(), st.sampled_from([("IOB1", IOB1), ("IOB2", IOB2), ("BIOES", IOBES)]))
def test_legal_tags_mean_what_seqevals_strict_mode_reads(mentions, scheme):
    tags = list(spans_to_tags(*mentions, scheme[0]))
    strict = {Span(e.start, e.end, e.tag) for e in Entities([tags], scheme[1]).entities[0]}
    assert strict == set(mentions[0])


def test_lenient_spans_equal_seqeval_on_every_short_sequence():
    tags = ["O", *(f"{prefix}-{type}" for prefix in "BIES" for type in "XY")]
    for length in (1, 2, 3, 4):
        for sequence in product(tags, repeat=length):
            spans = lenient_spans(sequence)
            assert set(spans) == seqeval_spans(list(sequence)), sequence
            assert list(spans) == sorted(spans)


@settings(deadline=None)
@given(st.lists(ANY_TAG, max_size=30))
def test_lenient_spans_equal_seqeval_on_long_sequences(tags):
    assert set(lenient_spans(tags)) == seqeval_spans(tags)


@pytest.mark.parametrize(
    ("scheme", "tags", "types"),
    [
        ("BILOU", "B-a I-a L-a O U-b U-b", [(0, 3, "a"), (4, 5, "b"), (5, 6, "b")]),
        ("BMES", "B-a M-a E-a O S-b S-b", [(0, 3, "a"), (4, 5, "b"), (5, 6, "b")]),
        ("BMEWO", "B-a M-a E-a O W-b W-b", [(0, 3, "a"), (4, 5, "b"), (5, 6, "b")]),
        ("IOB1", "I-a B-a I-a I-b O", [(0, 1, "a"), (1, 3, "a"), (3, 4, "b")]),
        ("IOB2", "B-a B-a I-a B-b O", [(0, 1, "a"), (1, 3, "a"), (3, 4, "b")]),
        ("BIOES", "S-a B-a E-a S-b O", [(0, 1, "a"), (1, 3, "a"), (3, 4, "b")]),
    ],
)
def test_each_scheme_reads_as_written_in_its_definition(scheme, tags, types):
    assert tags_to_spans(tags.split(), scheme) == tuple(Span(*span) for span in types)


@pytest.mark.parametrize(
    ("scheme", "tags", "index", "wanted"),
    [
        ("IOB2", "O I-a", 1, "wanted B-a"),
        ("IOB2", "B-a I-b", 1, "wanted B-b"),
        ("IOB1", "B-a", 0, "wanted I-a"),
        ("IOB1", "I-a B-b", 1, "wanted I-b"),
        ("BIOES", "B-a O", 1, "wanted I-a or E-a"),
        ("BIOES", "E-a", 0, "wanted O, B-a or S-a"),
        ("BIOES", "O B-a I-a", 2, "wanted E-a or S-a"),
        ("BMEWO", "B-a B-a", 1, "wanted M-a or E-a"),
        ("BMEWO", "O M-a", 1, "wanted O, B-a or W-a"),
        ("BILOU", "B-a O", 1, "wanted I-a or L-a"),
        ("BILOU", "O B-a", 1, "wanted L-a or U-a"),
        ("IOB2", "O E-a", 1, "wanted O, B-TYPE, I-TYPE"),
        ("BIOES", "O NN", 1, "wanted O, B-TYPE"),
        ("BIOES", "B-", 0, "'B-' is not a tag"),
        ("BIOES", "o", 0, "'o' is not a tag"),
    ],
)
def test_illegal_tags_are_refused_with_place_and_remedy(scheme, tags, index, wanted):
    with pytest.raises(ValueError, match=f"^x.conll: word {index}: ") as raised:
        tags_to_spans(tags.split(), scheme, source="x.conll")
    assert wanted in str(raised.value)


def test_legal_tags_are_exactly_those_that_spans_can_produce():
    prefixes_of = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIES", "BMEWO": "BMEW", "BILOU": "BILU", "BMES": "BMES"}
    for scheme, prefixes in prefixes_of.items():
        every = product(["O", *(f"{prefix}-{type}" for prefix in prefixes for type in "XY")], repeat=3)
        legal = {tags for tags in every if _is_legal(tags, scheme)}
        assert legal == {spans_to_tags(spans, 3, scheme) for spans in _all_flat_spans(3)}


def _is_legal(tags, scheme):
    try:
        tags_to_spans(tags, scheme)
    except ValueError:
        return False
    return True


def _all_flat_spans(num_words, start=0):
    yield ()
    for first in range(start, num_words):
        for end in range(first + 1, num_words + 1):
            for type in "XY":
                for rest in _all_flat_spans(num_words, end):
                    yield (Span(first, end, type), *rest)


@settings(deadline=None)
@given(st.lists(ANY_TAG, max_size=12))
def test_repair_keeps_the_lenient_mentions_counts_changes_and_is_idempotent(tags):
    repaired, num_changed = repair(tags, "BIOES")
    assert tags_to_spans(repaired) == lenient_spans(tags)
    assert num_changed == sum(a != b for a, b in zip(tags, repaired, strict=True))
    assert repair(repaired, "BIOES") == (repaired, 0)


def test_repair_of_iob2_changes_only_the_missing_begin():
    assert repair(["O", "I-a", "I-a", "I-b"], "IOB2") == (("O", "B-a", "I-a", "B-b"), 2)


def test_repair_does_not_guess_at_a_malformed_tag():
    with pytest.raises(ValueError, match="word 1: 'NN'"):
        repair(["O", "NN"], "IOB2")


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([Span(0, 2, "a"), Span(1, 3, "b")], "overlaps"),
        ([Span(0, 5, "a")], "does not fit 3 words"),
        ([Span(-1, 1, "a")], "does not fit"),
        ([Span(1, 1, "a")], "does not fit"),
        ([Span(0, 1, "")], "and a type"),
    ],
)
def test_spans_that_tags_cannot_express_are_refused(spans, message):
    with pytest.raises(ValueError, match=message):
        spans_to_tags(spans, 3)


def test_an_unknown_scheme_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'IOBX'; wanted one of IOB2, IOB1, BIOES, BMEWO, BILOU, BMES"):
        tags_to_spans(["O"], "IOBX")


@pytest.mark.parametrize(("name", "tag"), [("bio", "B-a"), ("IOBES", "S-a"), ("biluo", "U-a"), ("BIOUL", "U-a")])
def test_schemes_have_other_names_in_any_case(name, tag):
    assert tags_to_spans([tag], name) == (Span(0, 1, "a"),)


def test_schemes_that_allow_a_sentence_read_the_same_mentions():
    """So a file needs no scheme where several fit: by enumeration of all sentences of three words."""
    tags = ["O", *(f"{prefix}-{type}" for prefix in "BIESMWLU" for type in "XY")]
    for sequence in product(tags, repeat=3):
        legal = [name for name in SCHEMES if _is_legal(sequence, name)]
        assert fitting_schemes(pairwise(("O", *sequence, "O"))) == tuple(legal), sequence
        assert len({tags_to_spans(sequence, name) for name in legal}) <= 1, sequence


def test_label_ids_begin_with_outside_and_follow_the_types():
    labels = LabelSet(("b", "a"))
    assert labels.tags == ("O", "B-b", "I-b", "E-b", "S-b", "B-a", "I-a", "E-a", "S-a")
    assert len(labels) == 9
    assert labels.encode(["S-a", "O", "B-b", "E-b"]) == [8, 0, 1, 3]
    assert labels.decode([8, 0, 1, 3]) == ("S-a", "O", "B-b", "E-b")


def test_legal_transitions_allow_exactly_the_legal_sequences():
    labels = LabelSet(("X", "Y"))
    start, matrix, end = labels.legal_transitions()
    for length in (1, 2, 3):
        for ids in product(range(len(labels)), repeat=length):
            steps = all(matrix[a][b] for a, b in pairwise(ids))
            assert (start[ids[0]] and steps and end[ids[-1]]) == _is_legal(labels.decode(ids), "BIOES")


def test_an_unknown_type_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"test-7: word 1: unknown tag 'S-gene'.*types a, b"):
        LabelSet(("a", "b")).encode(["O", "S-gene"], source="test-7")


@pytest.mark.parametrize("id", [-1, 5])
def test_ids_out_of_range_are_refused(id):
    with pytest.raises(ValueError, match=r"outside 0\.\.4"):
        LabelSet(("a",)).decode([id])


def test_types_come_sorted_from_tagged_sentences():
    sentences = [Sentence("0", ("x", "y"), ("S-b", "S-a")), Sentence("1", ("x",))]
    assert LabelSet.from_sentences(sentences).types == ("a", "b")


@pytest.mark.parametrize(
    ("sentences", "message"),
    [([], "no sentence has tags"), ([Sentence("0", ("x",))], "no sentence"), ([Sentence("0", ("x",), ("O",))], "is O")],
)
def test_label_sets_need_a_mention_to_come_from(sentences, message):
    with pytest.raises(ValueError, match=message):
        LabelSet.from_sentences(sentences)


@pytest.mark.parametrize("types", [(), ("a", "a"), ("",)])
def test_label_sets_refuse_no_double_or_empty_types(types):
    with pytest.raises(ValueError, match="type"):
        LabelSet(types)
