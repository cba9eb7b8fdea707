"""Prediction: no dependence on batches or company, and no context that leaks between sentences."""

import dataclasses
import random
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import ctxner.views.builder
from ctxner.evaluation.calibration import PlattScaling
from ctxner.model.calibration_file import Calibration
from ctxner.predictor import Tagger
from ctxner.schema import Example, Passage, Sentence
from ctxner.texts import as_scored
from tests.closeness import assert_close
from tests.predictor.conftest import WORDS, assert_same

pytestmark = pytest.mark.numeric


def test_the_fixture_finds_entities_of_both_types_and_lengths(tagger, examples):
    spans = [span for own in tagger.predict(examples, view="plain") for span in own.spans]
    assert len(spans) > 20
    assert {span.type for span in spans} == set(tagger.labels.types) == {"person", "place"}
    assert {1, 2} < {span.end - span.start for span in spans}


@pytest.mark.parametrize("view", ["plain", "context"])
@pytest.mark.parametrize(
    ("batch_pieces", "window"), [(1, 512), (1, 1), (300, 64), (10**6, 64), (10**6, 1), (2048, 16), (8192, 512)]
)
def test_predictions_do_not_depend_on_batches_windows_or_order(tagger, examples, view, batch_pieces, window):
    wanted = tagger.predict(examples, view=view)
    order = random.Random(batch_pieces + window).sample(range(len(examples)), len(examples))
    other = Tagger(tagger.model, tagger.tokenizer, batch_pieces=batch_pieces, window=window)
    found = other.predict([examples[index] for index in order], view=view)
    assert_same([found[order.index(index)] for index in range(len(examples))], wanted)


def test_threads_that_share_a_tagger_get_the_answers_of_one_thread(tagger, examples, monkeypatch):
    """Every answer is compared, with a cache of words so small that threads replace it under each other."""
    monkeypatch.setattr(ctxner.views.builder, "_CACHED_WORDS", 3)
    entry = dataclasses.replace(as_scored([Passage("p", "s", "It is", "Paris", type="city")])[0], named=((0, 1),))
    short = [Example(Sentence(f"t-{n}", tuple(WORDS[n : n + 4])), (entry,)) for n in range(8)]
    asked = [[example] for example in short] + [list(examples[n : n + 3]) for n in range(0, 24, 3)]
    alone = [tagger.predict(batch, view="context") for batch in asked]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda batch: tagger.predict(batch, view="context"), asked * 20))
    finally:
        sys.setswitchinterval(before)
    for answer, wanted in zip(answers, alone * 20, strict=True):
        assert_same(answer, wanted)


@pytest.mark.parametrize("view", ["plain", "context"])
def test_predictions_do_not_depend_on_the_company(tagger, examples, view):
    alone = [tagger.predict([example], view=view)[0] for example in examples[:12]]
    assert_same(alone, tagger.predict(examples, view=view)[:12])


def test_context_changes_its_own_sentence_and_never_leaks_into_another(tagger, examples):
    before = tagger.predict(examples, view="context")
    changed = 0
    for number in (0, 3, 7, 11):
        own = dataclasses.replace(examples[number], passages=as_scored(["Zurich is a city of banks", "Lake " * 20]))
        after = tagger.predict([*examples[:number], own, *examples[number + 1 :]], view="context")
        others = [index for index in range(len(examples)) if index != number]
        assert_same([after[index] for index in others], [before[index] for index in others])
        changed += after[number].entropy != pytest.approx(before[number].entropy, abs=1e-3)
    assert changed >= 2


def test_without_passages_both_views_say_the_same(tagger, examples):
    bare = [Example(example.sentence) for example in examples]
    plain, context = tagger.predict(bare, view="plain"), tagger.predict(bare, view="context")
    assert {(prediction.view, prediction.reason) for prediction in plain} == {("plain", None)}
    assert {(prediction.view, prediction.reason) for prediction in context} == {("plain", "no_hits")}
    assert_same(context, plain)


def test_an_answer_is_the_context_views_exactly_where_a_passage_was_read(tagger, examples):
    for prediction in tagger.predict(examples, view="context"):
        has_read = any(scored.dropped is None for scored in prediction.passages)
        assert (prediction.view, prediction.reason) == (("context", None) if has_read else ("plain", "no_hits"))


def test_the_plain_view_ignores_passages(tagger, examples):
    bare = [Example(example.sentence) for example in examples]
    assert_same(tagger.predict(examples, view="plain"), tagger.predict(bare, view="plain"))


