"""Linking: which runs of a sentence's words name an entry of the index, and how likely they are meant.

All runs that are names are found at once for many sentences (`ctxner.retrieval.index.names`). Capitals and the way in
which the corpus's texts write the words decide whether a name is meant: most one-word titles of films are not. Then the
longest runs win, and none overlap.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctxner.retrieval.index.collected_names import word_hash
from ctxner.retrieval.index.names import Names
from ctxner.retrieval.search.query import ENGLISH_STOP_WORDS
from ctxner.retrieval.text import clean_text, name_words, normalised_words
from ctxner.schema import Passage, ScoredPassage, Sentence

MAX_WORDS = 512  # words of a sentence that are linked
MAX_WORD_LENGTH = 64  # characters of a word that are compared
# Least probability of a link. Chosen on dev: on WNUT-17 (knowledge and places) 57% of the links are mentions and 27% of
# the mentions that are names fall below; on CoNLL++ (places), 70% and 1%.
LEAST_SCORE = 0.12
_TERM_SCORE = 0.8  # of names in lower case, as in terminologies; measured on BC5CDR's dev set
_ABBREVIATION_SCORE = 0.9
# Logistic regression for names with a capital, fitted on the training sets of WNUT-17
# and, at half the weight, of CoNLL-2003; the columns are those of `_scores`.
_WEIGHTS = np.array([-3.32, 0.27, -0.02, 1.54, 1.88, 0.67, -0.03, 0.75, -0.45, 0.21, 1.41, -0.11, 0.21])
_UNKNOWN_SHARE = 0.5  # capital share of a word that the corpus's texts lack
_VARIANT = 0.9  # share of a score that is left to a name written otherwise: another plural, accent or abbreviation
_PER_LINK = 3  # entries of one name that are shown
_CACHED_WORDS = 1 << 18

_STARTS, _ENDS, _UPPER, _LOWER, _SMALL, _WEAK = 1, 2, 4, 8, 16, 32  # flags of a token; small: stop word in lower case
_PARTS = re.compile(r"[-/\u2010-\u2015]")  # within a word, names may begin and end at these
_FOREIGN_PARTS = re.compile(r"[-/\u2010-\u2015'’]")  # d'Orléans, İstanbul'da; in English, O'Neill is whole
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\WA-Z_]+")


class Link(NamedTuple):
    """A run of words that names entries.

    Attributes:
        start: First word.
        end: One past the last word.
        row: Row of the name in the index's names.
        score: Estimated probability that the run is a mention.
    """

    start: int
    end: int
    row: int
    score: float


class Linker:
    """Links sentences to the names of one index; not to be shared by threads."""

    def __init__(self, names: Names, *, language: str, stop_words: frozenset[str]) -> None:
        """Take the index's names.

        Args:
            names: Names of the index.
            language: Language of the index.
            stop_words: Lower-case words that alone name nothing, except in capitals ("US").
        """
        self._names, self._language, self._stop_words = names, language, stop_words
        self._vocabulary = _Vocabulary(language, stop_words)

    def link(self, sentences: Sequence[Sentence]) -> list[list[Link]]:
        """The links of each sentence, in the order of its words."""
        if len(self._vocabulary) > _CACHED_WORDS:
            self._vocabulary = _Vocabulary(self._language, self._stop_words)
        ids: list[int] = []
        for sentence in sentences:
            ids.extend(map(self._vocabulary.__getitem__, sentence.words[:MAX_WORDS]))
        lengths = np.array([min(len(sentence.words), MAX_WORDS) for sentence in sentences], np.int64)
        candidates = self._candidates(np.array(ids, np.int64), lengths)
        links: list[list[Link]] = [[] for _ in sentences]
        for number, link in zip(*candidates, strict=True):
            links[number].append(link)
        return [
            _without_overlap([*self._abbreviations(sentence), *sentence_links])
            for sentence, sentence_links in zip(sentences, links, strict=True)
        ]

    def _candidates(self, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[list[int], list[Link]]:
        """Sentence numbers and links, best first within a sentence; links may overlap.

        Args:
            ids: The vocabulary's id of each word, one sentence after the other.
            lengths: Number of words of each sentence.
        """
        hashes, flags, firsts = self._vocabulary.arrays()
        counts = firsts[ids + 1] - firsts[ids]  # tokens of each word
        words = np.repeat(np.arange(len(ids)), counts)  # word of each token
        tokens = np.arange(len(words)) - np.repeat(np.cumsum(counts) - counts, counts) + firsts[ids][words]
        hashes, flags = hashes[tokens], flags[tokens]
        first_words = np.cumsum(lengths) - lengths
        sentences = np.repeat(np.arange(len(lengths)), lengths)[words]  # sentence of each token
        ends = np.cumsum(np.bincount(sentences, minlength=len(lengths)))[sentences]
        starts, stops, rows = self._names.runs(hashes, ends)
        is_weak = (stops - starts == 1) & (flags[starts] & _WEAK > 0)
        whole = (flags[starts] & _STARTS > 0) & (flags[stops - 1] & _ENDS > 0) & ~is_weak
        starts, stops, rows = starts[whole], stops[whole], rows[whole]
        scores = self._scores(hashes, flags, sentences, starts, stops, rows)
        likely = scores >= LEAST_SCORE
        starts, stops, rows, scores = starts[likely], stops[likely], rows[likely], scores[likely]
        numbers = sentences[starts]
        order = np.lexsort((starts, -scores, starts - stops, numbers))
        in_sentence = first_words[numbers]
        columns = (words[starts] - in_sentence, words[stops - 1] + 1 - in_sentence, rows, np.round(scores, 3))
        return numbers[order].tolist(), list(map(Link, *(column[order].tolist() for column in columns)))

    def _scores(
        self,
        hashes: NDArray[np.uint64],
        flags: NDArray[np.uint8],
        sentences: NDArray[np.int64],
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Estimated probability that each run is a mention."""
        if not len(rows):
            return np.zeros(0)
        lower = np.concatenate([[0], np.cumsum(flags & _LOWER > 0)])
        upper = np.concatenate([[0], np.cumsum(flags & _UPPER > 0)])
        has_lower = (lower[stops] > lower[starts]) | ((flags[starts] | flags[stops - 1]) & _SMALL > 0)
        has_upper = upper[stops] > upper[starts]
        tells = (np.bincount(sentences, flags & (_LOWER | _SMALL) > 0) > 0)[sentences[starts]]  # not all in capitals
        no_capital = (np.bincount(sentences, flags & _UPPER > 0) == 0)[sentences[starts]]
        shares = self._names.capital_shares(hashes)
        bounds = np.stack([starts, stops], axis=1).reshape(-1)
        unknown = np.logical_or.reduceat(np.append(np.isnan(shares), False), bounds)[::2]
        shares = np.where(np.isnan(shares), _UNKNOWN_SHARE, shares)
        share = np.maximum.reduceat(np.append(shares, 0), bounds)[::2]
        odds = np.log((share + 0.02) / (1.02 - share))
        is_capital = tells & ~has_lower
        features = np.stack(
            [
                np.ones(len(rows)),
                stops - starts >= 2,
                stops - starts >= 3,
                is_capital,
                ~tells,
                odds,
                odds * is_capital,
                (stops - starts >= 2) & is_capital,
                has_upper & has_lower,
                no_capital,
                unknown,
                unknown & is_capital,
                unknown & no_capital,
            ],
            axis=1,
        )
        return np.where(self._names.capitals[rows] > 0, 1 / (1 + np.exp(-features @ _WEIGHTS)), _TERM_SCORE)

    def _abbreviations(self, sentence: Sentence) -> list[Link]:
        """Short forms in the sentence whose long form is a name."""
        links = []
        for short, long in sentence.abbreviations:
            words = tuple(short.split(" "))
            places = [n for n, word in enumerate(sentence.words[:MAX_WORDS]) if word == words[0]]
            places = [n for n in places if sentence.words[n : n + len(words)] == words]
            if places and (row := self._names.row(name_words(long, self._language))) >= 0:
                links += [Link(n, n + len(words), row, _ABBREVIATION_SCORE) for n in places]
        return links


