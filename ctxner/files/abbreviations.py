"""Abbreviations that a document defines, such as "puromycin aminonucleoside (PAN)", for the sentences that use them.

The rule is Schwartz and Hearst's (2003): the letters of the short form occur in this order in the words before the
bracket, and the first of them begins a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ctxner.files.words import split_words
from ctxner.schema import Sentence

_BRACKETS = {"(": ")", "[": "]"}
_MAX_SHORT_WORDS = 3
_MAX_SHORT_CHARS = 10
# Sentences for which a definition holds, its own among them, where nothing tells one document from the next. On
# BC5CDR's training set 12 are as good as 20; 6 lose a quarter of the gain.
REACH = 13
_MOST_KNOWN = 100  # definitions kept


def with_abbreviations(
    sentences: Iterable[Sentence], *, reach: int = REACH, before: Iterable[tuple[str, str]] = ()
) -> Iterator[Sentence]:
    """The sentences, in order, each with those of its document's abbreviations that it may use.

    A definition holds in its sentence and after it; a later one of the same short form replaces it. At most the last
    100 are kept, so that time and memory grow with the sentences only.

    Args:
        sentences: Sentences in the order of the text.
        reach: Number of sentences for which a definition holds, counted from the one that gives it, where the sentences
            name no document; within a named one it holds to the end.
        before: Definitions that the first document gives before its first sentence here, as `definitions` returns them.
    """
    # Long form and place of the definition, by short form, oldest first
    known: dict[str, tuple[str, int]] = {short: (long, 0) for short, long in before}
    document = None
    for place, sentence in enumerate(sentences):
        if place and sentence.document != document:
            known = {}
        document = sentence.document
        for short, long in definitions(sentence.words):
            known.pop(short, None)
            known[short] = (long, place)
        while known and (len(known) > _MOST_KNOWN or (document is None and _oldest(known) <= place - reach)):
            del known[next(iter(known))]
        words = set(sentence.words) if known else ()
        used = tuple((short, long) for short, (long, _) in known.items() if short.split(" ", 1)[0] in words)
        yield replace(sentence, abbreviations=used) if used else sentence


def definitions_in(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(short form, long form) of each abbreviation that sentences define, in order; others are not split into words."""
    for text in texts:
        if any(bracket in text for bracket in _BRACKETS):
            yield from definitions([text[start:end] for start, end in split_words(text)])


def latest(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The last definition of each short form, oldest first, at most as many as `with_abbreviations` keeps."""
    known: dict[str, str] = {}
    for short, long in pairs:
        known.pop(short, None)
        known[short] = long
    return tuple(known.items())[-_MOST_KNOWN:]


def _oldest(known: dict[str, tuple[str, int]]) -> int:
    """Place of the oldest definition."""
    return next(iter(known.values()))[1]


def definitions(words: Sequence[str]) -> list[tuple[str, str]]:
    """(short form, long form) of each abbreviation that a sentence defines, as words joined by blanks."""
    pairs = []
    for start, word in enumerate(words):
        if word not in _BRACKETS:
            continue
        inside = words[start + 1 : start + 2 + _MAX_SHORT_WORDS]
        ends = [n for n, other in enumerate(inside) if other in (_BRACKETS[word], ";", ",")]
        short = "".join(inside[: ends[0]]) if ends else ""
        if not 2 <= len(short) <= _MAX_SHORT_CHARS or short.lower() == short or not short[0].isalnum():
            continue
        before = words[max(0, start - min(len(short) + 5, 2 * len(short))) : start]
        length = _long_form(short, before)
        if length and short not in before[-length:]:
            pairs.append((" ".join(inside[: ends[0]]), " ".join(before[-length:])))
    return pairs


def _long_form(short: str, before: Sequence[str]) -> int:
    """Number of words at the end of `before` that the short form stands for; 0 when it stands for none of them."""
    text = " ".join(before)
    place = len(text)
    letters = [letter for letter in short.lower() if letter.isalnum()]
    for n in range(len(letters) - 1, -1, -1):
        place -= 1
        while place >= 0 and not (
            text[place].lower() == letters[n] and (n or place == 0 or not text[place - 1].isalnum())
        ):
            place -= 1
        if place < 0:
            return 0
    long = text[text.rfind(" ", 0, place) + 1 :]
    return len(long.split(" ")) if len(long) > len(short) else 0
