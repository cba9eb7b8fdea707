"""Views: the pieces are the tokenizer's own, the sentence wins, nothing is lost and no row exceeds its limit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ctxner.schema import Sentence
from ctxner.views.builder import MAX_WORD_PIECES, ViewBuilder
from tests.views.conftest import WORDS, example_of, fates_of

NO_PIECES = ["\x00\x1f", "\ufe0f", "", "\u200b", "\x07", " "]
HOSTILE = [*NO_PIECES, "\ud83d", "a\udc00b", "👍🏽", "❤️", "🇩🇪" * 50, "x" * 100_000, "日" * 100_000, "e\u0301"]


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS) | st.text(min_size=1, max_size=8), min_size=1, max_size=25))
def test_plain_pieces_and_word_starts_are_the_tokenizers_own(tokenizer, words):
    words = [word for word in words if not any("\ud800" <= char <= "\udfff" for char in word)] or ["a"]
    words = [word for word in words if tokenizer.tokenize(word)] or ["a"]
    view = ViewBuilder(tokenizer).plain(Sentence("s", tuple(words)))
    wanted = tokenizer(words, is_split_into_words=True)
    owners = wanted.word_ids()
    assert [list(window) for window in view.windows] == [wanted["input_ids"]]
    assert list(view.word_places) == [(0, owners.index(number)) for number in range(len(words))]


@pytest.mark.parametrize("word", HOSTILE, ids=lambda word: ascii(word)[:20])
def test_any_word_has_exactly_one_place_and_a_bounded_number_of_pieces(tokenizer, word):
    builder = ViewBuilder(tokenizer, max_pieces=80)
    view = builder.plain(Sentence("s", ("before", word, "after", word)))
    row = view.windows[0]
    assert view.num_rows == 1
    assert len(row) <= 80
    assert [window for window, _ in view.word_places] == [0] * 4
    before, first, after, second = (place for _, place in view.word_places)
    assert (before, row[before], row[after]) == (1, *tokenizer.convert_tokens_to_ids(["before", "after"]))
    assert 1 <= after - first <= MAX_WORD_PIECES
    assert row[first] == row[second]
    if word in NO_PIECES:
        assert row[first:after] == (tokenizer.unk_token_id,)


def test_a_sentence_of_only_empty_words_is_a_row_of_unknown_pieces(tokenizer):
    view = ViewBuilder(tokenizer).plain(Sentence("s", tuple(NO_PIECES)))
    unknown = (tokenizer.unk_token_id,) * len(NO_PIECES)
    assert view.windows == ((tokenizer.cls_token_id, *unknown, tokenizer.sep_token_id),)


def test_a_sentence_without_words_is_refused_by_name(tokenizer):
    with pytest.raises(ValueError, match="sentence 's-7' has no words"):
        ViewBuilder(tokenizer).plain(Sentence("s-7", ()))


def test_views_do_not_depend_on_what_was_built_before(tokenizer):
    fresh, used = ViewBuilder(tokenizer), ViewBuilder(tokenizer)
    used.plain(Sentence("x", ("Müller", "of", "other")))
    sentence = Sentence("s", tuple(WORDS))
    assert used.plain(sentence) == fresh.plain(sentence)


def test_a_full_cache_of_words_changes_nothing(tokenizer, monkeypatch):
    monkeypatch.setattr("ctxner.views.builder._CACHED_WORDS", 3)
    builder = ViewBuilder(tokenizer)
    for words in (WORDS[:2], WORDS[1:4], WORDS, WORDS[::-1]):
        sentence = Sentence("s", tuple(words))
        assert builder.plain(sentence) == ViewBuilder(tokenizer).plain(sentence)


def test_a_cache_that_another_thread_replaces_meanwhile_changes_nothing(tokenizer, monkeypatch):
    """The other thread's call is placed where it hurts: after the cached words were found, before they are used."""
    monkeypatch.setattr("ctxner.views.builder._CACHED_WORDS", 3)
    first, second, other = (Sentence("s", tuple(words)) for words in (WORDS[:2], WORDS[1:3], WORDS[4:7]))
    builder = ViewBuilder(tokenizer)
    encode = builder.encode
    builder.plain(first)

    def interrupted(texts):
        monkeypatch.setattr(builder, "encode", encode)
        builder.plain(other)
        return encode(texts)

    monkeypatch.setattr(builder, "encode", interrupted)
    assert builder.plain(second) == ViewBuilder(tokenizer).plain(second)


def test_a_tokenizer_without_special_pieces_is_refused(minilm):
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="lacks a start, end, unknown or padding piece"):
        ViewBuilder(tokenizer)


def test_a_limit_without_room_for_words_is_refused(tokenizer):
    with pytest.raises(ValueError, match="max_pieces=7 leaves no room"):
        ViewBuilder(tokenizer, max_pieces=7)


def test_the_context_view_is_the_plain_row_then_whole_passages_then_the_end(tokenizer):
    texts = ["Paris Hilton visited London.", "An unrelated passage"]
    builder = ViewBuilder(tokenizer)
    example = example_of(["Paris", "sings"], *texts)
    plain, view = builder.plain(example.sentence), builder.context(example)
    passages = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    assert view.windows == ((*plain.windows[0], *passages[0], *passages[1], tokenizer.sep_token_id),)
    assert view.word_places == plain.word_places
    assert fates_of(view) == [len(pieces) for pieces in passages]
    assert [scored.passage for scored in view.passages] == [scored.passage for scored in example.passages]


