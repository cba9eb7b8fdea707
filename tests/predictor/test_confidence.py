"""Confidence, entropy and alternatives are those of the enumerated paths; the threshold decides what is looked up."""

import dataclasses
import itertools

import pytest
import torch

from ctxner.evaluation.calibration import PlattScaling
from ctxner.model.calibration_file import Calibration
from ctxner.predictor import Tagger
from ctxner.schema import Example, Sentence, Span
from ctxner.schemes import tags_to_spans
from tests.closeness import assert_close
from tests.predictor.conftest import WORDS, assert_same, reasons

pytestmark = pytest.mark.numeric


def test_tags_are_legal_and_spell_the_entities(tagger, examples):
    for example, own in zip(examples, tagger.predict(examples, view="context"), strict=True):
        assert len(own.tags) == len(example.sentence.words)
        assert tags_to_spans(own.tags) == own.spans  # raises on an illegal sequence
        assert [entity.text for entity in own.entities] == [
            " ".join(example.sentence.words[span.start : span.end]) for span in own.spans
        ]


@torch.no_grad()
def test_confidence_and_entropy_are_those_of_the_enumerated_paths(tagger):
    examples = [Example(Sentence(str(n), tuple(WORDS[n : n + size]))) for n, size in enumerate((4, 1, 3, 4, 2, 4, 4))]
    num_entities = 0
    for example, own in zip(examples, tagger.predict(examples, view="plain"), strict=True):
        batch = tagger.views.collate([tagger.views.plain(example.sentence)])
        _, emissions_BTL = tagger.model(batch.input_ids_RP, batch.attention_RP, batch.word_index_BT)
        paths = torch.tensor(list(itertools.product(range(len(tagger.labels)), repeat=len(own.tags))))
        repeated = (emissions_BTL.expand(len(paths), -1, -1), batch.mask_BT.expand(len(paths), -1))
        p_B = tagger.model.crf.path_score(repeated[0], paths, repeated[1]).double().softmax(0)
        assert list(own.tags) == [tagger.labels.tags[tag] for tag in paths[p_B.argmax()].tolist()]
        assert own.entropy == pytest.approx(float(torch.special.entr(p_B).sum()), abs=1e-4)
        for entity in own.entities:
            tags = torch.tensor(tagger.labels.encode(own.tags[entity.first_word : entity.last_word]))
            same_B = (paths[:, entity.first_word : entity.last_word] == tags).all(1)
            assert entity.confidence == pytest.approx(float(p_B[same_B].sum()), abs=1e-4)
            num_entities += 1
    assert num_entities >= 3


@torch.no_grad()
@pytest.mark.parametrize("n_best", [1, 3, 40])
def test_alternatives_are_the_best_of_the_enumerated_paths(tagger, n_best):
    examples = [Example(Sentence(str(n), tuple(WORDS[n : n + size]))) for n, size in enumerate((4, 1, 3, 4, 2))]
    for example, own in zip(examples, tagger.predict(examples, view="plain", n_best=n_best), strict=True):
        batch = tagger.views.collate([tagger.views.plain(example.sentence)])
        _, emissions_BTL = tagger.model(batch.input_ids_RP, batch.attention_RP, batch.word_index_BT)
        paths = torch.tensor(list(itertools.product(range(len(tagger.labels)), repeat=len(own.tags))))
        repeated = (emissions_BTL.expand(len(paths), -1, -1), batch.mask_BT.expand(len(paths), -1))
        p_B = tagger.model.crf.path_score(repeated[0], paths, repeated[1]).double().softmax(0)
        by_tags = {tagger.labels.decode(path): p for path, p in zip(paths.tolist(), p_B.tolist(), strict=True)}
        legal = sorted((p for p in p_B.tolist() if p > 0), reverse=True)
        assert [one.probability for one in own.alternatives] == pytest.approx(legal[:n_best], abs=1e-4)
        assert [one.probability for one in own.alternatives] == pytest.approx(
            [by_tags[one.tags] for one in own.alternatives], abs=1e-4
        )
        assert len({one.tags for one in own.alternatives}) == len(own.alternatives)
        assert own.alternatives[0].tags == own.tags
        for one in own.alternatives:
            assert tags_to_spans(one.tags) == tuple(Span(e.first_word, e.last_word, e.type) for e in one.entities)
            for entity in one.entities:
                place = slice(entity.first_word, entity.last_word)
                same = sum(p for tags, p in by_tags.items() if tags[place] == one.tags[place])
                assert entity.confidence == pytest.approx(same, abs=1e-4)


