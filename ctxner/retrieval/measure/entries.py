"""Whether what is shown beside a sentence is about its gold mentions: entries, links, corpus types and pieces.

A passage is shown when it is not dropped; an entry is a passage with a title. Whether a mention's words stand in the
passages is `ctxner.retrieval.measure.coverage`. Gold mentions serve for measuring only, never for linking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ctxner.retrieval.measure.coverage import (
    LocatedMention,
    MentionTally,
    Surface,
    Tally,
    gold_mentions,
    mentions_in,
    tally,
)
from ctxner.retrieval.text import name_words
from ctxner.schema import Example, Passage, ScoredPassage, Sentence, Span

_LANGUAGE = "en"  # names are compared without English plurals, whatever the index's language


@dataclass(frozen=True, slots=True)
class SeenTally:
    """A share that concerns any gold mention, a mention seen in training, and a mention not seen there."""

    all: Tally
    seen: Tally
    unseen: Tally


@dataclass(frozen=True, slots=True)
class LinkMeasures:
    """How far the shown passages are about the gold mentions; each share is None when it is of nothing.

    An entry is about a mention when one of its `named` runs is exactly the mention's words, or when its title or an
    alias equals the mention by `name_words` in English. A link is a run of a sentence's words that names at least one
    shown entry; a run with two entries is one link.

    Attributes:
        own_entry: Share of the gold mentions that a shown entry is about.
        about_entries: Share of the shown entries that are about a gold mention; for seen and unseen, that are about
            such a mention, also of all shown entries.
        about_passages: Share of the shown passages that are about a gold mention, entries and texts alike. A passage
            that the sentence does not name was shown for its text: it is also about the mentions whose words stand in
            it (see `mentions_in`). Seen and unseen as in `about_entries`.
        precision: Share of the links whose run is exactly a gold mention; for seen and unseen, exactly such a mention,
            also of all links.
        recall: Share of the gold mentions whose words are exactly the run of a link.
        right_type: Share of the entries about a gold mention whose corpus type corresponds to the type of a mention
            that they are about; for seen and unseen, only such mentions count, in the share and in what it is of.
            Entries whose corpus type has no corresponding gold type are left out. None without a correspondence.
        num_untyped: Number of entries about a gold mention that `right_type` leaves out; 0 when it is None.
    """

    own_entry: MentionTally
    about_entries: SeenTally
    about_passages: SeenTally
    precision: SeenTally
    recall: MentionTally
    right_type: SeenTally | None
    num_untyped: int

    @property
    def num_links(self) -> int:
        """Number of links in all sentences."""
        return self.precision.all.total

    @property
    def num_entries(self) -> int:
        """Number of shown entries; an entry counts once per sentence beside which it is shown."""
        return self.about_entries.all.total


@dataclass(frozen=True, slots=True)
class PiecesSpent:
    """Mean number of pieces per sentence that passages take in the context view, without the marks around words.

    Attributes:
        entries: Pieces of entries.
        texts: Pieces of passages without a title.
        about: Pieces of entries that are about a gold mention.
        about_seen: Pieces of entries that are about a mention seen in training.
        about_unseen: Pieces of entries that are about a mention not seen in training.
    """

    entries: float
    texts: float
    about: float
    about_seen: float
    about_unseen: float


@dataclass(frozen=True, slots=True)
class _Shown:
    """A shown passage, and the gold mentions that it is about as an entry: none for a text."""

    scored: ScoredPassage
    mentions: Mapping[Span, Surface]


def measure_links(
    examples: Iterable[Example],
    *,
    seen: Collection[Surface] = frozenset(),
    gold_types: Mapping[str, str] | None = None,
) -> LinkMeasures:
    """Measure whether the shown passages are about the gold mentions.

    Args:
        examples: Tagged sentences and their passages.
        seen: Mentions of the training data, from `surfaces`.
        gold_types: Gold type of each corpus type, from `corresponding_types`; None when it is not known.
    """
    own_entry: list[LocatedMention] = []
    linked: list[LocatedMention] = []
    links: list[list[Surface]] = []  # mentions that each link is: none or a single one
    passages: list[list[Surface]] = []  # mentions that each shown passage is about
    entries: list[tuple[str, list[Surface]]] = []  # corpus type of each shown entry, and mentions that it is about
    for example in examples:
        sentence, shown, exact = example.sentence, _shown(example), _exact_runs(example.sentence)
        runs = {run for passage in shown for run in passage.scored.named}
        links += [[exact[run][1]] if run in exact else [] for run in runs]
        for run, (span, surface) in exact.items():
            places = (place for place, passage in enumerate(shown, 1) if span in passage.mentions)
            own_entry.append(LocatedMention(sentence.id, span, surface, next(places, None)))
            linked.append(LocatedMention(sentence.id, span, surface, 1 if run in runs else None))
        for passage in shown:
            scored, about = passage.scored, list(passage.mentions.values())
            passages.append(about if scored.named else [*about, *mentions_in(scored.passage, sentence)])
            if scored.passage.title:
                entries.append((_corpus_type(scored.passage), about))
    typed = [(type, about) for type, about in entries if about and type in (gold_types or {})]
    return LinkMeasures(
        own_entry=tally(own_entry, seen),
        about_entries=_shares_about([about for _, about in entries], seen),
        about_passages=_shares_about(passages, seen),
        precision=_shares_about(links, seen),
        recall=tally(linked, seen),
        right_type=None if gold_types is None else _right_types(typed, seen, gold_types),
        num_untyped=0 if gold_types is None else sum(bool(about) for _, about in entries) - len(typed),
    )


def corresponding_types(training: Iterable[Example]) -> dict[str, str]:
    """For each type of the corpus, the gold type that the exact links of its entries most often have in training.

    A link is exact when its run is a gold mention. The corpus type of an entry is its type or, without one, its source;
    of equally frequent gold types the first in the alphabet is taken. Types without an exact link are left out.

    Args:
        training: Tagged sentences of the training data and their passages.
    """
    counts: dict[str, Counter[str]] = {}
    for example in training:
        exact = _exact_runs(example.sentence)
        for passage in _shown(example):
            scored = passage.scored
            gold_types = [exact[run][0].type for run in scored.named if run in exact]
            if gold_types:
                counts.setdefault(_corpus_type(scored.passage), Counter()).update(gold_types)
    return {type: min(counts[type], key=lambda gold: (-counts[type][gold], gold)) for type in sorted(counts)}


def pieces_spent(views: Sequence[Example], *, seen: Collection[Surface] = frozenset()) -> PiecesSpent:
    """How many pieces per sentence the passages of context views take.

    Args:
        views: At least one tagged sentence, with its passages as the context view reads them: `num_pieces` is set.
        seen: Mentions of the training data, from `surfaces`.

    Raises:
        ValueError: There is no sentence, or a shown passage has no number of pieces.
    """
    if not views:
        raise ValueError("no sentence to count pieces for; give at least one")
    totals: Counter[str] = Counter()
    for view in views:
        for passage in _shown(view):
            scored, size = passage.scored, passage.scored.num_pieces
            if size is None:
                raise ValueError(
                    f"sentence {view.sentence.id!r}: passage {scored.passage.id!r} has no number of pieces; "
                    "give the passages of its context view"
                )
            about = passage.mentions.values()
            totals["entries" if scored.passage.title else "texts"] += size
            totals["about"] += size * bool(about)
            totals["about_seen"] += size * any(surface in seen for surface in about)
            totals["about_unseen"] += size * any(surface not in seen for surface in about)
    names = ("entries", "texts", "about", "about_seen", "about_unseen")
    return PiecesSpent(**{name: totals[name] / len(views) for name in names})


def _shown(example: Example) -> list[_Shown]:
    """The shown passages of a sentence, in order."""
    words, exact = example.sentence.words, _exact_runs(example.sentence)
    mentions = [(run, mention, name_words(" ".join(words[slice(*run)]), _LANGUAGE)) for run, mention in exact.items()]
    shown = []
    for scored in example.passages:
        if scored.dropped is not None:
            continue
        names = _names(scored.passage) if mentions else []
        about = dict(mention for run, mention, name in mentions if run in scored.named or (name and name in names))
        shown.append(_Shown(scored, about))
    return shown


def _exact_runs(sentence: Sentence) -> dict[tuple[int, int], tuple[Span, Surface]]:
    """The gold mentions by their run of words."""
    return {(span.start, span.end): (span, surface) for span, surface in gold_mentions(sentence)}


def _names(passage: Passage) -> list[list[str]]:
    """Title and aliases of an entry, as names are compared; none for a text."""
    if not passage.title:
        return []
    return [name_words(name, _LANGUAGE) for name in (passage.title, *passage.aliases)]


def _corpus_type(passage: Passage) -> str:
    return passage.type or passage.source


def _shares_about(about: Sequence[Collection[Surface]], seen: Collection[Surface]) -> SeenTally:
    """How many have a mention, a seen one, an unseen one; each of all of them."""
    return SeenTally(
        Tally(sum(bool(surfaces) for surfaces in about), len(about)),
        Tally(sum(any(surface in seen for surface in surfaces) for surfaces in about), len(about)),
        Tally(sum(any(surface not in seen for surface in surfaces) for surfaces in about), len(about)),
    )


def _right_types(
    typed: Sequence[tuple[str, Sequence[Surface]]], seen: Collection[Surface], gold_types: Mapping[str, str]
) -> SeenTally:
    """How many entries have the type of a mention that they are about, by their corpus type and those mentions."""

    def count(entries: Iterable[tuple[str, Sequence[Surface]]]) -> Tally:
        right = [any(gold_types[type] == gold for _, gold in about) for type, about in entries if about]
        return Tally(sum(right), len(right))

    return SeenTally(
        count(typed),
        count((type, [surface for surface in about if surface in seen]) for type, about in typed),
        count((type, [surface for surface in about if surface not in seen]) for type, about in typed),
    )
