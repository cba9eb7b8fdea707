"""Places gold mentions, given by characters, on words: as tags, or beside them where tags cannot express a mention.

The words come from `ctxner.files.words.split_text`, which does not look at gold, so that a score is of the task that
users have. `ctxner.labels.gold_spans` counts every mention; `ctxner.labels.training_tags` says what a model learns.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Literal

from ctxner.files.lines import ReadCounts
from ctxner.labels import is_exact, touched_words
from ctxner.schema import Mention, Span
from ctxner.schemes import spans_to_tags

Overlaps = Literal["longest", "refuse"]
Offsets = tuple[tuple[int, int], ...]  # (start, end) of each word of a sentence, in characters
Gold = tuple[tuple[str, ...], tuple[Mention, ...]]  # BIOES tags of a sentence, and its mentions beyond them

CUTS = "mentions that cut a word"
CROSSES = "mentions that go on in another sentence"
OVERLAPS = "mentions that overlap a longer one"
TWICE = "mentions given twice"
_SHOWN = 40  # characters of a mention in a remark


def place_mentions(
    mentions: Iterable[Span],
    sentences: Sequence[Offsets],
    text: str,
    where: str,
    *,
    overlaps: Overlaps,
    counts: ReadCounts,
) -> list[Gold]:
    """The gold of each sentence of a text.

    White space and other characters of no word do not count at a mention's ends. A mention given twice counts once. Of
    overlapping mentions the longest becomes tags, of equally long ones the one that begins first, then the one that is
    given first. A mention that becomes no tags is kept beyond them in the sentence that it begins in, and remarked.

    Args:
        mentions: Mentions, whose start and end are characters.
        sentences: Words of each sentence of the text.
        text: The text.
        where: Place of the text, e.g. file:line.
        overlaps: `refuse` makes overlapping mentions an error.
        counts: Counters to remark in.

    Raises:
        ValueError: A mention covers no word, or mentions overlap though they must not.
    """
    words = [offset for offsets in sentences for offset in offsets]
    distinct = list(_distinct((_trimmed(mention, words, text, where) for mention in mentions), text, where, counts))
    if overlaps == "refuse":
        _refuse_overlaps(distinct, where)
    firsts = [offsets[0][0] for offsets in sentences]
    tagged: list[list[Span]] = [[] for _ in sentences]
    beyond: list[list[Mention]] = [[] for _ in sentences]
    taken = [[False] * len(offsets) for offsets in sentences]
    for mention in sorted(distinct, key=lambda mention: (mention.start - mention.end, mention.start)):
        number = bisect_right(firsts, mention.start) - 1
        span = touched_words(sentences[number], mention)
        if span and is_exact(sentences[number], span, mention) and not any(taken[number][span.start : span.end]):
            taken[number][span.start : span.end] = [True] * (span.end - span.start)
            tagged[number].append(span)
            continue
        reason = CROSSES if span is None else OVERLAPS if is_exact(sentences[number], span, mention) else CUTS
        counts.remark(reason, _place(mention, text, where))
        beyond[number].append(Mention(mention.start, mention.end, mention.type, text[mention.start : mention.end]))
    return [
        (spans_to_tags(spans, len(offsets)), tuple(sorted(rest)))
        for spans, offsets, rest in zip(tagged, sentences, beyond, strict=True)
    ]


def place_on_words(
    words: Sequence[str], spans: Iterable[Span], where: str, *, overlaps: Overlaps, counts: ReadCounts
) -> tuple[Gold, Offsets, str]:
    """The gold of a sentence that is given as words and runs of words, which may overlap.

    Returns:
        Tags and the mentions beyond them, whose places are in the words joined by blanks; the offsets of the words
        there; and that text.

    Raises:
        ValueError: Mentions overlap though they must not.
    """
    ends = list(accumulate(len(word) + 1 for word in words))
    offsets = tuple((end - 1 - len(word), end - 1) for word, end in zip(words, ends, strict=True))
    placed = [Span(offsets[span.start][0], offsets[span.end - 1][1], span.type) for span in spans]
    text = " ".join(words)
    [gold] = place_mentions(placed, [offsets], text, where, overlaps=overlaps, counts=counts)
    return gold, offsets, text


def _distinct(mentions: Iterable[Span], text: str, where: str, counts: ReadCounts) -> Iterator[Span]:
    seen = set()
    for mention in mentions:
        if mention in seen:
            counts.remark(TWICE, _place(mention, text, where))
            continue
        seen.add(mention)
        yield mention


def _trimmed(mention: Span, words: Sequence[tuple[int, int]], text: str, where: str) -> Span:
    """The mention without characters of no word at its ends."""
    first = bisect_right(words, mention.start, key=lambda offset: offset[1])
    last = bisect_left(words, mention.end, key=lambda offset: offset[0]) - 1
    if first > last:
        place, covered = [mention.start, mention.end, mention.type], text[mention.start : mention.end]
        raise ValueError(f"{where}: entity {place} covers no word, only {covered!r}; remove it or mend its offsets")
    return Span(max(mention.start, words[first][0]), min(mention.end, words[last][1]), mention.type)


def _refuse_overlaps(mentions: Iterable[Span], where: str) -> None:
    for first, second in pairwise(sorted(mentions)):  # if any two overlap, two neighbours do
        if second.start < first.end:
            pair = " and ".join(str([mention.start, mention.end, mention.type]) for mention in (first, second))
            raise ValueError(
                f"{where}: entities {pair} overlap, and tags are flat; with --set data.overlaps=longest the longest "
                "become tags and the others count as missed"
            )


def _place(mention: Span, text: str, where: str) -> str:
    shown = text[mention.start : min(mention.end, mention.start + _SHOWN)]
    return f"{where}: {[mention.start, mention.end, mention.type]} {shown!r}"
