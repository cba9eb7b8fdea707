"""Stored views are the builder's, whatever happens to their files."""

from __future__ import annotations

import os
import pickle
import random

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from ctxner.training.data import view_store as viewstore
from ctxner.training.data.epoch_views import ListedViews, ShownViews
from ctxner.training.data.view_key import views_key
from ctxner.training.data.view_store import open_views
from ctxner.views.builder import ViewBuilder
from tests.training.data.conftest import example_of, examples_of, open_of, views_of

ARRAYS = ("starts", "rows", "pieces", "words", "passages", "marks", "ids")
WORDS = ["Internationalisation", "of", "Müller", "日本", "👍🏽", "\ud83d", "\u200b", "x" * 200]
TEXTS = st.sampled_from(["", "Paris is a city .", "日本 " * 9, "\udc00 lone", "a b c d e f g"]) | st.text(max_size=30)
SENTENCES = st.lists(st.sampled_from(WORDS) | st.text(min_size=1, max_size=6), min_size=1, max_size=40)
PASSAGES = st.lists(st.tuples(TEXTS, st.sampled_from([None, None, "near_duplicate", "below_depth"])), max_size=4)


class Watched(list):
    """Examples that count how often they are gone through."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


@settings(max_examples=40, deadline=None)
@given(drawn=st.lists(st.tuples(SENTENCES, PASSAGES), max_size=6), limit=st.integers(8, 40), chunk=st.integers(1, 4))
@pytest.mark.parametrize("which", ["plain", "context"])
def test_stored_views_are_the_builders(tokenizer, tmp_path_factory, which, drawn, limit, chunk):
    builder = ViewBuilder(tokenizer, max_pieces=limit, max_passages=2)
    examples = [example_of(words, *passages, id=f"s\ud800é{n}") for n, (words, passages) in enumerate(drawn)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viewstore, "_VIEWS_PER_CHUNK", chunk)
        store = open_of(tmp_path_factory.mktemp("cache"), examples, builder, which)
    wanted = views_of(examples, builder, which)
    assert list(store) == wanted
    assert len(store) == len(wanted)
    for name in ("num_rows", "num_pieces", "longest_row"):
        assert getattr(store, name).tolist() == [getattr(view, name) for view in wanted]
    for number, example in enumerate(examples):
        used = [own.num_pieces for own in builder.context(example).passages if own.dropped is None]
        assert store.passage_pieces(number) == (tuple(used) if which == "context" else ())


def test_a_context_row_is_its_plain_row_the_passages_counted_and_the_end(tmp_path, builder):
    examples = [example_of(["a", "b"], ("c d", None), ("e " * 30, None), ("f", None))]
    plain, context = (open_of(tmp_path, examples, builder, which) for which in ("plain", "context"))
    assert context.passage_pieces(0) == (2, 1)
    assert len(context[0].windows[0]) == len(plain[0].windows[0]) + 2 + 1 + 1


def test_a_store_is_a_sequence(tmp_path, builder):
    examples = examples_of(5)
    store, wanted = open_of(tmp_path, examples, builder), views_of(examples, builder, "context")
    assert store[-1] == wanted[-1]
    assert store[1:4] == wanted[1:4]
    assert store[::-2] == wanted[::-2]
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"view {index} of 5"):
            store[index]
        with pytest.raises(IndexError):
            store.passage_pieces(index)


def test_arrays_are_mapped_and_read_only_and_do_not_travel(tmp_path, builder):
    store = open_of(tmp_path, examples_of(3), builder)
    assert isinstance(np.load(store.path / "pieces.npy", mmap_mode="r"), np.memmap)
    for array in (store._pieces, store._starts, store._words):
        assert not array.flags.owndata
        assert not array.flags.writeable
    with pytest.raises(TypeError, match="call open_views there"):
        pickle.dumps(store)


@pytest.mark.parametrize(("size", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.int32)])
def test_pieces_are_as_wide_as_the_vocabulary_demands(tmp_path, size, dtype):
    special = {"unk_token": "u", "pad_token": "p", "cls_token": "c", "sep_token": "s"}
    words = [*special.values(), *(f"w{n}" for n in range(4, size))]
    backend = tokenizers.Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="u"))
    backend.pre_tokenizer = Whitespace()
    builder = ViewBuilder(PreTrainedTokenizerFast(tokenizer_object=backend, **special))
    store = open_of(tmp_path, [example_of(["w4", f"w{size - 1}"])], builder)
    assert store._pieces.dtype == dtype
    assert store[0].windows == ((2, 4, size - 1, 3),)


def test_a_whole_store_is_opened_without_the_examples(tmp_path, builder):
    examples = Watched(examples_of(4))
    key = views_key(examples, builder, "plain")
    for passes in (2, 2, 2):  # one for the key, one to write it
        store = open_views(tmp_path, key, examples, builder, "plain")
        assert examples.passes == passes
        assert list(store) == views_of(list.__iter__(examples), builder, "plain")
    assert os.listdir(tmp_path) == [key]


@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in ARRAYS), "store.json"])
@pytest.mark.parametrize("damage", ["cut", "longer", "flip", "gone", "empty"])
def test_a_damaged_store_is_written_anew(tmp_path, builder, caplog, name, damage):
    examples = examples_of(30)
    wanted, chance = views_of(examples, builder, "context"), random.Random(f"{name}{damage}")
    path = open_of(tmp_path, examples, builder).path / name
    for _ in range(3):
        before = path.read_bytes()
        place = chance.randrange(len(before))
        flipped = before[:place] + bytes([before[place] ^ (1 << chance.randrange(8))]) + before[place + 1 :]
        after = {"cut": before[:place], "longer": before + b"\0" * (place + 1), "flip": flipped, "empty": b""}
        path.unlink()
        if damage != "gone":
            path.write_bytes(after[damage])
        caplog.clear()
        assert list(open_of(tmp_path, examples, builder)) == wanted
        assert "not whole" in caplog.text
        assert path.read_bytes() == before


def test_marks_are_stored_too(tmp_path, builder):
    examples = examples_of(6)
    views = views_of(examples, builder, "context")
    assert sum(len(view.marks) for view in views) > 6
    store = open_of(tmp_path, examples, builder)
    assert [view.marks for view in store] == [view.marks for view in views]
    assert [store.mark_places(n) for n in range(6)] == [tuple(used for _, used in view.marks) for view in views]


@pytest.mark.parametrize("kept", range(4))
def test_shapes_are_those_of_the_views_with_the_kept_passages(tmp_path, tokenizer, kept):
    examples, builder = examples_of(12), ViewBuilder(tokenizer, max_pieces=64)
    for views in (ListedViews(map(builder.context, examples)), open_of(tmp_path, examples, builder)):
        shown = ShownViews(views, np.full(len(examples), kept))
        rows, longest = shown.shape()
        assert rows.tolist() == [view.num_rows for view in shown]
        assert longest.tolist() == [view.longest_row for view in shown]


def test_a_store_of_another_version_is_written_anew(tmp_path, builder):
    examples = examples_of(3)
    path = open_of(tmp_path, examples, builder).path / "store.json"
    text = path.read_text()
    path.write_text(text.replace('"version": 2', '"version": 0'))
    open_of(tmp_path, examples, builder)
    assert path.read_text() == text != text.replace('"version": 2', '"version": 0')


def test_an_open_store_outlives_damage_and_its_replacement(tmp_path, builder):
    examples = examples_of(20)
    store = open_of(tmp_path, examples, builder)
    (store.path / "ids.npy").unlink()
    assert list(open_of(tmp_path, examples, builder)) == list(store) == views_of(examples, builder, "context")
