"""Long sentences: overlapping windows within the limit, each word scored once."""

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.schema import Sentence
from ctxner.views.builder import ViewBuilder, _cut
from tests.views.conftest import WORDS


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
