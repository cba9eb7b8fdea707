"""The records that all packages exchange, and their Arrow schemas.

Every record is frozen and cheap to build. Offsets are half open. `ctxner.files.sentences` reads and writes files;
`ctxner.views` turns records into tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

ViewName = Literal["plain", "context"]  # the sentence alone, or with passages beside it
VIEWS: tuple[ViewName, ...] = ("plain", "context")
# Why the plain view answered though another was asked for; batch jobs, serving and notebooks use the same words.
Reason = Literal[
    "confident",  # auto: the plain view's entropy is not above the threshold
    "no_hits",  # no passage was found, or none fits
    "deadline",  # passages, or the context view, would have come too late
    "overload",  # the queue of the retrievers or of the context view is full
    "retriever_unavailable",  # no retriever is up, it failed, or the server has no index
    "tagger_unavailable",  # no replica of the context view is up
]

Dropped = Literal[  # why a retrieved passage is not in the context view
    "near_duplicate",  # it repeats the sentence or a better passage
    "below_depth",  # enough better passages were found
    "piece_budget",  # the whole passage does not fit behind the sentence
    "no_pieces",  # the tokenizer gives no pieces for it
]


_MIN_TEXT = 300  # characters beside the title from which on an entry is searched as a text too


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A typed mention over words: `words[start:end]`, end exclusive."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True, order=True)
class Mention:
    """A gold mention by its characters, which the tags of its sentence do not express.

    Attributes:
        start: First character, in the text that the offsets of words refer to.
        end: One past the last character.
        type: Entity type.
        text: The characters from start to end.
    """

    start: int
    end: int
    type: str
    text: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence, already split into words.

    Attributes:
        id: Unique within a data set; contexts are joined by it, never by position.
        words: Words of the sentence; at least one if it is given to a model.
        tags: One tag per word, or None when unlabelled.
        offsets: (start, end) of each word in `text`, in characters; given if and only if `text` is.
        text: Source text; the sentence may be a part of it.
        abbreviations: Short forms in it that its document defines in or before it, each with its long form; words of
            both are joined by blanks.
        document: Id of the document that the sentence is a part of; None when the data do not tell.
        beyond_tags: Gold mentions beside those of `tags`, which cannot express them: they begin or end inside a word,
            go on in another sentence, or overlap a longer mention. `ctxner.labels.gold_spans` has both.
    """

    id: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    text: str | None = None
    abbreviations: tuple[tuple[str, str], ...] = ()
    document: str | None = None
    beyond_tags: tuple[Mention, ...] = ()

    def __post_init__(self) -> None:
        for name in ("tags", "offsets"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.words):
                raise ValueError(
                    f"sentence {self.id!r}: {len(value)} {name} for {len(self.words)} words; wanted one per word"
                )

    def located(self) -> tuple[str, tuple[tuple[int, int], ...]]:
        """The text that offsets refer to, and each word's (start, end); without `text`, the words joined by spaces."""
        if self.text is not None and self.offsets is not None:
            return self.text, self.offsets
        offsets, start = [], 0
        for word in self.words:
            offsets.append((start, start + len(word)))
            start += len(word) + 1
        return " ".join(self.words), tuple(offsets)


