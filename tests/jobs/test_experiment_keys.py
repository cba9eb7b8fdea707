"""Keys: what makes a step another one, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctxner.demo import make_world, write_world
from ctxner.files.hashes import folder_sha256
from ctxner.files.storage import write_bytes
from jobs.experiment.keys import KINDS, MissingFileError, settings_of, steps_of
from jobs.experiment.study import Study, cells

# Every setting that is part of keys. A setting that is new here throws away all that is done, unless the value with
# which results stay as they were is listed in jobs.experiment.keys.ADDED.
SETTINGS = {
    "data": "token_column tag_column scheme repair labels encoding overlaps train_sentences dev_sentences "
    "unlabelled_ratio",
    "index": "language unit columns shards",
    "retrieval": "query max_query_terms k1 b entries depth layer dtype idf keep drop_near_duplicates "
    "batch_sentences rerank",
    "model": "dropout encoder_dropout attention_dropout word_dropout context_dropout random_passages freeze_embeddings "
    "freeze_layers legal_transitions max_pieces max_passages mark_entries",
    "loss": "mode preset kl temperature",
    "optim": "encoder_lr head_lr crf_lr weight_decay warmup clip epochs batch_sentences batch_pieces accumulate",
    "run": "gpus precision seed dev_views",
}


USUAL = {"index", "contexts", "train", "score"}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    write_world(make_world(num_train=10, num_dev=5, num_test=5), folder)
    return folder


def _keys(
    folder: Path,
    *overrides: str,
    mode: str = "cl-kl",
    contexts: str = "index",
    code: str | None = None,
    calibrate: dict | None = None,
):
    grid = {"x": {"y": {"loss.mode": mode, "contexts": contexts}}}
    tree = {"name": "study", "base": "demo", "grid": grid, "over": "x", "calibrate": calibrate}
    study = Study.model_validate(tree)
    files = [f"data.{split}={folder / split}.conll" for split in ("train", "dev", "test")]
    (cell,) = cells(study, [*files, f"index.corpus=[{folder / 'corpus.jsonl'}]", *overrides])
    return steps_of(cell, split="test", code=code).keys()


def _changed(before: dict, after: dict) -> set[str]:
    return {kind for kind in KINDS if before.get(kind) != after.get(kind)}


def test_a_cell_has_an_index_contexts_a_training_and_a_score(world):
    assert list(_keys(world)) == ["index", "contexts", "train", "score"]


@pytest.mark.parametrize(
    "override",
    ["run.workers=3", "run.threads=2", "run.storage=elsewhere", "data.cache=null", "retrieval.search_actors=4",
     "tagging.n_best=3", "index.folder=elsewhere", "run.name=other", "run.keep_checkpoints=9"],
)  # fmt: skip
def test_where_and_how_fast_a_step_runs_changes_no_key(world, override):
    assert _changed(_keys(world), _keys(world, override)) == set()


@pytest.mark.parametrize(
    ("override", "kinds"),
    [
        ("index.language=de", {"index", "contexts", "train", "score"}),
        ("retrieval.depth=9", {"contexts", "train", "score"}),
        ("data.scheme=IOB2", {"contexts", "train", "score"}),
        ("run.seed=5", {"train", "score"}),
        ("data.train_sentences=3", {"train", "score"}),
        ("loss.temperature=2.0", {"train", "score"}),
    ],
)
def test_a_setting_changes_its_step_and_those_after_it(world, override, kinds):
    assert _changed(_keys(world), _keys(world, override)) == kinds


def test_a_plain_model_is_trained_once_for_all_kinds_of_passages(world):
    keys = [
        _keys(world, mode="plain", contexts=contexts) for contexts in ("index", "shuffled", "random", "data", "none")
    ]
    assert len({key["train"] for key in keys}) == 1
    assert len({key["score"] for key in keys}) == 5
    assert len({_keys(world, contexts=contexts)["train"] for contexts in ("index", "shuffled", "random", "data")}) == 4


def test_contexts_are_retrieved_once_for_modes_seeds_and_controls(world):
    keys = [_keys(world), _keys(world, "run.seed=3"), _keys(world, mode="plain"), _keys(world, contexts="shuffled")]
    assert len({key["contexts"] for key in keys}) == 1


def test_a_model_of_retrieval_is_read_once_for_all_cells(world, tmp_path, monkeypatch):
    """Before: 14 of the 15 s that keys of 200 cells took were the hash of one encoder, 200 times."""
    (tmp_path / "config.json").write_text("{}")
    read = []
    monkeypatch.setattr(
        "jobs.experiment.keys.folder_sha256", lambda folder: read.append(folder) or folder_sha256(folder)
    )
    made = [_keys(world, f"retrieval.encoder={tmp_path}", f"run.seed={seed}") for seed in range(3)]
    assert read == [str(tmp_path)]
    assert len({keys["contexts"] for keys in made}) == 1
    assert made[0]["contexts"] != _keys(world)["contexts"]


def test_contents_count_and_names_do_not(world, tmp_path):
    write_world(make_world(num_train=10, num_dev=5, num_test=5), tmp_path)
    assert _keys(world) == _keys(tmp_path)
    with (tmp_path / "test.conll").open("a") as file:
        file.write("\nOne\tO\nmore\tO\n")
    assert _changed(_keys(world), _keys(tmp_path)) == {"contexts", "score"}  # the same model
    with (tmp_path / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "text": "One more."}) + "\n")
    assert _changed(_keys(world), _keys(tmp_path)) == USUAL


def test_files_behind_uris_count_by_their_contents(world, monkeypatch, tmp_path):
    monkeypatch.setenv("CTXNER_CACHE", str(tmp_path))
    for name in ("corpus.jsonl", "test.conll"):
        write_bytes(f"memory://keys/{name}", (world / name).read_bytes())
    uris = ["index.corpus=[memory://keys/corpus.jsonl]", "data.test=memory://keys/test.conll"]
    assert _keys(world, *uris) == _keys(world)
    write_bytes("memory://keys/test.conll", b"One\tO\nmore\tO\n")
    assert _changed(_keys(world), _keys(world, *uris)) == {"contexts", "score"}
    with pytest.raises(MissingFileError, match="memory://keys/absent: "):
        _keys(world, "data.test=memory://keys/absent")


def test_a_marker_of_the_code_changes_all_keys(world):
    assert _changed(_keys(world), _keys(world, code="2")) == USUAL


def test_a_calibration_comes_before_the_score_and_trains_nothing_anew(world, tmp_path):
    plain, share, gain = (_keys(world, calibrate=wanted) for wanted in (None, {"share": 0.5}, {"gain": 0.9}))
    assert list(share) == ["index", "contexts", "train", "calibrate", "score"]
    assert _changed(plain, share) == {"calibrate", "score"} == _changed(share, gain)
    write_world(make_world(num_train=10, num_dev=5, num_test=5), tmp_path)
    with (tmp_path / "test.conll").open("a") as file:
        file.write("\nOne\tO\nmore\tO\n")
    assert _changed(share, _keys(tmp_path, calibrate={"share": 0.5})) == {"contexts", "score"}
    with pytest.raises(ValueError, match="wanted one of share, f1 and gain"):
        _keys(world, calibrate={"share": 0.5, "gain": 0.9})


def test_a_missing_file_is_told(world, tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.conll: no such file or folder"):
        _keys(world, f"data.dev={tmp_path / 'nowhere.conll'}")


def test_no_setting_joins_the_keys_unseen():
    study = Study.model_validate({"name": "study", "base": "demo", "grid": {"seed": [0]}})
    (cell,) = cells(study)
    tree = settings_of(cell)
    assert {name: " ".join(tree[name]) for name in SETTINGS} == SETTINGS
