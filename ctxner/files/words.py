"""Splitting plain text into words and sentences, with exact character offsets.

Made for noisy text: URLs, @users, #tags, emoticons, numbers and words like don't stay whole; a possessive 's is cut
off. Scripts written without blanks are split by a rule, without a dictionary: each Chinese and Japanese character is a
word, and so is each orthographic cluster of Thai, Lao, Khmer and Burmese (a consonant with the vowels and marks around
it, which no word boundary divides). Every repetition in a pattern that can backtrack is bounded, so the time is linear
in the text. Words are split into an encoder's pieces by `ctxner.views`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

LONE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # each character is a word
# Letters and marks of scripts written without blanks, where each cluster is a word: Thai, Lao, Burmese, Khmer.
CLUSTERED = (
    r"\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u104e\u1050-\u108f\u109a-\u109d"
    r"\u1780-\u17d3\u17d7\u17dd"
)
# Marks that Python's \w leaves out, cutting words of Indic scripts, Arabic and Hebrew in two.
MARKS = (
    r"\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8"
    r"\u06ea-\u06ed\u0711\u0730-\u074a\u07a6-\u07b0\u0900-\u0963\u0966-\u0dff\u0f18-\u0f39\u0f3e-\u0f84\u0f86-\u0fbc"
)
_MYANMAR = r"[\u1000-\u102a\u103f\u104e\u1050-\u1055\u105a-\u105d\u1061\u1065\u1066\u106e-\u1070\u1075-\u1081\u108e]"
_MYANMAR_MARK = (
    r"[\u102b-\u1038\u103a-\u103e\u1056-\u1059\u105e-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d"
    r"\u108f\u109a-\u109d]"
)
# After the Thai character clusters of Theeramunkong et al. (2000), simplified, and the syllable breaks of sylbreak (Ye
# Kyaw Thu): a consonant that is stacked or ends a syllable stays with what is before it.
CLUSTER = rf"""
  [\u0e40-\u0e44]? [\u0e01-\u0e2f] [\u0e31\u0e34-\u0e3a\u0e47-\u0e4e]* [\u0e30\u0e32\u0e33\u0e45]*
| [\u0ec0-\u0ec4]? [\u0e81-\u0eaf\u0edc-\u0edf] [\u0eb1\u0eb4-\u0ebd\u0ec8-\u0ece]* [\u0eb0\u0eb2\u0eb3]*
| [\u1780-\u17b3] (?:\u17d2[\u1780-\u17b3]|[\u17b4-\u17d1\u17d3\u17dd])*
| {_MYANMAR} (?:\u1039{_MYANMAR}|{_MYANMAR_MARK})*
  (?:{_MYANMAR}(?=\u1037?[\u103a\u1039]) (?:\u1039{_MYANMAR}|{_MYANMAR_MARK})*)*
