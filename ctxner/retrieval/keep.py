"""Which of a sentence's passages are kept: the first ones that repeat neither the sentence nor one another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ctxner.retrieval.duplicates import Runs, character_runs, is_near_duplicate, repeats_sentence
from ctxner.schema import ScoredPassage


def keep_first(
    text: str, hits: Sequence[ScoredPassage], *, depth: int, drop_near_duplicates: bool = True
) -> tuple[ScoredPassage, ...]:
    """Keep the first `depth` hits, and say why the others are dropped.

    Args:
        text: The sentence.
        hits: Best first.
        depth: Passages kept, at most.
        drop_near_duplicates: Drop passages that nearly repeat the sentence or a kept passage.

    Returns:
        The kept passages, then the dropped ones; both in the order of the hits.
    """
    kept: list[ScoredPassage] = []
    dropped: list[ScoredPassage] = []
    sentence_runs = character_runs(text)
    kept_runs: list[Runs] = []
    for hit in hits:
        if len(kept) == depth:
            dropped.append(dataclasses.replace(hit, dropped="below_depth"))
            continue
        runs = character_runs(hit.passage.text)
        copies = any(is_near_duplicate(runs, better) for better in kept_runs)
        if drop_near_duplicates and (copies or repeats_sentence(runs, sentence_runs)):
            dropped.append(dataclasses.replace(hit, dropped="near_duplicate"))
        else:
            kept.append(hit)
            kept_runs.append(runs)
    return (*kept, *dropped)
