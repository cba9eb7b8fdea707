"""Two splits of a few sentences, and the passages that were found for the first one."""

from __future__ import annotations

from ctxner.schema import Passage, ScoredPassage

SENTENCES = {
    "train": ["Kim/B-person left/O Rome/B-town early/O"],
    "dev": [
        "we/O met/O Kim/B-person and/O <Dana>/B-person in/O Oslo/B-town on/O a/O rainy/O day/O",
        "nobody/O saw/O Zorblat/B-ship at/O all/O",
    ],
}
WORDS = {
    split: [tuple(word.split("/")[0] for word in sentence.split()) for sentence in sentences]
    for split, sentences in SENTENCES.items()
}


def scored(id: str, text: str, rank: int, dropped: str | None = None, rerank: float | None = 0.5) -> ScoredPassage:
    return ScoredPassage(Passage(id, "test", text), 10.0 / rank, rank, rerank_score=rerank, dropped=dropped)


FOUND = (
    scored("long", "Oslo " + "and the sea and the hills " * 30, 1),
    scored("kim", "my neighbour KIM has three boats", 2),
    scored("copy", "RT we met Kim and <Dana> in Oslo on a rainy day", 3, dropped="near_duplicate", rerank=None),
    scored("deep", "Dana is elsewhere", 4, dropped="below_depth"),
)
