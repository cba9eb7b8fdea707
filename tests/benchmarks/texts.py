"""Sentences and passages for benchmarks of any size: the shared data, or an invented world's, again and again.

A repeated text is not the same: some of its words, or its names and numbers, are others, and the number of distinct
names grows with the number of texts. Everything is the same in every run.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ctxner.demo import make_world
from ctxner.files.sentences import read_sentences
from ctxner.retrieval.corpus.reader import read_corpus
from ctxner.schema import Passage, Sentence

DATA = Path(__file__).parents[3] / "shared" / "data"
CORPORA = ("social-wiki-news", "news-wiki", "biomedical", "knowledge")
_REPLACED = 0.3  # share of a repeated text's words that are others
_NAMES = 50_000  # that a repetition of all passages adds to those it draws from
_SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnprstvz" for vowel in ("a", "e", "i", "or")]
_WORD = re.compile(r"\w+")


def sentences(number: int) -> Iterator[Sentence]:
    """So many sentences with ids `s0`, `s1`, ...: WNUT-17 as it is, then with some words replaced by others of it."""
    if DATA.is_dir():
        own = [
            sentence.words
            for split in ("train", "dev", "test")
            for sentence in read_sentences(DATA / "wnut17" / f"{split}.conll").sentences
        ]
    else:
        own = [sentence.words for sentence in make_world(num_train=2000).train]
    words = [word for sentence in own for word in sentence]  # drawn as often as they occur
    chance = random.Random(0)
    for n in range(number):
        found = own[n % len(own)]
        if n >= len(own):
            found = tuple(chance.choice(words) if chance.random() < _REPLACED else word for word in found)
        yield Sentence(f"s{n}", found)


def passages(number: int, corpora: Sequence[str] = CORPORA) -> Iterator[Passage]:
    """So many passages with ids `p0`, `p1`, ...: corpora as they are, then with other names and numbers."""
    chance = random.Random(0)
    made = 0
    for repeat in itertools.count():
        for passage in _corpus(corpora):
            if made == number:
                return
            text, title = passage.text, passage.title
            if repeat:
                text, title = _varied(text, title, repeat, chance)
            yield Passage(f"p{made}", passage.source, text, title=title)
            made += 1


def write_sentences(sentences: Iterable[Sentence], path: Path) -> None:
    """JSON lines for `ctxner retrieve`."""
    _write_lines(({"id": own.id, "words": own.words} for own in sentences), path)


def write_passages(passages: Iterable[Passage], path: Path) -> None:
    """JSON lines for `ctxner index`."""
    records = ({"id": own.id, "source": own.source, "title": own.title, "contents": own.text} for own in passages)
    _write_lines(records, path)


def _write_lines(records: Iterable[dict[str, object]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def _corpus(corpora: Sequence[str]) -> Iterator[Passage]:
    if DATA.is_dir():
        return read_corpus([DATA / "corpora" / f"{name}.jsonl.gz" for name in corpora])
    return iter(make_world(num_train=2000).corpus)


def _varied(text: str, title: str, repeat: int, chance: random.Random) -> tuple[str, str]:
    """The texts with some of their names and numbers replaced, the same ones in both."""
    in_title = set(_WORD.findall(title))
    others: dict[str, str] = {}

    def other(match: re.Match[str]) -> str:
        word = match[0]
        if word.islower() and word not in in_title:
            return word
        if word not in others:
            others[word] = _other(word, repeat, chance) if chance.random() < _REPLACED else word
        return others[word]

    return _WORD.sub(other, text), _WORD.sub(other, title)


def _other(word: str, repeat: int, chance: random.Random) -> str:
    if word.isdigit():
        return str(chance.randrange(10 ** len(word)))
    rank = int((_NAMES * repeat) ** chance.random())  # few names are common, most are rare
    name = ""
    while rank or not name:
        rank, place = divmod(rank, len(_SYLLABLES))
        name += _SYLLABLES[place]
    return name if word.islower() else name.capitalize()
