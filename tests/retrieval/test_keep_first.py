"""Which passages are kept, and why the others are not."""

from __future__ import annotations

from ctxner.retrieval.near_duplicates import keep_first
from ctxner.schema import Passage, ScoredPassage

SENTENCE = "The ferry to Velmora left the harbour late in the evening"
TEXTS = (
    "Velmora is a river port in the north of the country",
    "the ferry to VELMORA left the harbour, late in the evening!",
    "Velmora is a river port in the north of the country.",
    "Ferries cross the strait four times a day in summer",
    "The harbour was rebuilt after the flood of 1911",
)
HITS = [ScoredPassage(Passage(str(n), "test", text), 9.0 - n, n + 1) for n, text in enumerate(TEXTS)]


def outcome(**settings: object) -> list[tuple[str, str | None]]:
    return [(hit.passage.id, hit.dropped) for hit in keep_first(SENTENCE, HITS, **settings)]


def test_copies_of_the_sentence_and_of_better_passages_give_way_to_the_next_ones() -> None:
    dropped = [("1", "near_duplicate"), ("2", "near_duplicate"), ("4", "below_depth")]
    assert outcome(depth=2) == [("0", None), ("3", None), *dropped]


def test_copies_stay_where_they_are_wanted() -> None:
    kept = [("0", None), ("1", None), ("2", None)]
    dropped = [("3", "below_depth"), ("4", "below_depth")]
    assert outcome(depth=3, drop_near_duplicates=False) == kept + dropped


def test_fewer_hits_than_wanted_are_all_kept() -> None:
    assert keep_first(SENTENCE, HITS[:1], depth=6) == (HITS[0],)
    assert keep_first(SENTENCE, [], depth=6) == ()
