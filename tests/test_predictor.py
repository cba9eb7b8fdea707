"""Prediction: exact offsets on any text, no dependence on batches, and no context that leaks between sentences."""

import dataclasses
import itertools
import random
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ctxner.views.builder
from ctxner.evaluation.calibration import PlattScaling
from ctxner.model.calibration_file import Calibration
from ctxner.predictions import Prediction
from ctxner.predictor import Tagger
from ctxner.schema import Example, Passage, Sentence, Span
from ctxner.schemes import tags_to_spans
from ctxner.texts import as_scored, sentences_of
from tests.closeness import assert_close

pytestmark = pytest.mark.numeric

# B sentences, T words, L tags

WORDS = [
    "Paris", "Hilton", "sings", "in", "London", ",", "don't", "@you", "#think", "so", "?", "Müller", "日", "👍🏽",
    "http://t.co/x", "10:30", "loooong",
]  # fmt: skip
TEXT = st.text(st.characters(), max_size=50) | st.text(alphabet="Paz9 .,'\n\r\t\ud800\u200d\u0301日👍🏽é", max_size=80)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Sentences of 1 to 70 words (the longest in windows), most with passages."""
    rng = random.Random(0)
    found = []
    for number in range(64):
        words = tuple(rng.choices(WORDS, k=rng.choice([1, 2, 5, 9, 14, 70])))
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 40))) for _ in range(rng.randint(0, 4))]
        found.append(Example(Sentence(f"s-{number}", words), as_scored(texts)))
    return found


def reasons(predictions: list[Prediction]) -> set[str | None]:
    return {prediction.reason for prediction in predictions}


def _assert_same(found: list[Prediction], wanted: list[Prediction]) -> None:
    assert [(own.sentence_id, own.tags, own.spans, own.passages) for own in found] == [
        (own.sentence_id, own.tags, own.spans, own.passages) for own in wanted
    ]
    for first, second in zip(found, wanted, strict=True):
        assert first.entropy == pytest.approx(second.entropy, abs=1e-3)
        assert [e.confidence for e in first.entities] == pytest.approx(
            [e.confidence for e in second.entities], abs=1e-4
        )


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
    _assert_same([found[order.index(index)] for index in range(len(examples))], wanted)


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
        _assert_same(answer, wanted)


@pytest.mark.parametrize("view", ["plain", "context"])
def test_predictions_do_not_depend_on_the_company(tagger, examples, view):
    alone = [tagger.predict([example], view=view)[0] for example in examples[:12]]
    _assert_same(alone, tagger.predict(examples, view=view)[:12])


def test_context_changes_its_own_sentence_and_never_leaks_into_another(tagger, examples):
    before = tagger.predict(examples, view="context")
    changed = 0
    for number in (0, 3, 7, 11):
        own = dataclasses.replace(examples[number], passages=as_scored(["Zurich is a city of banks", "Lake " * 20]))
        after = tagger.predict([*examples[:number], own, *examples[number + 1 :]], view="context")
        others = [index for index in range(len(examples)) if index != number]
        _assert_same([after[index] for index in others], [before[index] for index in others])
        changed += after[number].entropy != pytest.approx(before[number].entropy, abs=1e-3)
    assert changed >= 2


def test_without_passages_both_views_say_the_same(tagger, examples):
    bare = [Example(example.sentence) for example in examples]
    plain, context = tagger.predict(bare, view="plain"), tagger.predict(bare, view="context")
    assert {(prediction.view, prediction.reason) for prediction in plain} == {("plain", None)}
    assert {(prediction.view, prediction.reason) for prediction in context} == {("plain", "no_hits")}
    _assert_same(context, plain)


def test_an_answer_is_the_context_views_exactly_where_a_passage_was_read(tagger, examples):
    for prediction in tagger.predict(examples, view="context"):
        has_read = any(scored.dropped is None for scored in prediction.passages)
        assert (prediction.view, prediction.reason) == (("context", None) if has_read else ("plain", "no_hits"))


def test_the_plain_view_ignores_passages(tagger, examples):
    bare = [Example(example.sentence) for example in examples]
    _assert_same(tagger.predict(examples, view="plain"), tagger.predict(bare, view="plain"))


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
    _assert_same(auto, [c if p.entropy > limit else p for p, c in zip(plain, context, strict=True)])
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


def test_windows_hold_a_sentence_at_least(tagger):
    with pytest.raises(ValueError, match="window is 0 sentences"):
        Tagger(tagger.model, tagger.tokenizer, window=0)


def test_confidence_is_a_probability_and_entropy_is_bounded_by_the_tags(tagger, examples):
    for own in tagger.predict(examples, view="context"):
        assert all(0 < entity.confidence <= 1 for entity in own.entities)
        assert 0 <= own.entropy <= len(own.tags) * torch.tensor(float(len(tagger.labels))).log()


def _check_offsets(tagger, text):
    position = 0
    for entity in tagger.tag(text):
        assert text[entity.start : entity.end] == entity.text
        assert position <= entity.start < entity.end <= len(text)
        assert entity.text.strip() == entity.text
        assert 0 < entity.confidence <= 1
        position = entity.end


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_offsets_are_exact_on_any_text(tagger, text):
    _check_offsets(tagger, text)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None)
@given(text=TEXT)
def test_offsets_are_exact_on_thousands_of_texts(tagger, text):
    _check_offsets(tagger, text)


def test_the_sentences_of_a_text_name_it_as_their_document():
    assert [(own.id, own.document) for own in sentences_of("He ran. She too.", "t")] == [("t-0", "t"), ("t-1", "t")]
    assert sentences_of(["He", "ran"], "t")[0].document is None  # a sentence, of which nothing tells the document


def test_offsets_run_through_all_sentences_of_a_text(tagger):
    text = "Paris Hilton sings.\r\n\r\n👍🏽 Mu\u0308ller thinks so! Is 日本 far?\nYes, London is. " * 6
    found = tagger.tag(text)
    assert all(text[entity.start : entity.end] == entity.text for entity in found)
    sentences = sentences_of(text, "t")
    assert len(sentences) > 18
    starts = [sentence.offsets[0][0] for sentence in sentences]
    assert len({sum(entity.start >= start for start in starts) for entity in found}) > 6
    wanted = [
        entity
        for one in sentences
        for own in [tagger.predict([Example(one)], view="plain")[0]]
        for entity in own.entities
    ]
    assert [(entity.start, entity.end, entity.type) for entity in found] == [(e.start, e.end, e.type) for e in wanted]
    assert [sentence.words for sentence in sentences[:2]] == [
        ("Paris", "Hilton", "sings", "."), ("👍🏽", "Mu\u0308ller", "thinks", "so", "!"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "   ", "\r\n\t \u200b", "\ud800", "\x00\x07"])
def test_a_text_without_words_has_no_entities(tagger, text):
    assert tagger.tag(text) == []
    assert tagger.tag([text, "Paris Hilton sings", []])[::2] == [[], []]
    assert tagger.tag(text, passages=["Paris is a city"]) == []


def test_no_texts_have_no_entities(tagger):
    assert tagger.tag([]) == []


@pytest.mark.parametrize("words", [["word"] * 10_000, ["x" * 100_000, "b"], ["", "\ufe0f", "\x00"], ["\ud83d", "a"]])
def test_hostile_word_lists_are_tagged_whole(tagger, words):
    (found,) = tagger.predict([Example(Sentence("s", tuple(words)))], view="context")
    assert len(found.tags) == len(words)
    text = " ".join(words)
    assert all(text[entity.start : entity.end] == entity.text for entity in tagger.tag([words])[0])


def test_texts_word_lists_and_sentences_are_tagged_alike(tagger):
    words = ("Paris", "Hilton", "sings", "in", "London", "so", "loooong")
    text = " ".join(words)
    alone = tagger.tag(text)
    assert alone
    both = tagger.tag([text, list(words), words, Sentence("own", words)])
    for found in both:
        assert [(e.text, e.type, e.start, e.end) for e in found] == [(e.text, e.type, e.start, e.end) for e in alone]


def test_a_sentence_cut_from_a_text_keeps_the_offsets_into_it(tagger):
    sentence = sentences_of("\n\n  Paris Hilton sings in London", "t")[0]
    (shifted,), (alone,) = tagger.tag([sentence]), tagger.tag([list(sentence.words)])
    assert [entity.start - 4 for entity in shifted] == [entity.start for entity in alone]
    assert shifted


def _answers(entities) -> list:
    return [(entity.start, entity.end, entity.type, round(entity.confidence, 3)) for entity in entities]


def test_passages_of_one_text_switch_on_the_context_view(tagger):
    text, passages = "Paris Hilton sings", ["Paris Hilton is a singer", Passage("p", "wiki", "London")]
    example = Example(sentences_of(text, "0")[0], as_scored(passages))
    (wanted,) = tagger.predict([example], view="context")
    assert wanted.passages[0].num_pieces
    assert _answers(tagger.tag(text, passages=passages)) == _answers(wanted.entities)
    assert _answers(tagger.tag(text, passages={"0": passages})) == _answers(wanted.entities)


def test_passages_reach_the_sentence_with_their_id_only(tagger):
    texts = ["Paris Hilton sings", Sentence("own", ("London", "is", "far")), ["Müller", "thinks"]]
    passages = ["Zurich is a city of banks"]
    bare = [_answers(own) for own in tagger.tag(texts)]
    for number, name in enumerate(("0", "own", "2")):
        example = Example(sentences_of(texts[number], name)[0], as_scored(passages))
        found = [_answers(own) for own in tagger.tag(texts, passages={name: passages})]
        assert found.pop(number) == _answers(tagger.predict([example], view="context")[0].entities)
        assert found == bare[:number] + bare[number + 1 :]


@pytest.mark.parametrize("ids", [["1"], ["own", "0", "7"], [0], [None, "x"]])
def test_passages_for_unknown_sentence_ids_are_refused(tagger, ids):
    with pytest.raises(ValueError, match="passages for unknown sentence ids"):
        tagger.tag(["Paris", Sentence("own", ("London",))], passages={name: ["text"] for name in ids})


def test_a_sequence_of_passages_for_several_texts_is_refused(tagger):
    with pytest.raises(ValueError, match="wanted a mapping from sentence id to passages"):
        tagger.tag(["Paris", "London"], passages=["text"])


@pytest.mark.parametrize("passages", ["Paris is a city", {"0": "Paris is a city"}])
def test_a_bare_string_is_not_taken_for_a_sequence_of_passages(tagger, passages):
    with pytest.raises(ValueError, match="wanted a sequence of passages, found one string"):
        tagger.tag("Paris", passages=passages)


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
    _assert_same(again.predict(examples, view="plain"), scaled.predict(examples, view="plain"))
    raw = Tagger.from_pretrained(tmp_path, calibrated=False)
    assert raw.calibration is None
    _assert_same(raw.predict(examples, view="plain"), tagger.predict(examples, view="plain"))


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
