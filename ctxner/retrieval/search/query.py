"""Making the search query of a sentence, in pure Python; `ctxner.retrieval.search.bm25` runs it.

With a whole sentence as a bag of words, common words dominate the result, most of all in noisy text. `weighted_query`
drops addresses and stop words, and gives more weight to rare words and to words that look like names;
`tests/benchmarks/query_quality.py` measures the effect. It showed no gain from phrases of adjacent words, dropping
words by frequency, splitting hash tags at capitals, or a lower weight for a sentence's first word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from ctxner.files.words import LONE, MARKS
from ctxner.retrieval.text import analyzed_form, clean_text, is_address, lower

QueryMode = Literal["entries", "mentions", "weighted", "bag"]
MAX_QUERY_TERMS = 512
MAX_WORD_LENGTH = 64  # characters of a word that are searched for
CAPITAL_BOOST = 1.5  # 2 is as good on tweets, but worse on PubMed, where capitals mostly begin sentences

_TERM = re.compile(rf"\w[\w{MARKS}]*(?:['’.]\w[\w{MARKS}]*)*")  # "o'neill" and "u.s" are one term; @ and # are left out
_LONE_CHARACTER = re.compile(f"[{LONE}]")
ENGLISH_STOP_WORDS = frozenset(
    re.findall(
        r"\S+",
        """a about after again all also am amp an and any are as at be because been before being but by can can't could
        did do does doing don't dont down each even for from get go gonna got had has have having he her here him his
        how i i'd i'll i'm i've if im in into is isn't it it's its just know like ll lol make me more most much my n't
        new no nor not now of off omg on one only or other our out over own pls plz re rt s same say see she should
        smh so some such t than that that's the their them then there these they this those through thx to today too u
        under until up ur us ve very via want was we were what when where which while who why will with would wtf you
        you're your""",
    )
)


def bag_of_words(words: Sequence[str], *, max_terms: int = MAX_QUERY_TERMS) -> str:
    """The sentence unchanged, up to `max_terms` distinct terms; the baseline for `weighted_query`."""
    bag: list[str] = []
    terms: set[str] = set()
    for word in _cleaned(words):
        terms.update(re.findall(r"\w+", word.lower()))
        if len(terms) > max_terms:
            break
        if re.search(r"\w", word):
            bag.append(word)
    return joined(bag)


def weighted_query(
    words: Sequence[str],
    document_frequency: Callable[[str], int],
    num_documents: int,
    *,
    max_terms: int = 64,
    stop_words: frozenset[str] = ENGLISH_STOP_WORDS,
) -> str:
    """A query in the syntax of Lucene's classic parser: `term^weight`, heaviest first.

    The weight of a term is its idf, from 0 to 1, times 1.5 if the term is capitalised in a sentence that is not all
    capitals. BM25 multiplies the weight by its idf again, so that rarity counts about quadratically.

    Args:
        words: The sentence's words; their case matters.
        document_frequency: Number of passages with a term; terms with 0 are left out.
        num_documents: Passages in the index.
        max_terms: Most distinct terms; the lightest are left out.
        stop_words: Lower-case words never searched for, except in capitals ("US").

    Returns:
        The query; "" when there is nothing to search for, e.g. for emoji only.
    """
    weights: dict[str, float] = {}
    for term, is_capital in searchable_terms(words, stop_words):
        frequency = document_frequency(term)
        if frequency == 0:
            continue
        idf = inverse_frequency(frequency, num_documents)
        weights[term] = max(weights.get(term, 0.0), idf * (CAPITAL_BOOST if is_capital else 1.0))
    return heaviest_terms(weights, max_terms)


def inverse_frequency(frequency: int, num_documents: int) -> float:
    """How rare a term is that occurs in so many passages: 1 in a single one, 0 at most if in all of many."""
    return math.log(1 + num_documents / frequency) / math.log(1 + num_documents)


def heaviest_terms(weights: Mapping[str, float], max_terms: int) -> str:
    """The query of the heaviest terms, in the syntax of Lucene's classic parser."""
    heaviest = sorted(weights, key=lambda term: (-weights[term], term))[:max_terms]
    return " ".join(f"{term}^{weights[term]:.2f}" for term in heaviest)


def joined(words: Sequence[str], owners: list[int] | None = None) -> str:
    """Words as a text: blanks between them, but none beside Chinese and Japanese characters; empty words are left out.

    Args:
        words: The words.
        owners: A list to which the number of the word of each character of the text is added.
    """
    parts: list[str] = []
    for number, word in enumerate(words):
        if not word:
            continue
        blank = "" if not parts or _is_lone(parts[-1][-1]) or _is_lone(word[0]) else " "
        parts.append(blank + word)
        if owners is not None:
            owners.extend([number] * len(parts[-1]))
    return "".join(parts)


def searchable_terms(words: Sequence[str], stop_words: frozenset[str]) -> Iterator[tuple[str, bool]]:
    """(lower-case term, whether it looks like a name) of all words except addresses and stop words, in order."""
    case_tells = any(word.islower() for word in words)
    for word in _cleaned(words):
        if is_address(word):
            continue
        for match in _TERM.finditer(word):
            surface, term = match[0], lower(match[0])
            is_acronym = case_tells and len(surface) > 1 and surface.isupper()
            if is_acronym or term not in stop_words:
                yield term, case_tells and not surface.islower() and not surface.isnumeric()


def _cleaned(words: Sequence[str]) -> Iterator[str]:
    return (analyzed_form(clean_text(word[:MAX_WORD_LENGTH])).strip() for word in words)


def _is_lone(character: str) -> bool:
    return not character.isascii() and _LONE_CHARACTER.match(character) is not None


def searched_words(words: Sequence[str]) -> list[str]:
    """The words that are searched with: cleaned, and no more nor longer ones than a query takes."""
    return [clean_text(word[:MAX_WORD_LENGTH]) for word in words[:MAX_QUERY_TERMS]]