def named_entries(
    sentence: Sentence, links: Sequence[Link], entries: Mapping[int, Sequence[Passage]], *, most: int
) -> list[ScoredPassage]:
    """The entries that a sentence names, in the order of its words.

    Entries whose name is written as in the sentence displace those with another plural or accent; of the entries of
    one name, those come first whose text shares most words with the sentence.

    Args:
        sentence: The sentence that is linked.
        links: Its links.
        entries: Entries by the links' rows, in the order of the corpus.
        most: Most entries; those of the least probable links are left out.
    """
    words = {word for word in normalised_words(" ".join(sentence.words)) if word not in ENGLISH_STOP_WORDS}
    runs: dict[str, list[tuple[int, int]]] = {}
    scored: dict[str, ScoredPassage] = {}
    for link in links:
        surface = normalised_words(" ".join(sentence.words[link.start : link.end]))
        exact = [
            entry for entry in entries[link.row] if surface in map(normalised_words, (entry.title, *entry.aliases))
        ]
        candidates = exact or entries[link.row]
        if len(candidates) > 1:
            candidates = sorted(candidates, key=lambda entry: -len(words.intersection(normalised_words(entry.text))))
        for place, entry in enumerate(candidates[:_PER_LINK]):
            runs.setdefault(entry.id, []).append((link.start, link.end))
            score = round(link.score * (1.0 if exact else _VARIANT) / (place + 1), 3)
            if entry.id not in scored or score > (scored[entry.id].link_score or 0):
                scored[entry.id] = ScoredPassage(entry, 0.0, 0, link_score=score)
    best = sorted(scored, key=lambda id: (-(scored[id].link_score or 0), runs[id]))[:most]
    order = sorted(best, key=lambda id: (runs[id][0], -(scored[id].link_score or 0)))
    return [replace(scored[id], named=tuple(runs[id])) for id in order]


