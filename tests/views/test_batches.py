"""Batches: every sentence once, within the budget of pieces, with little padding."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxner.schema import Sentence
from ctxner.views.batches import epoch_batches, pack_batches, padding_share
from ctxner.views.builder import ViewBuilder
from tests.views.conftest import WORDS

ROWS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 600)), max_size=80)


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
