"""What a retriever's replica may answer from its cache."""

import pytest

pytest.importorskip("ray")

from ctxner.schema import Sentence
from serving.passage_cache import _key


def test_passages_are_kept_by_words_and_abbreviations_and_not_by_id() -> None:
    defined = Sentence("a", ("PAN",), abbreviations=(("PAN", "puromycin aminonucleoside"),))
    assert _key(defined) != _key(Sentence("a", ("PAN",)))
    assert _key(Sentence("a", ("PAN",))) == _key(Sentence("b", ("PAN",)))
