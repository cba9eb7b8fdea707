"""XLM-R's architecture and its real tokenizer class, on inputs up to its limit of 512 pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import XLMRobertaTokenizer

from ctxner.config import parse_config
from ctxner.demo import make_world
from ctxner.encoders import load_tokenizer
from ctxner.labels import LabelSet
from ctxner.predictor import Tagger
from ctxner.schema import Example, Passage, ScoredPassage
from ctxner.training.build import build_model, build_step
from ctxner.training.data.training_set import TrainingSet
from ctxner.views.builder import ViewBuilder
from tests.xlm_roberta import save_xlm_roberta

WORLD = make_world(num_train=12, num_dev=0, num_test=0)
TEXTS = [*(own.text for own in WORLD.corpus), *(" ".join(own.words) for own in WORLD.train)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_xlm_roberta(tmp_path_factory.mktemp("xlmr") / "encoder", TEXTS)


def test_the_sentencepiece_model_loads_into_its_own_tokenizer_class(encoder: str) -> None:
    tokenizer = load_tokenizer(encoder)
    assert isinstance(tokenizer, XLMRobertaTokenizer)
    assert (tokenizer.cls_token_id, tokenizer.pad_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id) == (
        0,
        1,
        2,
        3,
    )
    views = ViewBuilder(tokenizer)
    for own in WORLD.train:
        [row] = views.plain(own).windows
        assert (row[0], row[-1]) == (0, 2)
        assert tokenizer.decode(row[1:-1]).split() == list(own.words)


def test_a_step_learns_from_views_of_512_pieces(encoder: str, tmp_path: Path) -> None:
    passages = tuple(ScoredPassage(own, 1.0, rank) for rank, own in enumerate(WORLD.corpus[:60], 1))
    examples = [Example(own, passages) for own in WORLD.train]
    config = parse_config({"model": {"encoder": encoder, "max_passages": 60, "dropout": 0.0}})
    labels = LabelSet(WORLD.types)
    model = build_model(config, labels)
    assert model.config.max_pieces == 512, "of 514 positions the first two are no pieces'"
    views = ViewBuilder(load_tokenizer(encoder), max_pieces=512, max_passages=60)
    data = TrainingSet(examples, labels, views, config)
    assert max(view.longest_row for view in data.context) > 500
    step = build_step(model, config).train()
    optimizer = torch.optim.AdamW(step.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss = step(*data.share(range(4), 0, 1, torch.device("cpu")))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    model.save_pretrained(tmp_path / "model")
    views.tokenizer.save_pretrained(tmp_path / "model")
    before, after = Tagger(model, views.tokenizer), Tagger.from_pretrained(tmp_path / "model")
    for view in ("plain", "context"):
        expected, found = (own.predict(examples, view=view) for own in (before, after))
        assert [own.tags for own in found] == [own.tags for own in expected]


def test_a_passage_that_would_exceed_512_pieces_is_left_out(encoder: str) -> None:
    long = ScoredPassage(Passage("p", "x", "Velmora " * 500), 1.0, 1)
    view = ViewBuilder(load_tokenizer(encoder)).context(Example(WORLD.train[0], (long,)))
    assert view.passages[0].dropped == "piece_budget"
    assert view.longest_row <= 512
