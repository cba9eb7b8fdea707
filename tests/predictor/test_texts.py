"""Texts: exact offsets on any text, sentences and word lists alike, and passages for each."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.schema import Example, Passage, Sentence
from ctxner.texts import as_scored, sentences_of

pytestmark = pytest.mark.numeric


TEXT = st.text(st.characters(), max_size=50) | st.text(alphabet="Paz9 .,'\n\r\t\ud800\u200d\u0301日👍🏽é", max_size=80)


def _check_offsets(tagger, text):
    position = 0
    for entity in tagger.tag(text):
        assert text[entity.start : entity.end] == entity.text
        assert position <= entity.start < entity.end <= len(text)
        assert entity.text.strip() == entity.text
        assert 0 < entity.confidence <= 1
        position = entity.end


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_offsets_are_exact_on_any_text(tagger, text):
    _check_offsets(tagger, text)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None)
@given(text=TEXT)
def test_offsets_are_exact_on_thousands_of_texts(tagger, text):
    _check_offsets(tagger, text)


def test_the_sentences_of_a_text_name_it_as_their_document():
    assert [(own.id, own.document) for own in sentences_of("He ran. She too.", "t")] == [("t-0", "t"), ("t-1", "t")]
    assert sentences_of(["He", "ran"], "t")[0].document is None  # a sentence, of which nothing tells the document


def test_offsets_run_through_all_sentences_of_a_text(tagger):
    text = "Paris Hilton sings.\r\n\r\n👍🏽 Mu\u0308ller thinks so! Is 日本 far?\nYes, London is. " * 6
    found = tagger.tag(text)
    assert all(text[entity.start : entity.end] == entity.text for entity in found)
    sentences = sentences_of(text, "t")
    assert len(sentences) > 18
    starts = [sentence.offsets[0][0] for sentence in sentences]
    assert len({sum(entity.start >= start for start in starts) for entity in found}) > 6
    wanted = [
        entity
        for one in sentences
        for own in [tagger.predict([Example(one)], view="plain")[0]]
        for entity in own.entities
    ]
    assert [(entity.start, entity.end, entity.type) for entity in found] == [(e.start, e.end, e.type) for e in wanted]
    assert [sentence.words for sentence in sentences[:2]] == [
        ("Paris", "Hilton", "sings", "."), ("👍🏽", "Mu\u0308ller", "thinks", "so", "!"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "   ", "\r\n\t \u200b", "\ud800", "\x00\x07"])
def test_a_text_without_words_has_no_entities(tagger, text):
    assert tagger.tag(text) == []
    assert tagger.tag([text, "Paris Hilton sings", []])[::2] == [[], []]
    assert tagger.tag(text, passages=["Paris is a city"]) == []


def test_no_texts_have_no_entities(tagger):
    assert tagger.tag([]) == []


@pytest.mark.parametrize("words", [["word"] * 10_000, ["x" * 100_000, "b"], ["", "\ufe0f", "\x00"], ["\ud83d", "a"]])
def test_hostile_word_lists_are_tagged_whole(tagger, words):
    (found,) = tagger.predict([Example(Sentence("s", tuple(words)))], view="context")
    assert len(found.tags) == len(words)
    text = " ".join(words)
    assert all(text[entity.start : entity.end] == entity.text for entity in tagger.tag([words])[0])


def test_texts_word_lists_and_sentences_are_tagged_alike(tagger):
    words = ("Paris", "Hilton", "sings", "in", "London", "so", "loooong")
    text = " ".join(words)
    alone = tagger.tag(text)
    assert alone
    both = tagger.tag([text, list(words), words, Sentence("own", words)])
    for found in both:
        assert [(e.text, e.type, e.start, e.end) for e in found] == [(e.text, e.type, e.start, e.end) for e in alone]


def test_a_sentence_cut_from_a_text_keeps_the_offsets_into_it(tagger):
    sentence = sentences_of("\n\n  Paris Hilton sings in London", "t")[0]
    (shifted,), (alone,) = tagger.tag([sentence]), tagger.tag([list(sentence.words)])
    assert [entity.start - 4 for entity in shifted] == [entity.start for entity in alone]
    assert shifted


def _answers(entities) -> list:
    return [(entity.start, entity.end, entity.type, round(entity.confidence, 3)) for entity in entities]


def test_passages_of_one_text_switch_on_the_context_view(tagger):
    text, passages = "Paris Hilton sings", ["Paris Hilton is a singer", Passage("p", "wiki", "London")]
    example = Example(sentences_of(text, "0")[0], as_scored(passages))
    (wanted,) = tagger.predict([example], view="context")
    assert wanted.passages[0].num_pieces
    assert _answers(tagger.tag(text, passages=passages)) == _answers(wanted.entities)
    assert _answers(tagger.tag(text, passages={"0": passages})) == _answers(wanted.entities)


def test_passages_reach_the_sentence_with_their_id_only(tagger):
    texts = ["Paris Hilton sings", Sentence("own", ("London", "is", "far")), ["Müller", "thinks"]]
    passages = ["Zurich is a city of banks"]
    bare = [_answers(own) for own in tagger.tag(texts)]
    for number, name in enumerate(("0", "own", "2")):
        example = Example(sentences_of(texts[number], name)[0], as_scored(passages))
        found = [_answers(own) for own in tagger.tag(texts, passages={name: passages})]
        assert found.pop(number) == _answers(tagger.predict([example], view="context")[0].entities)
        assert found == bare[:number] + bare[number + 1 :]


@pytest.mark.parametrize("ids", [["1"], ["own", "0", "7"], [0], [None, "x"]])
def test_passages_for_unknown_sentence_ids_are_refused(tagger, ids):
    with pytest.raises(ValueError, match="passages for unknown sentence ids"):
        tagger.tag(["Paris", Sentence("own", ("London",))], passages={name: ["text"] for name in ids})


def test_a_sequence_of_passages_for_several_texts_is_refused(tagger):
    with pytest.raises(ValueError, match="wanted a mapping from sentence id to passages"):
        tagger.tag(["Paris", "London"], passages=["text"])


@pytest.mark.parametrize("passages", ["Paris is a city", {"0": "Paris is a city"}])
def test_a_bare_string_is_not_taken_for_a_sequence_of_passages(tagger, passages):
    with pytest.raises(ValueError, match="wanted a sequence of passages, found one string"):
        tagger.tag("Paris", passages=passages)
