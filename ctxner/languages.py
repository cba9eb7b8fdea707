"""The languages that a corpus can be indexed in; each is tried in tests/retrieval/search/test_languages.py.

Anserini's analyzers, without those that this Java cannot run; besides, languages without blanks between words whose
text is cut by `ctxner.files.words`, and which need no analyzer of their own.
"""

from __future__ import annotations

LANGUAGES = {
    "ar": "Arabic",
    "bn": "Bengali",
    "da": "Danish",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "km": "Khmer",
    "ko": "Korean",
    "lo": "Lao",
    "my": "Burmese",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "sv": "Swedish",
    "te": "Telugu",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "zh": "Chinese",
}
CLUSTERED = frozenset(("km", "lo", "my", "th"))  # no Lucene analyzer that runs here cuts their words


def check_language(language: str) -> str:
    """The language, if a corpus can be indexed in it.

    Raises:
        ValueError: It cannot; the error lists those that can.
    """
    if language not in LANGUAGES:
        known = ", ".join(f"{code} ({name})" for code, name in LANGUAGES.items())
        raise ValueError(
            f"no analyzer for language {language!r}; wanted one of {known}; for another language choose the nearest"
        )
    return language