class _Vocabulary(dict[str, int]):
    """Number of each word, and its tokens: a word may have several, as "5-HT", or none, as ","."""

    def __init__(self, language: str, stop_words: frozenset[str]) -> None:
        super().__init__()
        self._language, self._stop_words = language, stop_words
        self._parts = _PARTS if language == "en" else _FOREIGN_PARTS
        self._hashes, self._flags, self._firsts = array("Q"), array("B"), array("q", [0])

    def __missing__(self, word: str) -> int:
        text = clean_text(word[:MAX_WORD_LENGTH])
        parts = _CAMEL.findall(text) if text[:1] in "#@" else self._parts.split(text)
        for part in parts:
            tokens = name_words(part, self._language)
            is_acronym = len(part) > 1 and part.isupper()
            for n, token in enumerate(tokens):
                is_weak = len(token) < 2 or token.isdigit() or (token in self._stop_words and not is_acronym)
                case = _UPPER if part[:1].isupper() else 0
                if part[:1].islower():
                    case = _SMALL if token in self._stop_words else _LOWER
                is_last = n == len(tokens) - 1 or self._language == "ko"  # particles may follow
                flags = (n == 0) * _STARTS | is_last * _ENDS | case | is_weak * _WEAK
                self._hashes.append(word_hash(token))
                self._flags.append(flags)
        self._firsts.append(len(self._hashes))
        self[word] = len(self._firsts) - 2
        return self[word]

    def arrays(self) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64]]:
        """Hash and flags of each token, and the first token of each word, one past the last word included.

        They are views: no word can be added while one of them is held.
        """
        return (
            np.frombuffer(self._hashes, np.uint64),
            np.frombuffer(self._flags, np.uint8),
            np.frombuffer(self._firsts, np.int64),
        )


def _without_overlap(links: list[Link]) -> list[Link]:
    """The links that overlap no earlier one, in the order of the sentence."""
    if len(links) < 2:
        return links
    taken: set[int] = set()
    chosen = []
    for link in links:
        words = range(link.start, link.end)
        if taken.isdisjoint(words):
            taken.update(words)
            chosen.append(link)
    return sorted(chosen)
