"""The first so many sentences of a split."""

from pathlib import Path

import pytest

from ctxner.config import DataConfig
from ctxner.files.contexts import Context
from ctxner.training.data.training_set import load_split, load_training
from tests.contexts_files import write_contexts


def test_train_and_dev_are_cut_to_the_first_sentences_and_test_is_not(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.conll").write_text("".join(f"w{n}\tO\n\n" for n in range(5)))
    paths = {split: tmp_path / f"{split}.conll" for split in ("train", "dev", "test")}
    data = DataConfig(**paths, train_sentences=2, dev_sentences=3)
    assert [example.sentence.words for example in load_training(data)[0]] == [("w0",), ("w1",)]
    assert [len(load_split(data, split)) for split in ("dev", "test")] == [3, 5]
    assert len(load_split(DataConfig(**paths), "train")) == 5


def test_the_first_sentences_and_a_file_of_them_train_on_contexts_of_all_or_of_these(tmp_path: Path) -> None:
    words = [f"w{n}" for n in range(5)]
    rows = {f"train-{n}": Context((word,), word, ()) for n, word in enumerate(words)}
    for name, number in (("all", 5), ("first", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.conll").write_text("".join(f"{word}\tO\n\n" for word in words[:number]))
        write_contexts(dict(list(rows.items())[:number]), tmp_path / name / "train.parquet")

    def loaded(data: str, contexts: str, number: int | None = None) -> int:
        paths = {"train": tmp_path / data / "train.conll", "contexts": tmp_path / contexts}
        return len(load_split(DataConfig(**paths, train_sentences=number), "train"))

    assert (loaded("first", "all"), loaded("all", "all", 2), loaded("all", "first", 2)) == (2, 2, 2)
    with pytest.raises(ValueError, match=r"no row for 3 of 5 sentences, first 'train-2'"):
        loaded("all", "first")
