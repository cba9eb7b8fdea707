"""What retrieval compares texts by: cleaned characters, normalised words, and which words are addresses."""

from __future__ import annotations

import re
import unicodedata

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_ACCENTS = re.compile("[\u0300-\u036f]")
_ADDRESS = re.compile(r"https?:|www\.|pic\.twitter|\S+@\S+\.\S+", re.IGNORECASE)
_LONE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # written without blanks: a word each
_WORD = re.compile(rf"[{_LONE}]|[^\W_{_LONE}]+")


def clean_text(text: str) -> str:
    """Replace control characters by blanks and lone surrogates by U+FFFD; tabs and newlines stay."""
    return _UNSAFE.sub(lambda match: "\ufffd" if "\ud800" <= match[0] <= "\udfff" else " ", text)


def normalised_words(text: str) -> list[str]:
    """The text's runs of letters and digits, in lower case; punctuation and symbols are left out."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def name_words(text: str, language: str) -> list[str]:
    """The text's words as names are compared: `normalised_words` without accents and, in English, without plurals.

    Plurals are taken off as by Harman's S-stemmer (1991), which also knows `-es` here, in words of more than three
    letters: `bodies` is `body`, `rashes` is `rash`, `seizures` is `seizure`; `virus`, `illness`, `diagnosis` stay.
    """
    words = normalised_words(text)
    if not text.isascii():
        words = [_ACCENTS.sub("", unicodedata.normalize("NFD", word)) for word in words]
    return [_singular(word) for word in words] if language == "en" else words


def _singular(word: str) -> str:
    if len(word) <= 3 or word[-1] != "s" or word[-2:] in ("ss", "us", "is") or word.isdigit():
        return word
    if word.endswith(("shes", "ches", "sses", "xes", "zes")):
        return word[:-2]
    return f"{word[:-3]}y" if word.endswith("ies") and len(word) > 4 else word[:-1]


def is_address(word: str) -> bool:
    """Whether a word is a link or an e-mail address."""
    return _ADDRESS.match(word) is not None