def test_used_and_dropped_passages_come_back_in_order(tagger, examples):
    for example, own in zip(examples, tagger.predict(examples, view="context"), strict=True):
        assert [scored.passage for scored in own.passages] == [scored.passage for scored in example.passages]
        assert all((scored.num_pieces is None) != (scored.dropped is None) for scored in own.passages)


def test_an_iterator_is_taken_like_the_list_of_its_items(tagger, examples):
    texts = ["Paris sings in London", ["Paris", "Hilton"], Sentence("s", ("so", "?"))]
    assert_close(tagger.tag(text for text in texts), tagger.tag(texts))
    assert_close(tagger.pipeline(iter(texts)), tagger.pipeline(texts))
    assert [own.spans for own in tagger.predict(iter(examples[:5]), view="plain")] == [
        own.spans for own in tagger.predict(examples[:5], view="plain")
    ]


def test_many_sentences_come_back_in_order_with_progress(tagger):
    examples = [Example(Sentence(f"s-{number}", tuple(WORDS[: 1 + number % 9]))) for number in range(50)]
    seen: list[int] = []
    windows = Tagger(tagger.model, tagger.tokenizer, window=16)
    found = windows.predict(examples, view="plain", on_progress=seen.append)
    assert [own.sentence_id for own in found] == [example.sentence.id for example in examples]
    assert seen == [16, 32, 48, 50]
    assert tagger.predict([], view="plain") == []


def test_windows_hold_a_sentence_at_least(tagger):
    with pytest.raises(ValueError, match="window is 0 sentences"):
        Tagger(tagger.model, tagger.tokenizer, window=0)


def test_the_pipelines_output_is_the_entities(tagger):
    text, passages = "Paris Hilton sings in London", ["Zurich is a city of banks"]
    for own_passages in (None, passages):
        groups = tagger.pipeline(text, passages=own_passages)
        assert [list(own) for own in groups] == [["entity_group", "score", "word", "start", "end"]] * len(groups)
        entities = tagger.tag(text, passages=own_passages)
        assert_close(
            [tuple(group.values()) for group in groups],
            [(entity.type, entity.confidence, entity.text, entity.start, entity.end) for entity in entities],
        )
        assert groups
    assert [len(own) for own in tagger.pipeline([text, "", text])] == [len(tagger.tag(text)), 0, len(tagger.tag(text))]


def test_a_saved_tagger_keeps_its_calibration_and_can_leave_it_unread(tagger, examples, tmp_path):
    calibration = Calibration({"plain": PlattScaling(0.5, -0.3)}, 0.25)
    scaled = Tagger(tagger.model, tagger.tokenizer, calibration=calibration)
    scaled.save_pretrained(tmp_path)
    again = Tagger.from_pretrained(tmp_path, window=7)
    assert (again.calibration, again.window) == (calibration, 7)
    assert_same(again.predict(examples, view="plain"), scaled.predict(examples, view="plain"))
    raw = Tagger.from_pretrained(tmp_path, calibrated=False)
    assert raw.calibration is None
    assert_same(raw.predict(examples, view="plain"), tagger.predict(examples, view="plain"))


def test_a_saved_tagger_answers_the_same(tagger, examples, tmp_path):
    tagger.save_pretrained(tmp_path)
    again = Tagger.from_pretrained(tmp_path)
    assert again.labels == tagger.labels
    assert_close(again.predict(examples, view="context"), tagger.predict(examples, view="context"))
    assert not [path for path in tmp_path.iterdir() if path.suffix in {".bin", ".pt", ".pkl", ".py"}]


def test_a_folder_that_is_no_tagger_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ctxner train"):
        Tagger.from_pretrained(tmp_path / "absent")


def test_in_bfloat16_the_encoder_is_rounded_and_the_crf_is_not(tagger, examples, monkeypatch):
    narrow = Tagger(tagger.model, tagger.tokenizer, bfloat16=True)
    autocast = []
    viterbi = type(tagger.model.crf).viterbi

    def watched(crf, emissions_BTL, mask_BT):
        autocast.append(torch.is_autocast_enabled("cpu"))
        assert emissions_BTL.dtype == torch.float32
        return viterbi(crf, emissions_BTL, mask_BT)

    monkeypatch.setattr(type(tagger.model.crf), "viterbi", watched)
    found, wanted = narrow.predict(examples, view="context"), tagger.predict(examples, view="context")
    assert set(autocast) == {False}
    entropies = [(ours.entropy, theirs.entropy) for ours, theirs in zip(found, wanted, strict=True)]
    assert any(abs(ours - theirs) > 1e-5 for ours, theirs in entropies)
    assert all(abs(ours - theirs) < 0.2 * (1 + theirs) for ours, theirs in entropies)