| [{CLUSTERED}]
"""
_JOINERS = r"\u00ad\u200c\u200d"
# Never in a word: controls, format characters, variation selectors, lone surrogates, the replacement character.
_VOID = (
    r"\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff0-\uffff"
    r"\ud800-\udfff\U000e0000-\U000e0fff"
)
_EMOJI = r"[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]"

_LINE_BREAK = re.compile(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_TERMINALS = frozenset(".!?…")
_WIDE_TERMINALS = frozenset("。！？")
_CLOSERS = frozenset("\"'”’»)]}")
_ABBREVIATIONS = frozenset(
    ["mr", "mrs", "ms", "dr", "st", "jr", "sr", "vs", "prof", "gen", "sen", "rep", "gov", "inc", "ltd", "co", "corp"]
)


@cache
def _word_pattern() -> re.Pattern[str]:
    initial = rf"(?:[^\W{LONE}{CLUSTERED}]|[{MARKS}])"
    letters = rf"(?:[^\W{LONE}{CLUSTERED}]|[{MARKS}{_JOINERS}])*"
    label = r"[A-Za-z0-9-]{1,63}"
    return re.compile(
        rf"""
          (?i:https?://|www\.) [^\s{_VOID}<>"“”]* [^\s{_VOID}<>"“”.,;:!?'’)\]}}…]       # URL, less what ends a clause
        | [\w.+-]{{1,64}} @ {label} (?:\.{label}){{1,5}}                                # e-mail
        | (?:{label}\.){{1,5}} (?i:com|org|net|edu|gov|info|io|co|ly|tv) (?:\.[a-z]{{2}})? \b (?:/[^\s{_VOID}<>"]*)?
        | [@#] {initial} {letters}
        | & (?:[A-Za-z]{{2,8}} | \#[0-9]{{1,6}}) ;                                      # HTML entity
        | [:;=] ['’]? [-o^]? (?:[()/\\]+ | [DdPpOo](?!\w)) | </?3(?!\w) | -_+-          # emoticon
        | [^\W\d_] (?:\.[^\W\d_]){{1,9}} (?!\w) \.?                                     # p.m., U.S.
        | (?:[$€£¥](?=\d))? {initial} {letters}
          (?: (?: (?<=\d)[.,:/](?=\d) | - | &(?!\w{{1,8}};) | ['’](?![sS](?!\w)) ) {initial} {letters} )* (?:(?<=\d)%)?
        | ['’] [sS] (?!\w)                                                              # possessive
        | [\U0001f1e6-\U0001f1ff]{{2}}                                                  # flag
        | {_EMOJI} (?:[\ufe0f\U0001f3fb-\U0001f3ff] | \u200d{_EMOJI})*
        | [{LONE}][\u3099\u309a]?                                                       # with a voicing mark
        | {CLUSTER}
        | ([^\w\s{_VOID}]) \1*                                                          # ..., !!!
        """,
        re.VERBOSE,
    )


def split_words(text: str) -> list[tuple[int, int]]:
    """The words of any text as half-open character ranges, in order.

    Every character lies in one word, except white space, control and format characters, variation selectors, lone
    surrogates and U+FFFD (which tokenizers drop or refuse); text of only these has no words. Time is linear.
    """
    return [match.span() for match in _word_pattern().finditer(text)]


def split_sentences(text: str, *, max_words: int = 256) -> list[tuple[int, int]]:
    """The sentences of a text as half-open character ranges, each from its first word to its last.

    A sentence ends at every line break; after `. ! ? …` (and closing quotes) where white space and no lower-case letter
    follow, unless the stop belongs to an initial or a common abbreviation; after `。！？`; and at `max_words` words.

    Raises:
        ValueError: `max_words` is below 1.
    """
    if max_words < 1:
        raise ValueError(f"max_words is {max_words}; wanted at least 1")
    sentences: list[tuple[int, int]] = []
    start = end = num_words = 0
    ended = stop_next = False  # ended: after a full stop; stop_next: after one that needs no white space
    previous = ""
    for word_start, word_end in split_words(text):
        word = text[word_start:word_end]
        gap = text[end:word_start]
        follows = ended and bool(gap) and not word[0].islower()
        if num_words and (follows or stop_next or num_words >= max_words or _LINE_BREAK.search(gap)):
            sentences.append((start, end))
            num_words = 0
        if not num_words:
            start = word_start
        closes = not gap and word[0] in _CLOSERS
        ended = (ended and closes) or _is_terminal(word, previous if not gap else "")
        stop_next = word[-1] in _WIDE_TERMINALS
        previous, end, num_words = word, word_end, num_words + 1
    return [*sentences, (start, end)] if num_words else sentences


def split_text(text: str, bounds: Iterable[tuple[int, int]] | None = None) -> list[tuple[tuple[int, int], ...]]:
    """The sentences of a text, each as the half-open character ranges of its words in the text; none is empty.

    This is the one splitting of texts: to train, evaluate, retrieve and tag alike.

    Args:
        text: Text to split.
        bounds: (start, end) of its sentences, if they are known; None: `split_sentences` finds them.
    """
    sentences = [
        tuple((start + first, start + last) for first, last in split_words(text[start:end]))
        for start, end in (split_sentences(text) if bounds is None else bounds)
    ]
    return [offsets for offsets in sentences if offsets]


def _is_terminal(word: str, before: str) -> bool:
    if word[0] not in _TERMINALS:
        return False
    is_initial = len(before) == 1 and before.isalpha()
    return word != "." or not (is_initial or before.lower() in _ABBREVIATIONS)
