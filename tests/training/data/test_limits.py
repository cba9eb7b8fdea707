"""The first so many sentences of a split."""

from pathlib import Path

from ctxner.config import DataConfig
from ctxner.training.data.training_set import load_split, load_training


def test_train_and_dev_are_cut_to_the_first_sentences_and_test_is_not(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.conll").write_text("".join(f"w{n}\tO\n\n" for n in range(5)))
    paths = {split: tmp_path / f"{split}.conll" for split in ("train", "dev", "test")}
    data = DataConfig(**paths, train_sentences=2, dev_sentences=3)
    assert [example.sentence.words for example in load_training(data)[0]] == [("w0",), ("w1",)]
    assert [len(load_split(data, split)) for split in ("dev", "test")] == [3, 5]
    assert len(load_split(DataConfig(**paths), "train")) == 5