def test_a_passage_that_does_not_fit_whole_is_skipped_and_a_later_shorter_one_used(tokenizer):
    view = ViewBuilder(tokenizer, max_pieces=16).context(example_of(["a", "b"], "c " * 5, "d " * 8, "e " * 7, "f"))
    assert fates_of(view) == [5, "piece_budget", "piece_budget", 1]  # start a b end c c c c c f end: 11 pieces
    assert view.longest_row == 11


def test_a_passage_may_fill_the_row_to_the_last_piece(tokenizer):
    builder = ViewBuilder(tokenizer, max_pieces=16)
    assert builder.context(example_of(["a", "b"], "c " * 11)).longest_row == 16
    assert fates_of(builder.context(example_of(["a", "b"], "c " * 12))) == ["piece_budget"]


def test_dropped_passages_stay_dropped_and_depth_counts_only_used_ones(tokenizer):
    texts = ["one", "two", "\x00", "w " * 900, "three", "four", ""]
    view = ViewBuilder(tokenizer, max_pieces=64, max_passages=2).context(
        example_of(["a"], *texts, dropped={0: "near_duplicate"})
    )
    assert fates_of(view) == ["near_duplicate", 1, "no_pieces", "piece_budget", 1, "below_depth", "below_depth"]


def test_no_passages_are_used_at_depth_nought(tokenizer):
    builder = ViewBuilder(tokenizer, max_passages=0)
    view = builder.context(example_of(["a"], "one"))
    assert fates_of(view) == ["below_depth"]
    assert view.windows == builder.plain(Sentence("s", ("a",))).windows


@pytest.mark.parametrize("texts", [(), ("",), ("w " * 900,)], ids=["none", "empty", "too long"])
def test_without_a_usable_passage_the_context_view_has_the_plain_pieces(tokenizer, texts):
    builder = ViewBuilder(tokenizer, max_pieces=32)
    example = example_of(WORDS[:2], *texts)
    plain, view = builder.plain(example.sentence), builder.context(example)
    assert (view.windows, view.word_places) == (plain.windows, plain.word_places)


def test_the_sentence_wins_over_its_passages(tokenizer):
    builder = ViewBuilder(tokenizer, max_pieces=32)
    long = example_of(["word"] * 40, "one")
    view = builder.context(long)
    assert view.windows == builder.plain(long.sentence).windows
    assert view.num_rows > 1
    assert fates_of(view) == ["piece_budget"]


@settings(max_examples=60, deadline=None)
@given(
    num_words=st.integers(1, 30), lengths=st.lists(st.integers(0, 30), max_size=8), max_pieces=st.integers(8, 48),
    depth=st.integers(0, 4),
)  # fmt: skip
def test_the_context_view_is_the_greedy_packing_of_whole_passages(tokenizer, num_words, lengths, max_pieces, depth):
    builder = ViewBuilder(tokenizer, max_pieces=max_pieces, max_passages=depth)
    example = example_of(["a"] * num_words, *("b " * length for length in lengths))
    view = builder.context(example)
    assert view.longest_row <= max_pieces
    if num_words + 2 > max_pieces:
        assert not any(scored.num_pieces for scored in view.passages)
        return
    room, used = max_pieces - num_words - 3, []
    for length in lengths:
        if len(used) < depth and 0 < length <= room:
            used.append(length)
            room -= length
    assert [scored.num_pieces for scored in view.passages if scored.dropped is None] == used
    assert view.num_pieces == num_words + 2 + (sum(used) + 1 if used else 0)


def test_the_collated_index_gathers_each_words_first_piece(tokenizer):
    builder = ViewBuilder(tokenizer, max_pieces=24)
    sentences = [Sentence(f"s{n}", tuple((WORDS * 4)[n : n + size])) for n, size in enumerate((3, 30, 1, 17, 9))]
    views = [builder.plain(sentence) for sentence in sentences]
    tags = [list(range(len(sentence.words))) for sentence in sentences]
    batch = builder.collate(views, tags)
    assert batch.input_ids_RP.shape == (sum(view.num_rows for view in views), max(view.longest_row for view in views))
    gathered_BT = batch.input_ids_RP.flatten()[batch.word_index_BT]
    for row, sentence in enumerate(sentences):
        wanted = [tokenizer.encode(word, add_special_tokens=False)[0] for word in sentence.words]
        size = len(sentence.words)
        assert gathered_BT[row, :size].tolist() == wanted
        assert batch.tags_BT is not None
        assert batch.tags_BT[row].tolist() == tags[row] + [0] * (30 - size)
        assert batch.mask_BT[row].tolist() == [True] * size + [False] * (30 - size)


def test_padding_is_masked_and_nothing_else_is(tokenizer):
    builder = ViewBuilder(tokenizer, max_pieces=24)
    views = [builder.plain(Sentence("s", tuple(WORDS[:size]))) for size in (1, 3, 2)]
    batch = builder.collate(views)
    rows = [window for view in views for window in view.windows]
    for ids, attention, row in zip(batch.input_ids_RP.tolist(), batch.attention_RP.tolist(), rows, strict=True):
        padding = len(ids) - len(row)
        assert ids == [*row, *[tokenizer.pad_token_id] * padding]
        assert attention == [1] * len(row) + [0] * padding
    assert batch.tags_BT is None
    assert (batch.input_ids_RP.dtype, batch.mask_BT.dtype) == (torch.int64, torch.bool)
