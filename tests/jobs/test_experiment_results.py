"""Results of cells and the store of their steps."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from ctxner.files.contexts import Context, read_contexts
from ctxner.schema import Passage, ScoredPassage
from jobs.experiment.contexts import random_contexts, shuffle_contexts, write_rest
from jobs.experiment.results import dtype_for, pack, read_result, result_path, unpack, write_result
from jobs.experiment.store import Step, Store, started_line
from tests.contexts_files import write_contexts
from tests.jobs.experiment_results import FACTS, result_of

STEP = Step("train", "0123")


@pytest.mark.parametrize("most", [1, 255, 256, 70_000])
def test_counts_survive_packing(most):
    counts = np.random.default_rng(0).integers(0, most, (500, 3), endpoint=True)
    counts[0] = most
    dtype = dtype_for([counts])
    assert dtype == {1: "uint8", 255: "uint8", 256: "uint16", 70_000: "uint32"}[most]
    assert np.array_equal(unpack(pack(counts, dtype), dtype, 500), counts)


def test_damaged_counts_are_refused():
    text = pack(np.ones((10, 3), int), "uint8")
    for damaged, units in ((text[:-8], 10), ("!" + text, 10), (text, 11), (text, 9), (text, 0), (text, 10**9)):
        with pytest.raises(ValueError, match=r"packed counts|units; wanted"):
            unpack(damaged, "uint8", units)


def test_a_bomb_is_not_unpacked():
    bomb = pack(np.zeros((3_000_000, 3), int), "uint32")
    with pytest.raises(ValueError, match="another number of units than 10"):
        unpack(bomb, "uint8", 10)


def test_a_result_of_ten_thousand_sentences_is_small_and_reads_back(tmp_path):
    chance = np.random.default_rng(0)
    gold = chance.poisson(2, 10_000)
    predicted = chance.poisson(2, 10_000)
    counts = np.stack([np.minimum(gold, predicted), predicted, gold], axis=1)
    result = result_of({"mode": "plain", "seed": "0"}, {"plain": counts, "context": counts})
    path = write_result(result, tmp_path)
    assert path == tmp_path / "mine" / "mode-plain_seed-0.json"
    assert path.stat().st_size < 60_000
    assert read_result(path) == result
    assert np.array_equal(read_result(path).counts("context"), counts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree | {"version": 2}, "version 2 of results; this program reads 1"),
        (lambda tree: tree | {"seed": "x"}, "seed: found 'x'"),
        (lambda tree: tree | {"more": 1}, "more: unknown key"),
        (lambda tree: [], "version None"),
    ],
)
def test_a_faulty_result_is_refused_with_the_place(tmp_path, change, message):
    path = write_result(result_of({"seed": "0"}, {"plain": np.ones((3, 3), int)}), tmp_path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=str(path.name)) as error:
        read_result(path)
    assert message in str(error.value)


def test_counts_that_do_not_add_up_are_refused():
    result = result_of({"seed": "0"}, {"plain": np.ones((3, 3), int)})
    wrong = result.scores["plain"].model_copy(update={"all": (2, 3, 3)})
    with pytest.raises(ValueError, match="do not add up"):
        result.model_copy(update={"scores": {"plain": wrong}}).counts("plain")


def test_a_result_too_large_for_git_is_refused(tmp_path):
    result = result_of({"seed": "0"}, {"plain": np.ones((3, 3), int)})
    large = result.model_copy(update={"unit_reason": "x" * 60_000})
    with pytest.raises(ValueError, match="60,000 at most"):
        write_result(large, tmp_path)
    assert not result_path(tmp_path, "mine", "seed-0").exists()


def test_only_one_holds_a_step_and_status_sees_it(tmp_path):
    store, held, release = Store(tmp_path), threading.Event(), threading.Event()

    def hold() -> None:
        with store.claim(STEP):
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    assert store.is_running(STEP)
    with pytest.raises(BlockingIOError), store.claim(STEP):
        pass
    release.set()
    holder.join()
    assert not store.is_running(STEP)
    with store.claim(STEP):
        pass


def test_a_step_is_done_while_its_facts_and_what_it_made_are_there(tmp_path):
    store = Store(tmp_path)
    store.folder(STEP).mkdir(parents=True)
    assert store.done(STEP) is None
    store.finish(STEP, FACTS)
    assert store.done(STEP) == FACTS
    store.folder(STEP).rmdir()
    assert store.done(STEP) is None


def test_a_step_of_which_a_file_is_cut_short_is_made_anew(tmp_path):
    store, folder = Store(tmp_path), Store(tmp_path).folder(STEP)
    folder.mkdir(parents=True)
    for name in ("result.json", "evaluation-test.html", "else.txt"):
        (folder / name).write_text("whole")
    store.finish(STEP, FACTS)
    (folder / "else.txt").unlink()
    assert store.done(STEP) == FACTS  # no later step reads it
    store.forget_damaged(STEP)
    assert folder.is_dir()
    (folder / "result.json").write_text("whol")
    assert store.done(STEP) is None
    assert store.was_done(STEP)
    store.forget_damaged(STEP)
    assert not folder.exists()
    assert not store.was_done(STEP)


def test_a_new_attempt_forgets_why_the_last_one_failed_and_counts(tmp_path):
    store = Store(tmp_path)
    store.log(STEP).parent.mkdir()
    for number in (1, 2):
        with store.claim(STEP), store.log(STEP).open("a") as log:
            assert store.failure(STEP) is None
            log.write(started_line(STEP, "now", "here", 1) + f"attempt {number}\n\n")
            store.fail(STEP, "why", 75)
        assert (store.attempts(STEP), store.last_line(STEP)) == (number, f"attempt {number}")
        assert (store.failure(STEP), store.exit_code(STEP)) == ("why", 75)


def _contexts(folder) -> dict[str, Context]:
    passages = [ScoredPassage(Passage(f"p{n}", "s", f"text {n}"), 1.0, 1, named=((0, 1),)) for n in range(20)]
    contexts = {f"s{n}": Context((f"word{n}",), "query", (passages[n],)) for n in range(20)}
    write_contexts(contexts, folder / "train.parquet")
    return contexts


def test_shuffled_contexts_give_every_sentence_those_of_another(tmp_path):
    before = _contexts(tmp_path / "from")
    assert shuffle_contexts(tmp_path / "from", tmp_path / "to") == 20
    after = read_contexts(tmp_path / "to" / "train.parquet")
    given = [context.passages[0].passage.id for context in after.values()]
    assert sorted(given) == sorted(context.passages[0].passage.id for context in before.values())
    for id, context in after.items():
        assert context.words == before[id].words
        assert context.passages != before[id].passages
        assert context.passages[0].named == ()
    shuffle_contexts(tmp_path / "from", tmp_path / "again")
    assert read_contexts(tmp_path / "again" / "train.parquet") == after


def test_random_contexts_are_training_sentences_and_never_the_sentence(tmp_path):
    before = _contexts(tmp_path / "from")
    random_contexts(tmp_path / "from", tmp_path / "to")
    texts = {" ".join(context.words) for context in before.values()}
    for context in read_contexts(tmp_path / "to" / "train.parquet").values():
        given = [scored.passage.text for scored in context.passages]
        assert len(set(given)) == len(given) == 6
        assert set(given) <= texts - {" ".join(context.words)}


def test_the_rest_are_the_sentences_after_the_labelled_ones(tmp_path):
    before = _contexts(tmp_path)
    write_rest(tmp_path / "train.parquet", tmp_path / "rest.parquet", 15)
    assert read_contexts(tmp_path / "rest.parquet") == {id: before[id] for id in list(before)[15:]}
    with pytest.raises(ValueError, match="leaves none"):
        write_rest(tmp_path / "train.parquet", tmp_path / "rest.parquet", 20)