@dataclass(frozen=True, slots=True)
class Entity:
    """A mention found in a text.

    Attributes:
        text: The covered text, exactly `source_text[start:end]`.
        type: Entity type, e.g. `person`.
        start: First character.
        end: One past the last character.
        first_word: Index of the first word within its sentence.
        last_word: One past the index of the last word.
        confidence: Probability in [0, 1] that the model gives to exactly this span and type.
    """

    text: str
    type: str
    start: int
    end: int
    first_word: int
    last_word: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Passage:
    """A unit of the corpus: a text or, when it has a title, an entry about what the title names.

    Attributes:
        id: Unique within a corpus.
        source: Where it is from, e.g. the name of a data set.
        text: What it says.
        title: Name of what an entry is about; empty for a text.
        aliases: Other names of the same.
        type: Kind of thing that an entry is about, in the corpus's words, e.g. `film`.
    """

    id: str
    source: str
    text: str
    title: str = ""
    aliases: tuple[str, ...] = ()
    type: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it says more than what its title names, so that searching its text is worth while."""
        return not self.title or len(self.text) - len(self.title) >= _MIN_TEXT


@dataclass(frozen=True, slots=True)
class ScoredPassage:
    """A passage retrieved for a sentence, with its provenance.

    Attributes:
        passage: Retrieved passage.
        bm25_score: Lucene's score for the whole query, or for a mention if only its query found the passage.
        bm25_rank: Place in the order that the search returned, from 1. In the query mode `mentions` that is the order
            of choice, not of `bm25_score`; in the other modes it is the order of `bm25_score`.
        rerank_score: BERTScore F1 of passage and sentence, in [-1, 1]; None when not re-ranked.
        num_pieces: Number of pieces in the context view, or None before the view is built.
        dropped: Reason why the passage is not in the context view; None when it is.
        named: Runs of the sentence's words that name this entry: first word and one past the last; empty for texts.
        link_score: Estimated probability that the sentence means this entry; None for texts.
    """

    passage: Passage
    bm25_score: float
    bm25_rank: int
    rerank_score: float | None = None
    num_pieces: int | None = None
    dropped: Dropped | None = None
    named: tuple[tuple[int, int], ...] = ()
    link_score: float | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A sentence and its passages, best first; dropped ones follow the kept ones."""

    sentence: Sentence
    passages: tuple[ScoredPassage, ...] = ()


@cache
def passage_struct() -> pa.StructType:
    """Arrow type of one scored passage, as `ctxner retrieve` writes it."""
    import pyarrow as pa

    return pa.struct(
        [
            ("id", pa.string()),
            ("source", pa.string()),
            ("title", pa.string()),
            ("text", pa.string()),
            ("bm25_score", pa.float32()),
            ("bm25_rank", pa.int32()),
            ("rerank_score", pa.float32()),
            ("dropped", pa.string()),
            ("aliases", pa.list_(pa.string())),
            ("type", pa.string()),
            ("named", pa.list_(pa.list_(pa.int32()))),
            ("link_score", pa.float32()),
        ]
    )


@cache
def context_schema() -> pa.Schema:
    """Arrow schema of a contexts file: one row per sentence id; gold tags are never part of it."""
    import pyarrow as pa

    return pa.schema(
        [
            ("sentence_id", pa.string()),
            ("words", pa.list_(pa.string())),
            ("query", pa.string()),
            ("passages", pa.list_(passage_struct())),
            ("error", pa.string()),
        ]
    )


def passage_row(scored: ScoredPassage) -> dict[str, object]:
    """The passage as a row of `passage_struct`."""
    return {
        "id": scored.passage.id,
        "source": scored.passage.source,
        "title": scored.passage.title,
        "text": scored.passage.text,
        "bm25_score": scored.bm25_score,
        "bm25_rank": scored.bm25_rank,
        "rerank_score": scored.rerank_score,
        "dropped": scored.dropped,
        "aliases": list(scored.passage.aliases),
        "type": scored.passage.type,
        "named": [list(run) for run in scored.named],
        "link_score": scored.link_score,
    }


def pairs_of(lists: Sequence[Sequence[str]] | None) -> tuple[tuple[str, str], ...]:
    """Abbreviations of a sentence, from the lists in which a row keeps them."""
    return tuple((short, long) for short, long in lists or ())


def scored_passage(row: dict) -> ScoredPassage:
    """The inverse of `passage_row`."""
    return ScoredPassage(
        Passage(
            row["id"],
            row["source"],
            row["text"],
            row["title"] or "",
            aliases=tuple(row.get("aliases") or ()),
            type=row.get("type") or "",
        ),
        row["bm25_score"],
        row["bm25_rank"],
        rerank_score=row["rerank_score"],
        dropped=row["dropped"],
        named=tuple((start, end) for start, end in row.get("named") or ()),
        link_score=row.get("link_score"),
    )
