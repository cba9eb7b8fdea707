"""Texts with gold: split as users' texts are, with every mention kept, whether tags can express it or not."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.evaluation.scores import count_spans, mention_forms, score_spans, scores_by_seen, sentence_counts
from ctxner.files.columns import ColumnFormat, write_columns
from ctxner.files.jsonl import write_jsonl
from ctxner.files.sentences import iter_sentences, read_sentences
from ctxner.labels import LabelSet, gold_spans, mention_text, training_tags
from ctxner.schema import Mention, Sentence, Span
from ctxner.schemes import tags_to_spans
from ctxner.texts import sentences_of
from tests.cpu_time import assert_linear

TEXT = st.text(max_size=80) | st.text(alphabet="aZ9 .,'’-_@#:/&;s!?\n\t\ud800\u200d\u200b\u0301日。👍🏽ि", max_size=80)
Gold = tuple[int, int, str]


def record(text: str, *entities: Gold, **fields: Any) -> dict[str, Any]:
    return {"text": text, "entities": [list(entity) for entity in entities], **fields}


def written(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "some.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in records))
    return path


def read(folder: Path, *records: dict[str, Any], **options: Any) -> list[Sentence]:
    return read_sentences(written(folder, *records), ColumnFormat(**options) if options else None).sentences


@settings(max_examples=300, deadline=None)
@given(TEXT, st.data())
def test_the_sentences_are_those_that_are_tagged_and_no_mention_is_lost(tmp_path_factory, text, data):
    clean = re.sub("[\ud800-\udfff]", "\ufffd", text)
    wanted = sentences_of(clean, "d")
    words = [offset for own in wanted for offset in own.offsets]
    inked = [place for start, end in words for place in range(start, end)]
    ends = data.draw(st.lists(st.tuples(*[st.sampled_from(inked)] * 2), max_size=5)) if inked else []
    mentions = {(min(pair), max(pair) + 1, "ab"[pair[0] % 2]) for pair in ends}
    path = written(tmp_path_factory.mktemp("gold"), {"text": "x"}, record(text, *mentions, id="d"))
    tagged, untagged = (read_sentences(path, format).sentences[1:] for format in (None, ColumnFormat(tag_column=None)))
    for sentences in (tagged, untagged):
        assert [(own.words, own.offsets, own.text) for own in sentences] == [
            (own.words, own.offsets, own.text) for own in wanted
        ]
        assert [own.id for own in sentences] == (["d"] if len(wanted) == 1 else [own.id for own in wanted])
        assert all(own.document == "d" and own.text is sentences[0].text for own in sentences)
    assert all(own.tags is None and not own.beyond_tags for own in untagged)
    by_tags = {
        (own.offsets[span.start][0], own.offsets[span.end - 1][1], span.type)
        for own in tagged
        for span in tags_to_spans(own.tags)
    }
    beyond = {(mention.start, mention.end, mention.type) for own in tagged for mention in own.beyond_tags}
    assert (by_tags | beyond, by_tags & beyond) == (mentions, set())
    assert all(clean[one.start : one.end] == one.text for own in tagged for one in own.beyond_tags)
    for start, end, _ in beyond:  # cut, going on, or overlapping a mention that is not shorter
        inside = any(start in dict(own.offsets) and end in dict(own.offsets).values() for own in wanted)
        assert not inside or any(a < end and start < b and b - a >= end - start for a, b, _ in by_tags)
    places = [span for own in tagged for span in gold_spans(own) if span.start >= 0]
    runs = {
        (own.offsets[a][0], own.offsets[b][1])
        for own in wanted
        for a in range(len(own.words))
        for b in range(a, len(own.words))
    }
    assert len(places) == sum((start, end) in runs for start, end, _ in mentions)
    assert sum(len(gold_spans(own)) for own in tagged) == len(mentions)


def test_a_mention_that_cuts_a_word_is_no_tag_and_counts_as_missed(tmp_path, caplog):
    text = "anti-Trump rally in Rome"
    with caplog.at_level(logging.WARNING):
        [sentence] = read(tmp_path, record(text, (5, 10, "per"), (20, 24, "loc")))
    assert sentence.words == ("anti-Trump", "rally", "in", "Rome")
    assert sentence.tags == ("O", "O", "O", "S-loc")
    assert sentence.beyond_tags == (Mention(5, 10, "per", "Trump"),)
    message = "some.jsonl: mentions that cut a word: 1 times, first {}:1: [5, 10, 'per'] 'Trump'"
    assert message.format(tmp_path / "some.jsonl") in caplog.text
    gold = gold_spans(sentence)
    for answers in ([Span(3, 4, "loc")], [Span(0, 1, "per"), Span(3, 4, "loc")]):  # nothing that is found is this one
        scores = score_spans([gold], [answers])
        assert (scores.micro.num_correct, scores.micro.num_gold) == (1, 2)
        assert (scores.per_type["per"].recall, scores.per_type["loc"].f1) == (0.0, 1.0)
        assert sentence_counts([gold], [answers]).tolist() == [[1, len(answers), 2]]
    assert [mention_text(sentence, span) for span in gold] == ["Trump", "Rome"]
    assert mention_forms([sentence]) == {"trump", "rome"}
    by_seen = scores_by_seen([sentence], [[]], {"trump"})
    assert (by_seen["seen"].num_gold, by_seen["unseen"].num_gold) == (1, 1)


def test_two_mentions_of_a_type_that_cut_words_are_both_missed(tmp_path):
    [sentence] = read(tmp_path, record("unBo unAl", (2, 4, "per"), (7, 9, "per")))
    assert count_spans([gold_spans(sentence)], [[]]).per_type["per"].num_gold == 2


def test_training_sees_the_words_that_a_mention_cuts_where_they_are_free(tmp_path):
    text = "unBo-Al met unAl in New-York. Go"
    sentences = read(
        tmp_path,
        record(text, (2, 7, "per"), (2, 4, "x"), (14, 16, "per"), (20, 23, "y"), (20, 28, "loc"), (26, 32, "z")),
    )
    assert [own.words for own in sentences] == [("unBo-Al", "met", "unAl", "in", "New-York", "."), ("Go",)]
    assert [training_tags(own) for own in sentences] == [("S-per", "O", "S-per", "O", "S-loc", "O"), ("O",)]
    assert sentences[0].tags == ("O", "O", "O", "O", "S-loc", "O")
    assert LabelSet.from_sentences(sentences).types == ("loc", "per")
    assert [one.type for one in sentences[0].beyond_tags] == ["x", "per", "per", "y", "z"]
    assert sentences[1].beyond_tags == ()


def test_a_mention_over_two_sentences_is_missed_in_the_first_and_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        first, second = read(tmp_path, record("Go to St. Louis! Now. Yes", (6, 20, "loc"), (22, 25, "x")))[-2:]
    assert "mentions that go on in another sentence: 1 times, first" in caplog.text
    sentences = read(tmp_path, record("Go to St. Louis! Now. Yes", (6, 20, "loc"), (22, 25, "x")))
    assert [own.words for own in sentences] == [("Go", "to", "St", ".", "Louis", "!"), ("Now", "."), ("Yes",)]
    assert [len(own.beyond_tags) for own in sentences] == [1, 0, 0]
    assert [training_tags(own) for own in sentences] == [("O",) * 6, ("O",) * 2, ("S-x",)]
    assert [len(gold_spans(own)) for own in sentences] == [1, 0, 1]
    assert (first.id, second.id) == ("some-0-1", "some-0-2")


def test_of_overlapping_mentions_the_longest_is_tagged_and_the_others_still_count(tmp_path, caplog):
    text = "University of New York"
    mentions = [(14, 22, "loc"), (0, 22, "org"), (0, 22, "org"), (18, 22, "loc"), (0, 22, "fac")]
    with caplog.at_level(logging.WARNING):
        [sentence] = read(tmp_path, record(text, *mentions))
    assert sentence.tags == ("B-org", "I-org", "I-org", "E-org")
    assert "mentions that overlap a longer one: 3 times" in caplog.text
    assert "mentions given twice: 1 times" in caplog.text
    assert set(gold_spans(sentence)) == {Span(0, 4, "org"), Span(0, 4, "fac"), Span(2, 4, "loc"), Span(3, 4, "loc")}
    inner = score_spans([gold_spans(sentence)], [[Span(2, 4, "loc")]])
    assert (inner.micro.num_correct, inner.precision, inner.micro.num_gold) == (1, 1.0, 4)
    assert training_tags(sentence) == sentence.tags


def test_of_equally_long_mentions_the_first_is_tagged(tmp_path):
    [sentence] = read(tmp_path, record("aa bb cc", (3, 8, "x"), (0, 5, "x")))
    assert sentence.tags == ("B-x", "E-x", "O")


def test_overlapping_mentions_are_refused_where_asked_and_identical_ones_are_not(tmp_path):
    refused = {"scheme": "BIOES", "overlaps": "refuse"}
    assert len(read(tmp_path, record("a b c", (0, 3, "x"), (0, 3, "x"), (4, 5, "x")), **refused)) == 1
    told = r"some\.jsonl:2: entities \[0, 3, 'x'\] and \[2, 5, 'x'\] overlap.*--set data\.overlaps=longest"
    with pytest.raises(ValueError, match=told):
        read(tmp_path, record("a"), record("a b c", (2, 5, "x"), (0, 3, "x")), **refused)
    assert [own.tags for own in read(tmp_path, record("a b c", (2, 5, "x"), (0, 3, "x")))] == [("B-x", "E-x", "O")]


def test_white_space_at_a_mentions_ends_does_not_count(tmp_path):
    [sentence] = read(tmp_path, record(" Ann  sings", (0, 5, "per"), (1, 4, "per")))
    assert (sentence.tags, sentence.beyond_tags) == (("S-per", "O"), ())


def test_words_with_offsets_keep_what_tags_cannot_express(tmp_path):
    text = "anti-Trump rally. New York City"
    sentences = read(tmp_path, record(text, (5, 10, "per"), (18, 31, "loc"), (18, 26, "loc"), (12, 20, "x")))
    write_jsonl(sentences, tmp_path / "words.jsonl")
    again = read_sentences(tmp_path / "words.jsonl").sentences
    for old, new in zip(sentences, again, strict=True):
        assert (new.id, new.words, new.tags, new.offsets) == (old.id, old.words, old.tags, old.offsets)
        assert (new.document, new.beyond_tags) == (old.document, old.beyond_tags)
        assert (gold_spans(new), training_tags(new)) == (gold_spans(old), training_tags(old))
    rows = [{name: asdict(own)[name] for name in ("words", "tags", "offsets", "beyond_tags")} for own in sentences]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "words.parquet")
    parquet = read_sentences(tmp_path / "words.parquet", ColumnFormat(scheme="BIOES")).sentences
    assert [gold_spans(own) for own in parquet] == [gold_spans(own) for own in sentences]
    plain = read_sentences(tmp_path / "words.jsonl", ColumnFormat(tag_column=None)).sentences
    assert {(own.tags, own.beyond_tags) for own in plain} == {(None, ())}
    with pytest.raises(ValueError, match=r"'some-0-0': tags cannot express the mention 'Trump' \(per\).*`--to jsonl`"):
        write_columns(sentences, tmp_path / "words.conll")


def test_ids_of_the_sentences_of_texts_are_unique_in_a_file(tmp_path):
    two = "One. Two."
    path = written(tmp_path, record(two, id="a"), record("Three.", id="b"), record("Four", id="a-1"))
    with pytest.raises(ValueError, match=r":3: id 'a-1' was used before at .*:1; ids"):
        read_sentences(path)
    path = written(tmp_path, record(two, id="a"), record("Three.", id="a"))
    with pytest.raises(ValueError, match=r":2: id 'a' was used before at .*:1; ids"):
        read_sentences(path)
    assert [own.id for own in read(tmp_path, record(two, id="a"), record("x", id="a-2"))] == ["a-0", "a-1", "a-2"]


def test_many_mentions_in_one_text_take_linear_time(tmp_path):
    def work(words):
        nested = [(5 * place, 5 * place + 4 + 5 * (place % 3), "x") for place in range(words - 10)]
        sentences = read(tmp_path, record("word " * words, *nested))
        assert sum(len(gold_spans(own)) for own in sentences) == len(nested)

    assert_linear(work, 2_000, runs=1)


def test_where_texts_have_words_too_the_words_count_and_their_offsets_refer_to_the_text(tmp_path):
    both = {"text": "New York", "words": ["New", "York"], "offsets": [[0, 3], [4, 8]]}
    path = written(tmp_path, both)
    pq.write_table(pa.Table.from_pylist([both]), tmp_path / "some.parquet")
    for own in (*iter_sentences(path), *iter_sentences(tmp_path / "some.parquet")):
        assert own == Sentence("some-0", ("New", "York"), None, ((0, 3), (4, 8)), "New York")
