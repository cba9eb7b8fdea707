"""What retrieval compares texts by: cleaned characters, normalised words, and which words are addresses."""

from __future__ import annotations

import re
import unicodedata

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_ADDRESS = re.compile(r"https?:|www\.|pic\.twitter|\S+@\S+\.\S+", re.IGNORECASE)
_LONE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # written without blanks: a word each
_WORD = re.compile(rf"[{_LONE}]|[^\W_{_LONE}]+")


def clean_text(text: str) -> str:
    """Replace control characters by blanks and lone surrogates by U+FFFD; tabs and newlines stay."""
    return _UNSAFE.sub(lambda match: "\ufffd" if "\ud800" <= match[0] <= "\udfff" else " ", text)


def normalised_words(text: str) -> list[str]:
    """The text's runs of letters and digits, in lower case; punctuation and symbols are left out."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def is_address(word: str) -> bool:
    """Whether a word is a link or an e-mail address."""
    return _ADDRESS.match(word) is not None
