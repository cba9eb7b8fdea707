"""The page of `ctxner audit`: shares of copies and of seen mentions, with examples; `jobs.audit` computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctxner.retrieval.measure.leakage import CopyShares, SeenMentions, SentenceCopies, copy_shares, texts_of
from ctxner.schema import Sentence
from jobs.pages.page import evenly, write_page

MAX_EXAMPLES = 10  # sentences shown per comparison
MAX_EXACT = 3  # of these, sentences with an exact copy

Overlap = tuple[SeenMentions, dict[str, SeenMentions]]  # of all mentions, and by type


@dataclass(frozen=True, slots=True)
class Comparison:
    """The sentences of a split against the texts of `where`: `corpus`, another split, or `itself`."""

    split: str
    where: str
    sentences: Sequence[Sentence]
    copies: Sequence[SentenceCopies]

    @property
    def shares(self) -> CopyShares:
        """Shares of the sentences that have a copy."""
        return copy_shares(self.copies)


def write_audit_page(
    out: Path, comparisons: Sequence[Comparison], overlap: dict[str, Overlap], facts: dict[str, str]
) -> None:
    """Write the page of an audit: shares of copies and of seen mentions, with examples."""
    in_corpus = [comparison for comparison in reversed(comparisons) if comparison.where == "corpus"]
    last = list(overlap)[-1:]  # the test split, if there is one
    write_page(
        out,
        "audit.html.j2",
        title="What leaks, and what was seen before",
        eyebrow="ctxner audit",
        tiles=[
            *(
                (
                    f"{comparison.split} in {comparison.where}",
                    comparison.shares.near,
                    "of the sentences have a near copy",
                )
                for comparison in in_corpus
            ),
            *((f"{split} mentions", overlap[split][0].mentions, "were seen in training") for split in last),
        ],
        comparisons=comparisons,
        overlap=overlap,
        examples=[(comparison, rows) for comparison in comparisons if (rows := _examples(comparison))],
        facts=facts,
    )


def _examples(comparison: Comparison) -> list[tuple[str, str, SentenceCopies]]:
    """Some sentences with exact copies, then some with only near copies, in even steps from closest to farthest."""
    rows = zip(texts_of(comparison.sentences), comparison.copies, strict=True)
    examples = [(id, text, copies) for (id, text), copies in rows if copies.closest]
    exact = [row for row in examples if row[2].num_exact][:MAX_EXACT]
    near = sorted((row for row in examples if not row[2].num_exact), key=_distance)
    return exact + evenly(near, MAX_EXAMPLES - len(exact))


def _distance(row: tuple[str, str, SentenceCopies]) -> float:
    return -row[2].closest.containment if row[2].closest else 0.0