def test_alternatives_change_nothing_else(tagger, examples):
    found = tagger.predict(examples, view="context", n_best=4)
    assert_close([dataclasses.replace(own, alternatives=()) for own in found], tagger.predict(examples, view="context"))
    assert all(0 < sum(one.probability for one in own.alternatives) <= 1 + 1e-9 for own in found)
    with pytest.raises(ValueError, match="n_best is -1"):
        tagger.predict(examples, view="plain", n_best=-1)


def test_auto_looks_up_exactly_the_sentences_above_the_threshold(tagger, examples):
    plain, context = (tagger.predict(examples, view=view) for view in ("plain", "context"))
    limit = sorted(own.entropy for own in plain)[len(plain) // 2] + 1e-3
    auto = Tagger(tagger.model, tagger.tokenizer, window=16).predict(examples, view="auto", threshold=limit)
    assert_same(auto, [c if p.entropy > limit else p for p, c in zip(plain, context, strict=True)])
    confident = [prediction.entropy <= limit for prediction in plain]
    assert [prediction.reason == "confident" for prediction in auto] == confident
    assert {prediction.reason for prediction in auto} == {"confident", "no_hits", None}
    assert "confident" not in reasons(tagger.predict(examples, view="auto", threshold=-1.0))
    assert reasons(tagger.predict(examples, view="auto", threshold=1e9)) == {"confident"}


def test_auto_takes_the_calibrations_threshold_unless_one_is_given(tagger, examples):
    calibrated = Tagger(tagger.model, tagger.tokenizer, calibration=Calibration(threshold=1e9))
    assert reasons(calibrated.predict(examples, view="auto")) == {"confident"}
    assert "confident" not in reasons(calibrated.predict(examples, view="auto", threshold=-1.0))
    for own in (tagger, Tagger(tagger.model, tagger.tokenizer, calibration=Calibration())):
        with pytest.raises(ValueError, match="run `ctxner calibrate MODEL`"):
            own.predict([], view="auto")


def test_confidences_are_scaled_by_the_view_that_answers(tagger, examples):
    scaling = PlattScaling(0.5, -0.3)
    scaled = Tagger(tagger.model, tagger.tokenizer, calibration=Calibration({"context": scaling}))
    assert_close(scaled.predict(examples, view="plain"), tagger.predict(examples, view="plain"))
    pairs = zip(*(own.predict(examples, view="context", n_best=2) for own in (scaled, tagger)), strict=True)
    for found, raw in pairs:
        if raw.view == "plain":  # no passage fitted: exactly the plain view's answer
            assert_close(found, raw)
            continue
        assert_close(
            [entity.confidence for entity in found.entities], [scaling(entity.confidence) for entity in raw.entities]
        )
        assert_close((found.tags, found.entropy), (raw.tags, raw.entropy))
        for path, before in zip(found.alternatives, raw.alternatives, strict=True):
            assert_close(path.probability, before.probability)
            assert_close(
                [entity.confidence for entity in path.entities],
                [scaling(entity.confidence) for entity in before.entities],
            )


def test_confidence_is_a_probability_and_entropy_is_bounded_by_the_tags(tagger, examples):
    for own in tagger.predict(examples, view="context"):
        assert all(0 < entity.confidence <= 1 for entity in own.entities)
        assert 0 <= own.entropy <= len(own.tags) * torch.tensor(float(len(tagger.labels))).log()
