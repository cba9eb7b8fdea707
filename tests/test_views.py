"""Views: the pieces are the tokenizer's own, the sentence wins, nothing is lost and no row exceeds its limit."""

import itertools
import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer, DebertaV2Tokenizer

from ctxner.encoders import load_tokenizer
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.views.batches import epoch_batches, pack_batches, padding_share
from ctxner.views.builder import MAX_WORD_PIECES, ViewBuilder, _cut, mark_pieces
from ctxner.views.shown import entry_type, shown_text
from ctxner.views.view import View, keep_passages
from tests.xlm_roberta import save_xlm_roberta

NO_PIECES = ["\x00\x1f", "\ufe0f", "", "\u200b", "\x07", " "]
HOSTILE = [*NO_PIECES, "\ud83d", "a\udc00b", "👍🏽", "❤️", "🇩🇪" * 50, "x" * 100_000, "日" * 100_000, "e\u0301"]
WORDS = ["Internationalisation", "of", "Müller", "don't", "http://t.co/aB3xY9", "日本", "@user_1", "...", "O’Neil"]

ROWS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 600)), max_size=80)


@pytest.fixture(scope="module")
def tokenizer(minilm):
    return AutoTokenizer.from_pretrained(minilm)


def _example(words, *texts, dropped=None) -> Example:
    passages = [
        ScoredPassage(Passage(f"p{n}", "wiki", text), 9.0 - n, n + 1, dropped=(dropped or {}).get(n))
        for n, text in enumerate(texts)
    ]
    return Example(Sentence("s", tuple(words)), tuple(passages))


def _fates(view: View) -> list[str | int | None]:
    return [scored.dropped or scored.num_pieces for scored in view.passages]


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
    example = _example(["Paris", "sings"], *texts)
    plain, view = builder.plain(example.sentence), builder.context(example)
    passages = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    assert view.windows == ((*plain.windows[0], *passages[0], *passages[1], tokenizer.sep_token_id),)
    assert view.word_places == plain.word_places
    assert _fates(view) == [len(pieces) for pieces in passages]
    assert [scored.passage for scored in view.passages] == [scored.passage for scored in example.passages]


def test_a_passage_that_does_not_fit_whole_is_skipped_and_a_later_shorter_one_used(tokenizer):
    view = ViewBuilder(tokenizer, max_pieces=16).context(_example(["a", "b"], "c " * 5, "d " * 8, "e " * 7, "f"))
    assert _fates(view) == [5, "piece_budget", "piece_budget", 1]  # start a b end c c c c c f end: 11 pieces
    assert view.longest_row == 11


def test_a_passage_may_fill_the_row_to_the_last_piece(tokenizer):
    builder = ViewBuilder(tokenizer, max_pieces=16)
    assert builder.context(_example(["a", "b"], "c " * 11)).longest_row == 16
    assert _fates(builder.context(_example(["a", "b"], "c " * 12))) == ["piece_budget"]


def test_dropped_passages_stay_dropped_and_depth_counts_only_used_ones(tokenizer):
    texts = ["one", "two", "\x00", "w " * 900, "three", "four", ""]
    view = ViewBuilder(tokenizer, max_pieces=64, max_passages=2).context(
        _example(["a"], *texts, dropped={0: "near_duplicate"})
    )
    assert _fates(view) == ["near_duplicate", 1, "no_pieces", "piece_budget", 1, "below_depth", "below_depth"]


def test_no_passages_are_used_at_depth_nought(tokenizer):
    builder = ViewBuilder(tokenizer, max_passages=0)
    view = builder.context(_example(["a"], "one"))
    assert _fates(view) == ["below_depth"]
    assert view.windows == builder.plain(Sentence("s", ("a",))).windows


@pytest.mark.parametrize("texts", [(), ("",), ("w " * 900,)], ids=["none", "empty", "too long"])
def test_without_a_usable_passage_the_context_view_has_the_plain_pieces(tokenizer, texts):
    builder = ViewBuilder(tokenizer, max_pieces=32)
    example = _example(WORDS[:2], *texts)
    plain, view = builder.plain(example.sentence), builder.context(example)
    assert (view.windows, view.word_places) == (plain.windows, plain.word_places)


def test_the_sentence_wins_over_its_passages(tokenizer):
    builder = ViewBuilder(tokenizer, max_pieces=32)
    long = _example(["word"] * 40, "one")
    view = builder.context(long)
    assert view.windows == builder.plain(long.sentence).windows
    assert view.num_rows > 1
    assert _fates(view) == ["piece_budget"]


