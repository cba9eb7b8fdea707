"""What significance tests exchange and intervals draw: whole documents, or sentences where documents are not known.

`ctxner.evaluation.significance` does the exchanging and drawing, given `Units.groups`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ctxner.schema import Sentence


@dataclass(frozen=True, slots=True)
class Units:
    """The units of a data set.

    Attributes:
        unit: Kind of the units.
        num_units: Number of units.
        groups: Index of each sentence's document; None when each sentence is a unit.
        reason: Why the units are sentences; None when they are documents.
    """

    unit: Literal["document", "sentence"]
    num_units: int
    groups: tuple[int, ...] | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, str | int]:
        """Kind and number, for JSON."""
        return {"unit": self.unit, "num_units": self.num_units}


def units_of(sentences: Sequence[Sentence]) -> Units:
    """Documents, when every sentence names one, there are at least two, and one has several sentences; else sentences.

    A text of one sentence is a document of its own, yet its neighbours in the file may be of the same article.
    """
    numbers: dict[str | None, int] = {}
    groups = tuple(numbers.setdefault(sentence.document, len(numbers)) for sentence in sentences)
    num_unknown = sum(sentence.document is None for sentence in sentences)
    if not num_unknown and 1 < len(numbers) < len(sentences):
        return Units("document", len(numbers), groups)
    if num_unknown == len(sentences):
        reason = "the data name no documents"
    elif num_unknown:
        reason = f"{num_unknown:,} of {len(sentences):,} sentences name no document"
    elif len(numbers) == len(sentences) > 1:
        reason = "no document has more than one sentence"
    else:
        reason = "all sentences are of one document"
    return Units("sentence", len(sentences), reason=reason)
