"""Sentence -> search query, in pure Python; `ctxner.retrieval.bm25` runs it.

A whole sentence as a bag of words drowns in its common words, the more the noisier the text is. `weighted_query` drops
what names nothing (addresses, stop words, very common words), weighs what looks like a name or is rare, and adds
adjacent words as phrases.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

QueryMode = Literal["weighted", "bag"]
MAX_QUERY_TERMS = 512  # Lucene refuses 1,024 clauses; a phrase is a clause too
_MAX_WORD_LENGTH = 128  # characters; longer "words" are cut, Lucene's own limit being 255
_CAPITAL_BOOST = 2.0

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\ufffe\uffff]")
_ADDRESS = re.compile(r"(?:https?:|www\.|pic\.twitter)|\S+@\S+\.\S+", re.IGNORECASE)
_TERM = re.compile(r"\w+(?:['’.]\w+)*")
_STOP_WORDS = frozenset(
    """a about after again all also am an and any are as at be because been before being but by can could did do does
    doing don't down each even for from get go got had has have having he her here him his how i i'd i'll i'm i've if in
    into is isn't it it's its just know like lol make me more most much my new no nor not now of off on one only or
    other our out over own rt s same say see she should so some such t than that that's the their them then there these
    they this those through to today too u under until up us very via want was we were what when where which while who
    why will with would you you're your amp n't ' gonna im dont cant ur pls plz thx omg wtf smh via""".split()
)


def clean_text(text: str) -> str:
    """Replace control characters by blanks and lone surrogates by U+FFFD; tabs and newlines stay."""
    return _UNSAFE.sub(lambda match: "�" if "\ud800" <= match[0] <= "\udfff" else " ", text)


def bag_of_words(words: Sequence[str], *, max_terms: int = MAX_QUERY_TERMS) -> str:
    """The sentence as it is, up to `max_terms` distinct terms: the reference for `weighted_query`."""
    kept: list[str] = []
    terms: set[str] = set()
    for word in words:
        word = clean_text(word[:_MAX_WORD_LENGTH])
        terms.update(re.findall(r"\w+", word.lower()))
        if len(terms) > max_terms:
            break
        if re.search(r"\w", word):
            kept.append(word)
    return " ".join(kept)


def weighted_query(
    words: Sequence[str],
    document_frequency: Callable[[str], int],
    num_documents: int,
    *,
    max_terms: int = 64,
) -> str:
    """A query in the syntax of Lucene's classic parser: `term^weight`, heaviest first.

    Args:
        words: The sentence's words; their case matters.
        document_frequency: Number of passages with a term; terms in none are left out.
        num_documents: Passages in the index.
        max_terms: Most distinct terms; the lightest go first.

    Returns:
        "" when nothing is worth searching for, e.g. for emoji only.
    """
    weights: dict[str, float] = {}
    for term, is_capital in _terms(words):
        frequency = document_frequency(term)
        if frequency == 0:
            continue
        idf = math.log(1 + num_documents / frequency) / math.log(1 + num_documents)  # in (0, 1]
        weights[term] = max(weights.get(term, 0.0), idf * (_CAPITAL_BOOST if is_capital else 1.0))
    heaviest = sorted(weights, key=lambda term: (-weights[term], term))[:max_terms]
    return " ".join(f"{term}^{weights[term]:.2f}" for term in heaviest)


def _terms(words: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """(lower-case term, does it look like a name?) of every word that is not a stop word."""
    cased = [word for word in words if word.lower() != word.upper()]
    case_tells = any(word.islower() for word in cased)
    for word in words:
        word = clean_text(word[:_MAX_WORD_LENGTH])
        if _ADDRESS.match(word):
            continue
        for match in _TERM.finditer(word):
            term = match[0].lower()
            if term not in _STOP_WORDS:
                yield term, case_tells and not match[0].islower()
