"""What retrieval compares texts by: cleaned and folded characters, normalised words, and which words are addresses.

Text is folded by the same rule before it is indexed, searched for or compared (`folded`), so that two spellings of the
same characters meet. Scripts without blanks are cut as in `ctxner.files.words`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

from ctxner.files.words import CLUSTER, CLUSTERED, LONE, MARKS

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
# Accents, and the points and vowel signs that Hebrew and Arabic mostly leave out
_ACCENTS = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]"
)
# Korean particles behind a noun of two syllables or more
_PARTICLE = re.compile(
    "(?<=[가-힣]{2})(?:은|는|이|가|을|를|의|에|에서|에게|께서|한테|와|과|하고|랑|이랑|도|만|로|으로|부터|까지|처럼|보다|이다)$"
)
_ADDRESS = re.compile(r"https?:|www\.|pic\.twitter|\S+@\S+\.\S+", re.IGNORECASE)
_MARKS = rf"{MARKS}\u3099\u309a"
_ALONE = re.compile(rf"[{LONE}][\u3099\u309a]?|{CLUSTER}", re.VERBOSE)
_WORD = re.compile(rf"(?:[^\W_{LONE}{CLUSTERED}]|[{_MARKS}])+|{_ALONE.pattern}", re.VERBOSE)
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_CLUSTER = re.compile(CLUSTER, re.VERBOSE)
_DOTTED_I = "i\u0307"  # lower case of U+0130; Lucene's is a bare i


class _Folding(dict[int, str]):
    """The folded form of each character, computed once."""

    def __missing__(self, code: int) -> str:
        form = character = chr(code)
        kind = unicodedata.category(character)
        if kind[0] in "LM" or kind == "Nd":  # a symbol such as a trademark sign is no part of a word
            plain = unicodedata.normalize("NFKC", character)
            form = character if " " in plain else plain
            form = "".join(c if c.casefold() == c.lower() else c.casefold() for c in form)
        self[code] = form
        return form


_FOLDING = _Folding()


def clean_text(text: str) -> str:
    """Replace control characters by blanks and lone surrogates by U+FFFD; tabs and newlines stay."""
    return _UNSAFE.sub(lambda match: "\ufffd" if "\ud800" <= match[0] <= "\udfff" else " ", text)


def folded(text: str) -> str:
    """The text in NFC, with plain letters and digits for their variants; case stays.

    Variants are full-width and half-width forms, ligatures, small capitals and the like (NFKC of letters and digits
    only), and letters whose full case folding is not their lower case, as ß (ss) and the final sigma.
    """
    if text.isascii() or (unicodedata.is_normalized("NFKC", text) and text.casefold() == text.lower()):
        return text
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).translate(_FOLDING))


def analyzed_form(text: str) -> str:
    """The text as Lucene's analyzers get it, from passages and queries alike.

    It is `folded`, and blanks part the clusters of Thai, Lao, Khmer and Burmese: without them, analyzers take all up to
    the next blank for one word.
    """
    return text if text.isascii() else _CLUSTER.sub(r" \g<0> ", folded(text)).replace("  ", " ")


def lower(text: str) -> str:
    """Lower case as Lucene's analyzers write it, of text that is `folded`."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text.casefold()).replace(_DOTTED_I, "i")


def normalised_words(text: str) -> list[str]:
    """The text's runs of letters, digits and their marks, folded and in lower case; other characters are left out.

    Each character of Chinese and Japanese is a word, and each cluster of Thai, Lao, Khmer and Burmese.
    """
    return _ASCII_WORD.findall(text.lower()) if text.isascii() else _WORD.findall(lower(folded(text)))


def overlapping_words(text: str) -> list[str]:
    """`normalised_words`, but pairs of adjacent ones where a script has no blanks: a character alone tells little."""
    if text.isascii():
        return normalised_words(text)
    words: list[str] = []
    for run in _unbroken_runs(lower(folded(text))):
        words += run if len(run) == 1 else [first + second for first, second in pairwise(run)]
    return words


def name_words(text: str, language: str) -> list[str]:
    """The text's words as names are compared: `normalised_words` without accents and, in English, without plurals.

    Superscripts and subscripts are digits: `H₂O` is `H2O`. A Korean word and the particles at its end are words of
    their own.

    Plurals are taken off as by Harman's S-stemmer (1991), which also knows `-es` here, in words of more than three
    letters: `bodies` is `body`, `rashes` is `rash`, `seizures` is `seizure`; `virus`, `illness`, `diagnosis` stay.
    """
    words = normalised_words(text if text.isascii() else unicodedata.normalize("NFKC", text))
    if language == "ko":
        words = [part for word in words for part in _without_particles(word)]
    if not text.isascii():
        words = [bare for word in words if (bare := _ACCENTS.sub("", unicodedata.normalize("NFD", word)))]
    return [_singular(word) for word in words] if language == "en" else words


def _unbroken_runs(text: str) -> Iterable[list[str]]:
    """Words of a script without blanks up to the next punctuation, as one list; every other word alone."""
    run: list[str] = []
    end = 0
    for match in _WORD.finditer(text):
        if run and not (
            not text[end : match.start()].strip() and _ALONE.fullmatch(match[0]) and _ALONE.fullmatch(run[-1])
        ):
            yield run
            run = []
        run.append(match[0])
        end = match.end()
    if run:
        yield run


def _without_particles(word: str) -> list[str]:
    particles: list[str] = []
    while match := _PARTICLE.search(word):
        particles.insert(0, match[0])
        word = word[: match.start()]
    return [word, *particles]


def _singular(word: str) -> str:
    if len(word) <= 3 or word[-1] != "s" or word[-2:] in ("ss", "us", "is") or word.isdigit():
        return word
    if word.endswith(("shes", "ches", "sses", "xes", "zes")):
        return word[:-2]
    return f"{word[:-3]}y" if word.endswith("ies") and len(word) > 4 else word[:-1]


def is_address(word: str) -> bool:
    """Whether a word is a link or an e-mail address."""
    return _ADDRESS.match(word) is not None
