"""Abbreviations: Schwartz and Hearst's rule, and how far a definition reaches."""

import pytest

from ctxner.files.abbreviations import REACH, definitions, with_abbreviations
from ctxner.schema import Sentence
from ctxner.texts import sentences_of


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("Puromycin aminonucleoside ( PAN ) was given", [("PAN", "Puromycin aminonucleoside")]),
        ("levels of heat shock protein [ HSP ] rose", [("HSP", "heat shock protein")]),
        ("the angiotensin converting enzyme ( ACE ; kininase II ) fell", [("ACE", "angiotensin converting enzyme")]),
        ("3 , 4 - methylenedioxymethamphetamine ( MDMA )", [("MDMA", "methylenedioxymethamphetamine")]),
        (
            "acute renal failure ( ARF ) and nitric oxide ( NO )",
            [("ARF", "acute renal failure"), ("NO", "nitric oxide")],
        ),
        ("5 - hydroxytryptamine ( 5 - HT ) release", [("5 - HT", "5 - hydroxytryptamine")]),
        ("we saw patients ( see below )", []),
        ("two groups ( n = 12 )", []),
        ("no bracket is closed ( NB", []),
        ("letters do not occur in order ( XQZ )", []),
        ("( ABC )", []),
        ("", []),
    ],
)
def test_short_forms_stand_for_the_words_whose_letters_they_have_in_order(text, pairs):
    assert definitions(text.split()) == pairs


def test_a_definition_holds_in_its_sentence_and_the_next_ones_and_a_later_one_replaces_it():
    texts = ["cyclosporin A ( CSA )", *["CSA"] * (REACH + 1), "coronary stent angioplasty ( CSA )", "CSA"]
    sentences = list(with_abbreviations([Sentence(str(n), tuple(text.split())) for n, text in enumerate(texts)]))
    known = [dict(sentence.abbreviations).get("CSA") for sentence in sentences]
    assert known == [*["cyclosporin A"] * REACH, None, None, *["coronary stent angioplasty"] * 2]


def test_a_definition_holds_to_the_end_of_a_named_document_and_no_further():
    texts = ["cyclosporin A ( CSA )", *["CSA"] * (REACH + 1)]
    first = [Sentence(f"a{n}", tuple(text.split()), document="a") for n, text in enumerate(texts)]
    sentences = list(with_abbreviations([*first, Sentence("b", ("CSA",), document="b"), Sentence("c", ("CSA",))]))
    assert [bool(sentence.abbreviations) for sentence in sentences] == [True] * len(first) + [False, False]


def test_a_sentence_has_only_the_abbreviations_that_it_may_use_and_of_many_the_last_ones():
    letters = [f"A{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(130)]
    texts = [f"alpha {short[1]}eta {short[2]}amma ( {short} )" for short in letters]
    sentences = [Sentence(str(n), tuple(text.split()), document="d") for n, text in enumerate(texts)]
    *_, last, none = with_abbreviations(
        [*sentences, Sentence("all", tuple(letters), document="d"), Sentence("none", ("x",), document="d")]
    )
    assert [short for short, _ in last.abbreviations] == letters[-100:]
    assert none.abbreviations == ()


def test_a_text_that_is_split_knows_its_abbreviations():
    _, second = sentences_of("She has acute renal failure (ARF). ARF is bad.", "t")
    assert second.abbreviations == (("ARF", "acute renal failure"),)
