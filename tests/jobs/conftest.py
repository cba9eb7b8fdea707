"""What the tests of the commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ctxner.demo import World, make_world, write_world
from ctxner.files.contexts import Context
from ctxner.schema import ScoredPassage
from tests.contexts_files import write_contexts


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, stdout, stderr; a traceback fails the test."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from jobs.cli import main

        monkeypatch.setattr(sys, "argv", ["ctxner", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return run


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(num_train=12, num_dev=4, num_test=5)


@pytest.fixture
def folder(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: the world's files and contexts for all of its sentences."""
    write_world(world, tmp_path / "world")
    for split in ("train", "dev", "test"):
        passage = ScoredPassage(world.corpus[0], 1.0, 1)
        rows = {f"{split}-{n}": Context(own.words, "q", (passage,)) for n, own in enumerate(getattr(world, split))}
        write_contexts(rows, tmp_path / "contexts" / f"{split}.parquet")
    (tmp_path / "config.yaml").write_text(
        "data: {train: world/train.conll, dev: world/dev.conll, test: world/test.conll, contexts: contexts}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def model(world: World, minilm: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved tagger with random weights: what it finds is chance, where it finds it is not."""
    import torch
    from transformers import BertConfig

    from ctxner.encoders import load_tokenizer
    from ctxner.model.tagger import EncoderCRF, EncoderCRFConfig
    from ctxner.predictor import Tagger

    torch.manual_seed(0)
    encoder = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    tagger = EncoderCRF(EncoderCRFConfig(encoder=encoder.to_dict(), types=list(world.types)))
    torch.nn.init.normal_(tagger.head.weight, std=2.0)
    path = tmp_path_factory.mktemp("model")
    Tagger(tagger, load_tokenizer(minilm)).save_pretrained(path)
    return str(path)
