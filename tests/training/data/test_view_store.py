"""Stored views are the builder's, whatever happens to the files and whoever else is at work in the folder."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import resource
import signal
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from ctxner.files.atomic import target_of
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.training.data import view_store as viewstore
from ctxner.training.data.epoch_views import ListedViews, ShownViews
from ctxner.training.data.view_key import views_key
from ctxner.training.data.view_store import open_views
from ctxner.views.builder import ViewBuilder

FORK = multiprocessing.get_context("fork")
ARRAYS = ("starts", "rows", "pieces", "words", "passages", "marks", "ids")
WORDS = ["Internationalisation", "of", "Müller", "日本", "👍🏽", "\ud83d", "\u200b", "x" * 200]
TEXTS = st.sampled_from(["", "Paris is a city .", "日本 " * 9, "\udc00 lone", "a b c d e f g"]) | st.text(max_size=30)
SENTENCES = st.lists(st.sampled_from(WORDS) | st.text(min_size=1, max_size=6), min_size=1, max_size=40)
PASSAGES = st.lists(st.tuples(TEXTS, st.sampled_from([None, None, "near_duplicate", "below_depth"])), max_size=4)


@pytest.fixture(scope="module")
def tokenizer(minilm):
    return AutoTokenizer.from_pretrained(minilm)


@pytest.fixture
def builder(tokenizer):
    return ViewBuilder(tokenizer, max_pieces=24)


def _example(words, *passages, id="s") -> Example:
    scored = (
        ScoredPassage(Passage(f"p{n}", "wiki", text), 1.0, n + 1, dropped=dropped, named=named)
        for n, (text, dropped, *named) in enumerate(passages)
    )
    return Example(Sentence(id, tuple(words)), tuple(scored))


def _examples(num: int) -> list[Example]:
    return [
        _example(
            ["Some", "words", f"w{n % 7}"] * (1 + n % 9),
            *(("Paris", None, (0, 1), (2, 3)), ("is", None, (1, 2)) if n % 2 else ("is", None), ("no", "below_depth")),
            id=f"s{n}",
        )
        for n in range(num)
    ]


def _views(examples, builder, which):
    made = [builder.context(own) if which == "context" else builder.plain(own.sentence) for own in examples]
    return [replace(view, passages=()) for view in made]


def _open(folder, examples, builder, which="context", **settings):
    return open_views(folder, views_key(examples, builder, which), examples, builder, which, **settings)


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
    examples = [_example(words, *passages, id=f"s\ud800é{n}") for n, (words, passages) in enumerate(drawn)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viewstore, "_VIEWS_PER_CHUNK", chunk)
        store = _open(tmp_path_factory.mktemp("cache"), examples, builder, which)
    wanted = _views(examples, builder, which)
    assert list(store) == wanted
    assert len(store) == len(wanted)
    for name in ("num_rows", "num_pieces", "longest_row"):
        assert getattr(store, name).tolist() == [getattr(view, name) for view in wanted]
    for number, example in enumerate(examples):
        used = [own.num_pieces for own in builder.context(example).passages if own.dropped is None]
        assert store.passage_pieces(number) == (tuple(used) if which == "context" else ())


def test_a_context_row_is_its_plain_row_the_passages_counted_and_the_end(tmp_path, builder):
    examples = [_example(["a", "b"], ("c d", None), ("e " * 30, None), ("f", None))]
    plain, context = (_open(tmp_path, examples, builder, which) for which in ("plain", "context"))
    assert context.passage_pieces(0) == (2, 1)
    assert len(context[0].windows[0]) == len(plain[0].windows[0]) + 2 + 1 + 1


def test_a_store_is_a_sequence(tmp_path, builder):
    examples = _examples(5)
    store, wanted = _open(tmp_path, examples, builder), _views(examples, builder, "context")
    assert store[-1] == wanted[-1]
    assert store[1:4] == wanted[1:4]
    assert store[::-2] == wanted[::-2]
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"view {index} of 5"):
            store[index]
        with pytest.raises(IndexError):
            store.passage_pieces(index)


def test_arrays_are_mapped_and_read_only_and_do_not_travel(tmp_path, builder):
    store = _open(tmp_path, _examples(3), builder)
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
    store = _open(tmp_path, [_example(["w4", f"w{size - 1}"])], builder)
    assert store._pieces.dtype == dtype
    assert store[0].windows == ((2, 4, size - 1, 3),)


def test_a_whole_store_is_opened_without_the_examples(tmp_path, builder):
    examples = Watched(_examples(4))
    key = views_key(examples, builder, "plain")
    for passes in (2, 2, 2):  # one for the key, one to write it
        store = open_views(tmp_path, key, examples, builder, "plain")
        assert examples.passes == passes
        assert list(store) == _views(list.__iter__(examples), builder, "plain")
    assert os.listdir(tmp_path) == [key]


@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in ARRAYS), "store.json"])
@pytest.mark.parametrize("damage", ["cut", "longer", "flip", "gone", "empty"])
def test_a_damaged_store_is_written_anew(tmp_path, builder, caplog, name, damage):
    examples = _examples(30)
    wanted, chance = _views(examples, builder, "context"), random.Random(f"{name}{damage}")
    path = _open(tmp_path, examples, builder).path / name
    for _ in range(3):
        before = path.read_bytes()
        place = chance.randrange(len(before))
        flipped = before[:place] + bytes([before[place] ^ (1 << chance.randrange(8))]) + before[place + 1 :]
        after = {"cut": before[:place], "longer": before + b"\0" * (place + 1), "flip": flipped, "empty": b""}
        path.unlink()
        if damage != "gone":
            path.write_bytes(after[damage])
        caplog.clear()
        assert list(_open(tmp_path, examples, builder)) == wanted
        assert "not whole" in caplog.text
        assert path.read_bytes() == before


def test_marks_are_stored_too(tmp_path, builder):
    examples = _examples(6)
    views = _views(examples, builder, "context")
    assert sum(len(view.marks) for view in views) > 6
    store = _open(tmp_path, examples, builder)
    assert [view.marks for view in store] == [view.marks for view in views]
    assert [store.mark_places(n) for n in range(6)] == [tuple(used for _, used in view.marks) for view in views]


def test_the_key_tells_marked_views_and_other_runs_from_each_other(tokenizer):
    plain = ViewBuilder(tokenizer, max_pieces=24, mark_entries=False)
    marked = ViewBuilder(tokenizer, max_pieces=24)
    examples = [_example(["Paris", "is"], ("Paris", None, *named)) for named in ((), ((0, 1),), ((1, 2),))]
    assert len({views_key([example], marked, "context") for example in examples}) == 3
    assert views_key(examples, marked, "context") != views_key(examples, plain, "context")
    assert views_key(examples, marked, "plain") == views_key(examples, plain, "plain")


@pytest.mark.parametrize("kept", range(4))
def test_shapes_are_those_of_the_views_with_the_kept_passages(tmp_path, tokenizer, kept):
    examples, builder = _examples(12), ViewBuilder(tokenizer, max_pieces=64)
    for views in (ListedViews(map(builder.context, examples)), _open(tmp_path, examples, builder)):
        shown = ShownViews(views, np.full(len(examples), kept))
        rows, longest = shown.shape()
        assert rows.tolist() == [view.num_rows for view in shown]
        assert longest.tolist() == [view.longest_row for view in shown]


def test_a_store_of_another_version_is_written_anew(tmp_path, builder):
    examples = _examples(3)
    path = _open(tmp_path, examples, builder).path / "store.json"
    text = path.read_text()
    path.write_text(text.replace('"version": 2', '"version": 0'))
    _open(tmp_path, examples, builder)
    assert path.read_text() == text != text.replace('"version": 2', '"version": 0')


def test_an_open_store_outlives_damage_and_its_replacement(tmp_path, builder):
    examples = _examples(20)
    store = _open(tmp_path, examples, builder)
    (store.path / "ids.npy").unlink()
    assert list(_open(tmp_path, examples, builder)) == list(store) == _views(examples, builder, "context")


class Slow(list):
    """Examples that take a while, and note each pass in a file."""

    def __init__(self, examples, notes: Path) -> None:
        super().__init__(examples)
        self.notes = notes

    def __iter__(self):
        with self.notes.open("a") as file:
            file.write("x")
        for example in super().__iter__():
            time.sleep(0.02)
            yield example


def _in_a_process(folder, key, examples, tokenizer, barrier, answers):
    builder = ViewBuilder(tokenizer, max_pieces=24)
    barrier.wait()
    answers.put(list(open_views(folder, key, examples, builder, "context")))


def test_of_processes_that_open_at_once_one_writes_and_all_read(tmp_path, tokenizer, builder):
    examples = _examples(40)
    key, barrier, answers = views_key(examples, builder, "context"), FORK.Barrier(3), FORK.Queue()
    arguments = (tmp_path / "cache", key, Slow(examples, tmp_path / "notes"), tokenizer, barrier, answers)
    workers = [FORK.Process(target=_in_a_process, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [_views(examples, builder, "context")] * 3
    assert (tmp_path / "notes").read_text() == "x"
    assert os.listdir(tmp_path / "cache") == [key]


class Deadly(list):
    """Examples in the middle of which the process is killed."""

    def __iter__(self):
        for number, example in enumerate(super().__iter__()):
            if number == 12:
                os.kill(os.getpid(), signal.SIGKILL)
            yield example


def test_what_a_killed_writer_leaves_is_cleared_away(tmp_path, builder, monkeypatch):
    monkeypatch.setattr(viewstore, "_VIEWS_PER_CHUNK", 5)
    examples, others = _examples(20), _examples(3)
    key, other = (views_key(own, builder, "context") for own in (examples, others))
    worker = FORK.Process(target=open_views, args=(tmp_path, key, Deadly(examples), builder, "context"))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    assert {target_of(name) or name for name in os.listdir(tmp_path)} == {key, f"{key}.lock"}
    open_views(tmp_path, other, others, builder, "context")
    assert os.listdir(tmp_path) == [other]
    assert list(open_views(tmp_path, key, examples, builder, "context")) == _views(examples, builder, "context")
    assert set(os.listdir(tmp_path)) == {key, other}


def test_a_failed_writer_leaves_nothing(tmp_path, builder):
    def broken():
        yield from _examples(3)
        raise FileNotFoundError("train.conll")

    with pytest.raises(FileNotFoundError, match=r"train\.conll"):  # the caller's own error, as it is
        open_views(tmp_path, "0" * 64, broken(), builder, "plain")
    with pytest.raises(ValueError, match="sentence 'empty' has no words"):
        _open(tmp_path, [_example([], id="empty")], builder)
    assert os.listdir(tmp_path) == []


def test_a_key_of_other_arguments_is_refused(tmp_path, builder):
    examples = _examples(3)
    key = views_key(examples, builder, "context")
    for wrong in (examples[:2], iter(())):
        with pytest.raises(ValueError, match="give views_key of the same arguments"):
            open_views(tmp_path, key, wrong, builder, "context")
    with pytest.raises(ValueError, match="give views_key of the same arguments"):
        open_views(tmp_path, key, examples, builder, "plain")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_used_is_named_with_advice(tmp_path, builder):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cache folder .*file: .*set another cache folder"):
        _open(tmp_path / "file", _examples(2), builder)


def test_a_full_disk_is_named_with_advice_and_leaves_nothing(tmp_path, builder):
    examples, limits = _examples(200), resource.getrlimit(resource.RLIMIT_FSIZE)
    key = views_key(examples, builder, "plain")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(ValueError, match="File too large; set another cache folder, with room"):
            open_views(tmp_path, key, examples, builder, "plain")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


class Streamed:
    """Examples made on the way."""

    def __init__(self, num: int) -> None:
        self.num = num

    def __iter__(self):
        return (_example(["Some", "words", f"w{n % 7}"] * 100, id=f"s{n}") for n in range(self.num))


def test_memory_of_writing_does_not_grow_with_the_sentences(tmp_path, builder, monkeypatch):
    monkeypatch.setattr(viewstore, "_VIEWS_PER_CHUNK", 32)
    builder.plain(Sentence("s", ("Some", "words", *(f"w{n}" for n in range(7)))))  # the builder's own cache of words
    peaks = []
    for num in (100, 1000):
        examples = Streamed(num)
        key = views_key(examples, builder, "plain")
        tracemalloc.start()
        open_views(tmp_path, key, examples, builder, "plain")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 200_000  # the files grow by two million bytes


def test_stores_used_longest_ago_go_but_none_that_is_open(tmp_path, builder):
    sets = [_examples(n) for n in range(1, 7)]
    held = _open(tmp_path, sets[0], builder, keep=3)
    keys = [held.path.name, *(_open(tmp_path, examples, builder, keep=3).path.name for examples in sets[1:4])]
    assert set(os.listdir(tmp_path)) == {keys[0], *keys[1:4]}  # the oldest is open, and the others are within the bound
    _open(tmp_path, sets[1], builder, keep=3)  # used again
    keys.append(_open(tmp_path, sets[4], builder, keep=3).path.name)
    assert set(os.listdir(tmp_path)) == {keys[0], keys[1], keys[3], keys[4]}
    assert list(held) == _views(sets[0], builder, "context")
    del held
    keys.append(_open(tmp_path, sets[5], builder, keep=3).path.name)
    assert set(os.listdir(tmp_path)) == {keys[1], keys[4], keys[5]}


def test_other_files_in_the_folder_are_let_alone(tmp_path, builder):
    for name in ("notes.txt", "a" * 64 + ".bak"):
        (tmp_path / name).mkdir()
    for num in (1, 2, 3):
        _open(tmp_path, _examples(num), builder, keep=1)
    assert len(os.listdir(tmp_path)) == 3


BASE = _example(["Paris", "sings"], ("A city.", None), ("A star.", None), id="s1")


def _with_passages(*passages) -> Example:
    return _example(BASE.sentence.words, *passages, id="s1")


@pytest.mark.parametrize(
    "other",
    [
        [],
        [BASE, BASE],
        [replace(BASE, sentence=replace(BASE.sentence, id="s2"))],
        [replace(BASE, sentence=Sentence("s1", ("Parissings",)))],
        [replace(BASE, sentence=Sentence("s1", ("Pari", "ssings")))],
        [replace(BASE, sentence=Sentence("s1P", ("aris", "sings")))],
        [replace(BASE, sentence=Sentence("s1", ("Paris", "sings", "A city.")), passages=BASE.passages[1:])],
        [_with_passages(("A star.", None), ("A city.", None))],
        [_with_passages(("A city.", None), ("A star.", "near_duplicate"))],
        [_with_passages(("A city.", None))],
        [_with_passages(("A city.A", None), (" star.", None))],
    ],
)
def test_the_key_changes_with_the_examples(builder, other):
    assert views_key(other, builder, "context") != views_key([BASE], builder, "context")


def test_a_plain_key_depends_on_no_passage(builder, tokenizer):
    key = views_key([BASE], builder, "plain")
    assert key != views_key([BASE], builder, "context")
    assert key == views_key([_with_passages()], builder, "plain")
    assert key == views_key([BASE], ViewBuilder(tokenizer, max_pieces=24, max_passages=1), "plain")


def test_the_key_changes_with_the_limits_the_libraries_and_the_code(builder, tokenizer, monkeypatch, tmp_path):
    keys = [views_key([BASE], ViewBuilder(tokenizer, max_pieces=24, max_passages=n), "context") for n in (6, 5)]
    keys.append(views_key([BASE], ViewBuilder(tokenizer, max_pieces=25), "context"))
    code = tmp_path / "views.py"
    code.write_text("another")
    for owner, name, value in (
        ("ctxner.views.builder", "MAX_WORD_CHARS", 999),
        ("ctxner.views.builder", "MAX_WORD_PIECES", 31),
        ("ctxner.views.builder", "MAX_PASSAGE_CHARS", 19_999),
        *((f"ctxner.views.{name}", "__file__", str(code)) for name in ("builder", "shown", "view")),
        ("ctxner.training.data.view_key", "VERSION", 9),
        ("ctxner.training.data.view_key", "version", lambda name: "0" if name == "tokenizers" else "1"),
        ("ctxner.training.data.view_key", "version", lambda name: "1" if name == "tokenizers" else "0"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"{owner}.{name}", value)
            keys.append(views_key([BASE], builder, "context"))
    assert len({*keys}) == len(keys) == 12
    assert views_key([BASE], builder, "context") == keys[0]


def test_the_key_changes_with_the_tokenizer_but_not_with_its_last_call(minilm, builder):
    key, other = views_key([BASE], builder, "context"), AutoTokenizer.from_pretrained(minilm)
    assert views_key([BASE], ViewBuilder(other, max_pieces=24), "context") == key
    other("a b", truncation=True, max_length=4, padding="max_length")
    assert views_key([BASE], ViewBuilder(other, max_pieces=24), "context") == key
    other.sep_token = "[MASK]"
    assert views_key([BASE], ViewBuilder(other, max_pieces=24), "context") != key
    more = AutoTokenizer.from_pretrained(minilm)
    more.add_tokens(["Paris Hilton"])
    assert views_key([BASE], ViewBuilder(more, max_pieces=24), "context") != key


def test_a_tokenizer_in_python_has_a_key_of_its_files(minilm, builder, tmp_path):
    vocabulary = (Path(minilm) / "vocab.txt").read_text().splitlines()
    keys = []
    for name, words in (("a", vocabulary), ("b", vocabulary), ("c", [*vocabulary[:-1], "another"])):
        (tmp_path / name).write_text("\n".join(words))
        own = ViewBuilder(BertTokenizerLegacy(str(tmp_path / name)), max_pieces=24)
        keys.append(views_key([BASE], own, "context"))
        assert list(_open(tmp_path / "cache", [BASE], own)) == _views([BASE], own, "context")
    assert keys[0] == keys[1] != keys[2]
    assert views_key([BASE], builder, "context") not in keys
