"""spaCy's documents hold our entities: the text to the last character, and what `Tagger.tag` answers."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

spacy = pytest.importorskip("spacy", reason="spaCy is not installed: pip install 'ctxner[spacy]'")

from ctxner.model.calibration_file import Calibration  # noqa: E402
from ctxner.predictor import Tagger  # noqa: E402
from ctxner.schema import Entity  # noqa: E402
from ctxner.spacy_component import CtxnerComponent  # noqa: E402
from ctxner.spacy_docs import make_doc, set_entities  # noqa: E402
from ctxner.texts import sentences_of  # noqa: E402

pytestmark = pytest.mark.numeric

TEXT = st.text(st.characters(), max_size=50) | st.text(alphabet="Paz9 .,'\n\r\t\ud800\u200d\u0301日👍🏽é", max_size=80)
LONG = "Paris Hilton sings.\r\n\r\n👍🏽  Mu\u0308ller thinks so! Is 日本 far?\n  Yes, London is. " * 3


@pytest.fixture(scope="module")
def model(tagger, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model")
    tagger.save_pretrained(path)
    return str(path)


def answers(entities) -> list:
    return [(own.start, own.end, own.type, pytest.approx(own.confidence, abs=1e-4)) for own in entities]


def held(doc) -> list:
    return [(own.start_char, own.end_char, own.label_, own._.confidence) for own in doc.ents]


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_a_document_has_the_text_and_the_entities_of_any_text(tagger, text):
    doc = tagger.to_spacy(text)
    wanted = "".join("\ufffd" if "\ud800" <= own <= "\udfff" else own for own in text)
    assert doc.text == wanted
    assert held(doc) == answers(tagger.tag(text))
    sentences = sentences_of(text, "0")
    assert len(list(doc.sents)) == max(len(sentences), bool(text))
    words = [(start, end) for own in sentences for start, end in own.offsets]
    assert set(words) <= {(token.idx, token.idx + len(token)) for token in doc}


def test_a_document_reads_passages_and_can_be_joined_and_drawn(tagger):
    text, passages = "Paris Hilton sings in London", ["Zurich is a city of banks"]
    doc = tagger.to_spacy(text, passages=passages)
    assert held(doc) == answers(tagger.tag(text, passages=passages))
    both = spacy.tokens.Doc.from_docs([doc, tagger.to_spacy(LONG)])
    assert len(both.ents) == len(doc.ents) + len(tagger.tag(LONG))
    assert doc.ents[0].text in spacy.displacy.render(doc, style="ent", page=False, jupyter=False)


def test_the_component_answers_what_the_tagger_answers(tagger):
    nlp = spacy.blank("en")
    component = CtxnerComponent(tagger)
    for text in (LONG, "", "  ", "Paris Hilton sings in London"):
        doc = component(nlp.make_doc(text))
        for found, wanted in zip(doc.ents, tagger.tag(text), strict=True):
            assert found.start_char <= wanted.start < wanted.end <= found.end_char
            assert found.label_ == wanted.type
            assert found._.confidence == pytest.approx(wanted.confidence, abs=1e-4)


def test_entities_of_earlier_components_stay_unless_they_are_to_be_replaced(model, tagger):
    text = "Paris Hilton sings in London"
    (first, *_) = found = tagger.tag(text)
    for options in ({"overwrite": True}, {"overwrite": False}, {}):
        nlp = spacy.blank("en")
        nlp.add_pipe("entity_ruler").add_patterns([{"label": "RULE", "pattern": first.text}])
        nlp.add_pipe("ctxner", config={"model": model, **options})
        labels = {(own.start_char, own.end_char): own.label_ for own in nlp(text).ents}
        wanted = {(own.start, own.end): own.type for own in found}
        assert labels == (wanted if options.get("overwrite") else {**wanted, (first.start, first.end): "RULE"})


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=60), tokens=st.lists(st.integers(0, 60), max_size=20))
def test_entities_grow_to_whatever_tokens_there_are(tagger, text, tokens):
    cuts = sorted({0, len(text), *(own for own in tokens if own < len(text))})
    words = [text[start:end] for start, end in pairwise(cuts)]
    doc = spacy.tokens.Doc(spacy.vocab.Vocab(), words=words, spaces=[False] * len(words))
    found = CtxnerComponent(tagger)(doc).ents
    assert all(own._.confidence for own in found)
    wanted = tagger.tag(text)
    assert all(any(own.start_char <= one.start and one.end <= own.end_char for one in wanted) for own in found)
    assert bool(found) == bool(wanted)


def test_of_entities_that_overlap_after_growing_the_longer_and_then_the_first_stays():
    doc = spacy.tokens.Doc(spacy.vocab.Vocab(), words=["ab-cd", "ef", "gh"])
    entities = [
        Entity("ab", "x", 0, 2, 0, 1, 0.1), Entity("cd", "y", 3, 5, 2, 3, 0.2), Entity("d ef", "z", 4, 8, 2, 4, 0.3),
        Entity("gh", "x", 9, 11, 4, 5, 0.4), Entity("h", "y", 10, 11, 4, 5, 0.5),
    ]  # fmt: skip
    set_entities(doc, entities)
    assert held(doc) == [(0, 8, "z", 0.3), (9, 11, "x", 0.4)]


def test_a_stream_of_documents_is_tagged_as_each_alone(tagger):
    nlp = spacy.blank("en")
    texts = [LONG, "", "Paris Hilton sings in London", "Müller thinks so"] * 5
    found = list(CtxnerComponent(tagger).pipe(map(nlp.make_doc, texts), batch_size=3))
    assert [doc.text for doc in found] == texts
    for doc, text in zip(found, texts, strict=True):
        alone = CtxnerComponent(tagger)(nlp.make_doc(text))
        assert [own[:3] for own in held(doc)] == [own[:3] for own in held(alone)]


def test_the_context_view_reads_the_passages_of_the_document(tagger):
    text, passages = "Paris Hilton sings in London", ["Zurich is a city of banks"]
    component = CtxnerComponent(tagger, view="auto", threshold=-1.0)
    doc = spacy.blank("en").make_doc(text)
    doc._.passages = passages
    assert held(component(doc)) == answers(tagger.tag(text, passages=passages))
    with pytest.raises(ValueError, match="ctxner calibrate"):
        CtxnerComponent(tagger, view="auto")
    calibrated = Tagger(tagger.model, tagger.tokenizer, calibration=Calibration(threshold=-1.0))
    assert CtxnerComponent(calibrated, view="auto").threshold == -1.0


def test_a_pipeline_takes_the_component_by_name(model, tagger):
    nlp = spacy.blank("en")
    nlp.add_pipe("ctxner", config={"model": model})
    doc = nlp("Paris Hilton sings in London")
    assert held(doc) == answers(tagger.tag("Paris Hilton sings in London"))
    assert [len(own.ents) for own in nlp.pipe([doc.text, ""])] == [len(doc.ents), 0]
    for config, message in (({}, "has no model"), ({"model": "absent"}, "ctxner train"), ({"view": "side"}, "side")):
        with pytest.raises(ValueError, match=message):
            spacy.blank("en").add_pipe("ctxner", config=config)


def test_spacy_finds_the_component_without_an_import(model):
    if not entry_points(group="spacy_factories", name="ctxner"):
        pytest.skip("ctxner is not installed with its entry points")
    code = f"import spacy; nlp = spacy.blank('en'); nlp.add_pipe('ctxner', config={{'model': {model!r}}}); nlp('x')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_document_without_words_is_empty():
    assert len(make_doc("", [], [])) == 0
