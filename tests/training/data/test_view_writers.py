"""Writers of stored views: several at once, killed, failed, on a full disk; and what they leave alone."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
import tracemalloc
from pathlib import Path

import pytest

from ctxner.files.atomic import target_of
from ctxner.schema import Sentence
from ctxner.training.data import view_store as viewstore
from ctxner.training.data.view_key import views_key
from ctxner.training.data.view_store import open_views
from ctxner.views.builder import ViewBuilder
from tests.training.data.conftest import example_of, examples_of, open_of, views_of

FORK = multiprocessing.get_context("fork")


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
    examples = examples_of(40)
    key, barrier, answers = views_key(examples, builder, "context"), FORK.Barrier(3), FORK.Queue()
    arguments = (tmp_path / "cache", key, Slow(examples, tmp_path / "notes"), tokenizer, barrier, answers)
    workers = [FORK.Process(target=_in_a_process, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [views_of(examples, builder, "context")] * 3
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
    examples, others = examples_of(20), examples_of(3)
    key, other = (views_key(own, builder, "context") for own in (examples, others))
    worker = FORK.Process(target=open_views, args=(tmp_path, key, Deadly(examples), builder, "context"))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    assert {target_of(name) or name for name in os.listdir(tmp_path)} == {key, f"{key}.lock"}
    open_views(tmp_path, other, others, builder, "context")
    assert os.listdir(tmp_path) == [other]
    assert list(open_views(tmp_path, key, examples, builder, "context")) == views_of(examples, builder, "context")
    assert set(os.listdir(tmp_path)) == {key, other}


def test_a_failed_writer_leaves_nothing(tmp_path, builder):
    def broken():
        yield from examples_of(3)
        raise FileNotFoundError("train.conll")

    with pytest.raises(FileNotFoundError, match=r"train\.conll"):  # the caller's own error, as it is
        open_views(tmp_path, "0" * 64, broken(), builder, "plain")
    with pytest.raises(ValueError, match="sentence 'empty' has no words"):
        open_of(tmp_path, [example_of([], id="empty")], builder)
    assert os.listdir(tmp_path) == []


def test_a_key_of_other_arguments_is_refused(tmp_path, builder):
    examples = examples_of(3)
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
        open_of(tmp_path / "file", examples_of(2), builder)


def test_a_full_disk_is_named_with_advice_and_leaves_nothing(tmp_path, builder):
    examples, limits = examples_of(200), resource.getrlimit(resource.RLIMIT_FSIZE)
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
        return (example_of(["Some", "words", f"w{n % 7}"] * 100, id=f"s{n}") for n in range(self.num))


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
    sets = [examples_of(n) for n in range(1, 7)]
    held = open_of(tmp_path, sets[0], builder, keep=3)
    keys = [held.path.name, *(open_of(tmp_path, examples, builder, keep=3).path.name for examples in sets[1:4])]
    assert set(os.listdir(tmp_path)) == {keys[0], *keys[1:4]}  # the oldest is open, and the others are within the bound
    open_of(tmp_path, sets[1], builder, keep=3)  # used again
    keys.append(open_of(tmp_path, sets[4], builder, keep=3).path.name)
    assert set(os.listdir(tmp_path)) == {keys[0], keys[1], keys[3], keys[4]}
    assert list(held) == views_of(sets[0], builder, "context")
    del held
    keys.append(open_of(tmp_path, sets[5], builder, keep=3).path.name)
    assert set(os.listdir(tmp_path)) == {keys[1], keys[4], keys[5]}


def test_other_files_in_the_folder_are_let_alone(tmp_path, builder):
    for name in ("notes.txt", "a" * 64 + ".bak"):
        (tmp_path / name).mkdir()
    for num in (1, 2, 3):
        open_of(tmp_path, examples_of(num), builder, keep=1)
    assert len(os.listdir(tmp_path)) == 3