@settings(max_examples=60, deadline=None)
@given(
    num_words=st.integers(1, 30), lengths=st.lists(st.integers(0, 30), max_size=8), max_pieces=st.integers(8, 48),
    depth=st.integers(0, 4),
)  # fmt: skip
def test_the_context_view_is_the_greedy_packing_of_whole_passages(tokenizer, num_words, lengths, max_pieces, depth):
    builder = ViewBuilder(tokenizer, max_pieces=max_pieces, max_passages=depth)
    example = _example(["a"] * num_words, *("b " * length for length in lengths))
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


@given(data=st.data(), capacity=st.integers(1, 60))
def test_windows_score_every_word_exactly_once_within_the_limit(data, capacity):
    sizes = data.draw(st.lists(st.integers(1, capacity), min_size=1, max_size=120))
    windows = list(_cut([(0,) * size for size in sizes], capacity))
    assert all(sum(sizes[first:end]) <= capacity for first, _, end in windows)
    assert all(first <= scored <= end for first, scored, end in windows)
    ends = [scored for _, scored, _ in windows[1:]] + [windows[-1][2]]
    owned = [range(scored, end) for (_, scored, _), end in zip(windows, ends, strict=True)]
    assert list(itertools.chain.from_iterable(owned)) == list(range(len(sizes)))
    assert all(last <= end for last, (_, _, end) in zip(ends, windows, strict=True))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), capacity=st.integers(128, 510))
def test_windows_overlap_so_that_inner_words_see_both_sides(data, capacity):
    sizes = data.draw(st.lists(st.integers(1, 8), min_size=200, max_size=400))
    windows = list(_cut([(0,) * size for size in sizes], capacity))
    for (_, _, end), (first, scored, _) in itertools.pairwise(windows):
        assert capacity // 4 - 8 < sum(sizes[first:end]) <= capacity // 4
        assert abs((scored - first) - (end - scored)) <= 1
    assert len(windows) <= 1 + sum(sizes) / (capacity * 0.7)


def test_a_sentence_of_ten_thousand_words_is_windowed_and_every_word_points_at_its_own_piece(tokenizer):
    rng = random.Random(0)
    words = tuple(rng.choice([*WORDS, "y" * 300]) for _ in range(10_000))
    view = ViewBuilder(tokenizer).plain(Sentence("s", words))
    first_piece = {word: tokenizer.encode(word, add_special_tokens=False)[0] for word in set(words)}
    assert len(view.word_places) == 10_000
    assert all(len(window) <= 512 for window in view.windows)
    assert all(
        view.windows[row][place] == first_piece[w] for (row, place), w in zip(view.word_places, words, strict=True)
    )
    assert list(view.word_places) == sorted(set(view.word_places))


def test_a_window_around_every_scored_word_is_a_run_of_the_sentence(tokenizer):
    words = tuple(word for word in tokenizer.vocab if word.isascii() and word.isalpha())[
        :900
    ]  # one piece each, all different
    view = ViewBuilder(tokenizer, max_pieces=100).plain(Sentence("s", words))
    pieces = tokenizer.convert_tokens_to_ids(list(words))
    for number, (row, place) in enumerate(view.word_places):
        window = view.windows[row]
        assert list(window[1:-1]) == pieces[number - place + 1 :][: len(window) - 2]
        margin = min(place - 1, len(window) - 2 - place)
        assert margin >= min(11, number, len(words) - 1 - number)  # an eighth of a window to see on either side


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


@given(
    shapes=ROWS | st.lists(st.tuples(st.integers(1, 4), st.integers(1, 90), st.integers(1, 600)), max_size=80),
    max_pieces=st.integers(1, 3000),
    max_sentences=st.none() | st.integers(1, 9),
)
def test_batches_cover_every_sentence_once_within_the_budget_of_all_views(shapes, max_pieces, max_sentences):
    batches = pack_batches(shapes, max_pieces=max_pieces, max_sentences=max_sentences)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(shapes)))
    for batch in batches:
        rows, *widths = zip(*(shapes[index] for index in batch), strict=True)
        assert sum(rows) * sum(map(max, widths)) <= max_pieces or len(batch) == 1
        assert len(batch) <= (max_sentences or len(shapes))


@given(rows=ROWS, seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_an_epochs_batches_are_a_permutation_that_seed_and_epoch_fix(rows, seed, epoch):
    plan = {"max_pieces": 1500, "max_sentences": 4, "pool_batches": 3}
    batches = epoch_batches(rows, seed=seed, epoch=epoch, **plan)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(rows)))
    assert batches == epoch_batches(rows, seed=seed, epoch=epoch, **plan)
    for batch in batches:
        assert len(batch) == 1 or sum(rows[i][0] for i in batch) * max(rows[i][1] for i in batch) <= 1500


