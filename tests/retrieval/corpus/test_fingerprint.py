"""Fingerprints: a corpus's hash is of the set of its passages."""

import random

from ctxner.retrieval.corpus.fingerprint import CorpusHash
from ctxner.schema import Passage

PASSAGES = [Passage(f"p{n}", "s", f"text {n}", title="t" * (n % 2)) for n in range(50)]


def of(passages):
    corpus_hash = CorpusHash()
    for passage in passages:
        corpus_hash.add(passage)
    return corpus_hash


def test_the_corpus_hash_depends_on_every_field_and_not_on_order_or_parts():
    whole = of(PASSAGES).hex()
    assert len(whole) == 64
    assert of(random.Random(0).sample(PASSAGES, 50)).hex() == whole
    assert CorpusHash([of(PASSAGES[:20]).hex(), of(PASSAGES[20:]).hex()]).hex() == whole
    for other in (Passage("q", "s", "x"), Passage("p", "t", "x"), Passage("p", "s", "y"), Passage("p", "s", "x", "t")):
        assert of([other]).hex() != of([Passage("p", "s", "x")]).hex()


def test_what_is_counted_out_leaves_no_trace():
    corpus_hash = of(PASSAGES)
    for passage in PASSAGES[::3]:
        corpus_hash.remove(passage)
    rest = [passage for passage in PASSAGES if passage not in PASSAGES[::3]]
    assert corpus_hash.hex() == of(rest).hex()
    assert CorpusHash([corpus_hash.hex()]).hex() == corpus_hash.hex()