def test_seed_and_epoch_each_change_the_order():
    rows = [(1, size) for size in range(10, 210)]
    plans = [
        epoch_batches(rows, max_pieces=900, max_sentences=8, seed=seed, epoch=epoch)
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 10), (10, 0))
    ]
    assert all(first != second for first, second in itertools.combinations(plans, 2))


def test_an_epoch_does_not_run_from_long_to_short():
    rows = [(1, size) for size in range(1, 401)]
    batches = epoch_batches(rows, max_pieces=10_000, max_sentences=8, seed=0, epoch=0)
    longest = [max(rows[index][1] for index in batch) for batch in batches]
    assert longest != sorted(longest, reverse=True)
    assert max(longest[: len(longest) // 2]) > 200 < max(longest[len(longest) // 2 :])


def test_the_padding_share_is_the_padding_that_collating_makes(tokenizer):
    builder = ViewBuilder(tokenizer, max_pieces=40)
    rng = random.Random(1)
    views = [builder.plain(Sentence(str(n), tuple(rng.choices(WORDS, k=rng.randint(1, 25))))) for n in range(40)]
    batches = pack_batches([(view.num_rows, view.longest_row) for view in views], max_pieces=200)
    collated = [builder.collate([views[index] for index in batch]).attention_RP for batch in batches]
    wanted = 1 - sum(int(one.sum()) for one in collated) / sum(one.numel() for one in collated)
    assert padding_share(views, batches) == pytest.approx(wanted)
    assert padding_share([], []) == 0.0


def test_bucketing_pads_less_than_batches_in_reading_order(tokenizer):
    builder = ViewBuilder(tokenizer)
    rng = random.Random(2)
    views = [builder.plain(Sentence(str(n), tuple(rng.choices(WORDS, k=rng.randint(1, 40))))) for n in range(200)]
    rows = [(view.num_rows, view.longest_row) for view in views]
    bucketed = epoch_batches(rows, max_pieces=4096, max_sentences=16, seed=0, epoch=0)
    in_order = [list(range(first, min(first + 16, 200))) for first in range(0, 200, 16)]
    assert padding_share(views, bucketed) < 0.4 * padding_share(views, in_order)


@given(
    lengths=st.lists(st.integers(1, 200), min_size=1, max_size=60),
    max_pieces=st.integers(200, 2000),
    call_pieces=st.integers(0, 300),
)
def test_a_batch_pads_no_more_than_another_call_would_cost(lengths, max_pieces, call_pieces):
    shapes = [(1, length) for length in lengths]
    batches = pack_batches(shapes, max_pieces=max_pieces, call_pieces=call_pieces)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        own = [lengths[index] for index in batch]
        assert max(own) * len(own) <= max_pieces or len(own) == 1
        assert max(own) * len(own) - sum(own) <= call_pieces


def _entry(number, title, *named, text="It is known.", **fields) -> ScoredPassage:
    return ScoredPassage(
        Passage(f"e{number}", "s", text, title, **fields), 0.0, number + 1, named=named, link_score=0.9
    )


ENTRIES = (
    _entry(0, "lactic acid", (1, 3), (6, 7)),
    _entry(1, "acid house", (1, 3)),  # the same words: one pair of marks
    _entry(2, "york", (4, 5), type="city"),
    ScoredPassage(Passage("t", "s", "A text about York."), 1.0, 4),
)
NAMING = Sentence("s", ("Some", "lactic", "acid", "in", "York", "unaffiliated", "acids"))


def test_marks_stand_around_the_words_that_name_an_entry_and_word_places_stay_true(tokenizer):
    builder = ViewBuilder(tokenizer)
    view = builder.context(Example(NAMING, ENTRIES))
    pieces = tokenizer.convert_ids_to_tokens(view.windows[0])
    end = pieces.index("[SEP]")
    wanted = (
        "[CLS] some [unused1] lac ##tic acid [unused2] in [unused1] york [unused2] city una ##ffi ##lia ##ted "
        "[unused1] acids"
    )
    assert " ".join(pieces[:end]) == f"{wanted} [unused2]"
    words = [pieces[place] for _, place in view.word_places]
    assert words == ["some", "lac", "acid", "in", "york", "una", "acids"]
    assert [(pieces[position], used) for position, used in view.marks] == [
        *(("[unused1]", 0), ("[unused2]", 0), ("[unused1]", 2), ("[unused2]", 2), ("city", 2)),
        *(("[unused1]", 0), ("[unused2]", 0)),
    ]
    shown = tokenizer.decode(view.windows[0][end + 1 : -1])
    assert (
        shown == "lactic acid : it is known. acid house : it is known. york ( city ) : it is known. a text about york."
    )


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("mark_entries", [True, False])
def test_keeping_passages_gives_the_view_of_those_passages(tokenizer, number, mark_entries):
    builder = ViewBuilder(tokenizer, mark_entries=mark_entries)
    view = builder.context(Example(NAMING, ENTRIES))
    sizes = [scored.num_pieces for scored in view.passages]
    kept = keep_passages(view, sizes, number)
    wanted = builder.context(Example(NAMING, ENTRIES[:number]))
    assert (kept.windows, kept.word_places) == (wanted.windows, wanted.word_places)


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=12),
    runs=st.lists(st.tuples(st.integers(0, 11), st.integers(1, 3)), max_size=5),
    max_pieces=st.integers(8, 60),
    number=st.integers(0, 6),
)
def test_marks_never_move_a_word_or_exceed_the_limit(tokenizer, words, runs, max_pieces, number):
    spans = [(start, min(len(words), start + length)) for start, length in runs if start < len(words)]
    disjoint = [run for n, run in enumerate(spans) if all(run[1] <= old[0] or old[1] <= run[0] for old in spans[:n])]
    example = Example(Sentence("s", tuple(words)), tuple(_entry(n, "x", run) for n, run in enumerate(disjoint)))
    builder = ViewBuilder(tokenizer, max_pieces=max_pieces)
    plain, view = builder.plain(example.sentence), builder.context(example)
    assert view.longest_row <= max_pieces
    used = [scored.num_pieces for scored in view.passages if scored.num_pieces is not None]
    for shown in (view, keep_passages(view, used, number)):
        pieces = [shown.windows[window][place] for window, place in shown.word_places]
        assert pieces == [plain.windows[window][place] for window, place in plain.word_places]
    assert len(view.marks) == 2 * len(used)
    left = [piece for piece in view.windows[0] if piece not in builder.marks]
    assert left[: len(plain.windows[0])] == list(plain.windows[0])


@pytest.mark.parametrize(
    ("title", "text", "type"),
    [
        ("dyspnea", "dyspnea is a disease or symptom (infection).", "disease or symptom"),
        ("Velm", "Velm is a coastal town in the south.", "coastal town"),
        ("Velm", "They met in Velm, a small brewery.", "small brewery"),
        ("Obama", "Barack Obama was an American politician who served.", "American politician"),
        ("Velm", "Velm rose.", ""),
        ("Velm", "", ""),
        ("", "It is a town.", ""),
    ],
)
def test_the_type_of_an_entry_is_read_from_its_definition(title, text, type):
    assert entry_type(Passage("p", "s", text, title)) == type
    assert entry_type(Passage("p", "s", text, title, type="drug")) == "drug"


@pytest.mark.parametrize("max_pieces", range(12, 60))
def test_marks_and_types_count_towards_the_limit(tokenizer, max_pieces):
    builder = ViewBuilder(tokenizer, max_pieces=max_pieces)
    assert builder.context(Example(NAMING, ENTRIES)).longest_row <= max_pieces


def test_an_entry_is_shown_with_its_names_and_type_once():
    passages = [
        Passage("1", "s", "Velm is a city.", "Velm", aliases=("Velmora", "City of Bells"), type="city"),
        Passage("2", "s", "It lies at sea.", "Velm", type="city"),
        Passage("3", "s", "", "Velm"),
        Passage("4", "s", "", "Velm", type="city"),
        Passage("5", "s", "No title."),
        Passage("6", "s", "VELM rose.", "Velm"),
    ]
    assert [shown_text(passage) for passage in passages] == [
        "Velm (city; also Velmora, City of Bells) is a city.",
        "Velm (city): It lies at sea.",
        "Velm",
        "Velm (city)",
        "No title.",
        "VELM rose.",
    ]


BERT_CONTROLS = ["[SEP]", "[CLS]", "[MASK]", "[PAD]", "[unused1]"]
XLM_R_CONTROLS = ["<s>", "</s>", "<pad>", "<mask>", "＜/s＞"]  # the last is "</s>" once the tokenizer normalised it
CONTROLS = [
    *(("bert", control) for control in BERT_CONTROLS),
    *(("xlm-r", control) for control in XLM_R_CONTROLS),
    *(("deberta-v3", control) for control in ["[SEP]", "[CLS]", "[MASK]", "[PAD]"]),
]


@pytest.fixture(scope="module")
def tokenizers(tokenizer, tmp_path_factory):
    """BERT's WordPiece, and two whose Unigram vocabulary has control pieces with the best score of all."""
    texts = ["he sails before and after </s> a [SEP] <pad> b"] * 20
    xlm_r = load_tokenizer(save_xlm_roberta(tmp_path_factory.mktemp("xlm") / "encoder", texts, num_pieces=60))
    special = [(piece, 0.0) for piece in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]
    deberta = DebertaV2Tokenizer(vocab=[*special, *((piece, -9.0) for piece in "▁[]<>/SEPabdefhilnorstu")])
    return {"bert": tokenizer, "xlm-r": xlm_r, "deberta-v3": deberta}


@pytest.mark.parametrize(("name", "control"), CONTROLS)
def test_a_control_piece_written_in_a_text_is_text(tokenizers, name, control):
    tokenizer = tokenizers[name]
    builder = ViewBuilder(tokenizer)
    hostile = ScoredPassage(Passage("p", "s", f"before {control} a{control}", control), 0.0, 1, named=((1, 2),))
    view = builder.context(Example(Sentence("s", ("a", control, "b")), (hostile,)))
    (row,) = view.windows
    wanted = Counter([builder.start, builder.end, builder.end, *builder.marks])
    controls = {*tokenizer.all_special_ids, *builder.marks} - {tokenizer.unk_token_id}
    assert Counter(piece for piece in row if piece in controls) == wanted
    assert view.passages[0].dropped is None
    assert all(row[place] not in controls for _, place in view.word_places)


@pytest.mark.parametrize("control", XLM_R_CONTROLS)
def test_pieces_around_a_control_piece_in_a_text_are_those_of_the_text(tokenizers, control):
    tokenizer = tokenizers["xlm-r"]
    (ids,) = ViewBuilder(tokenizer).encode([f"before {control} after"])
    before, after = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("before", "after"))
    blank, unknown = tokenizer.convert_tokens_to_ids("▁"), tokenizer.unk_token_id
    assert ids == [*before, blank, unknown, *after]


def test_a_tokenizer_without_unused_pieces_marks_by_its_mask_and_one_without_any_not_at_all(tokenizer):
    class Bare:
        mask_token_id = 7

        def get_vocab(self):
            return {"a": 0}

    bare = Bare()
    assert mark_pieces(bare) == (7, 7)
    bare.mask_token_id = None
    assert mark_pieces(bare) is None


def test_capitals_reach_an_encoder_that_does_not_see_them(tokenizer):
    sentence = Sentence("s", ("NATO", "and", "Paris", "sell", "iPhones", "to", "I", ".", "ÉTÉ", "42"))
    builder = ViewBuilder(tokenizer, word_shapes=True)
    view, bare = builder.plain(sentence), ViewBuilder(tokenizer).plain(sentence)
    [row], [bare_row] = view.windows, bare.windows
    shapes = {name: tokenizer.convert_tokens_to_ids(f"[unused{n}]") for n, name in enumerate(builder.shapes, start=3)}
    assert builder.shapes == shapes == dict(zip(("capital", "capitals", "mixed"), shapes.values(), strict=True))
    assert [piece for piece in row if piece not in shapes.values()] == list(bare_row)
    stops = [*(place for _, place in view.word_places[1:]), len(row) - 1]
    last = {word: row[stop - 1] for word, stop in zip(sentence.words, stops, strict=True)}
    told = {word: name for word, piece in last.items() for name, own in shapes.items() if own == piece}
    assert told == {
        "NATO": "capitals", "Paris": "capital", "iPhones": "mixed", "I": "capital", "ÉTÉ": "capitals"
    }  # fmt: skip
    places = zip(view.word_places, bare.word_places, strict=True)
    assert all(row[place] == bare_row[bare_place] for (_, place), (_, bare_place) in places), "the first piece stays"


def test_an_encoder_that_sees_capitals_is_told_none():
    vocabulary = {piece: n for n, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ab", "Ab"])}
    vocabulary |= {f"[unused{n}]": len(vocabulary) + n for n in range(9)}
    tokenizer = BertTokenizer(vocabulary, do_lower_case=False)
    assert ViewBuilder(tokenizer, word_shapes=True).shapes == {}


def test_a_word_of_many_pieces_and_capitals_fits_into_a_row(tokenizer):
    sentence = Sentence("s", ("X" * 500, "Paris"))
    for most in (8, 16, 64):
        view = ViewBuilder(tokenizer, max_pieces=most, word_shapes=True).plain(sentence)
        assert view.longest_row <= most
        assert len(view.word_places) == 2
