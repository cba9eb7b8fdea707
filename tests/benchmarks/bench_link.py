"""Linking against an Aho-Corasick automaton (pyahocorasick) of the same 690,652 titles, one thread each.

`link`: the sentences' words -> the names in them, that are likely to be meant, longest first and without overlaps. The
reference only finds all names between word boundaries, in sentences whose words it normalises by the same rule, each
distinct word once; it neither scores nor chooses. Both run in this process, in turns, over WNUT-17's sentences, varied.
The figures of memory are those of what each keeps open: ours is mapped from files, and shared by processes.

Titles are those of the shared `knowledge`; without the shared data as many invented ones.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ctxner.retrieval.index.collected_names import NamesWriter
from ctxner.retrieval.index.names import FOLDER, Names, write_names
from ctxner.retrieval.search.links import Linker
from ctxner.retrieval.search.query import ENGLISH_STOP_WORDS
from ctxner.retrieval.text import name_words
from ctxner.schema import Passage, Sentence
from tests.benchmarks import texts

NAMES = ["link"]
_TITLES = 690_652
_SENTENCES = 20_000
_BATCH = 512
_ROUNDS = 5


def main(names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield sentences per second of both; the bound is Python's own work per word and per link."""
    sentences = list(texts.sentences(_SENTENCES))
    passages = list(_entries())
    with tempfile.TemporaryDirectory() as folder:
        writer = NamesWriter("en")
        for passage in passages:
            writer.add(passage)
        write_names(Path(folder), [writer.names()])
        linker = Linker(Names(Path(folder)), language="en", stop_words=ENGLISH_STOP_WORDS)
        num_bytes = sum(path.stat().st_size for path in Path(folder, FOLDER).iterdir())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        automaton, normalised = _automaton(passages), dict[str, str]()
        reference_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        rates = [
            (_rate(lambda: _link(linker, sentences)), _rate(lambda: _find(automaton, normalised, sentences)))
            for _ in range(_ROUNDS)
        ][1:]  # the first round fills both caches of words
    for name in names:
        yield {
            "benchmark": name,
            "floor": 0.5,
            "unit": "sentences/s",
            "ratio": round(statistics.median(ours / theirs for ours, theirs in rates), 2),
            "ours": round(statistics.median(ours for ours, _ in rates)),
            "reference": round(statistics.median(theirs for _, theirs in rates)),
            "ours_mib": round(num_bytes / 2**20, 1),
            "reference_mib": round(reference_mib),
        }


def _entries() -> Iterator[Passage]:
    if texts.DATA.is_dir():
        yield from texts.passages(_TITLES, ("knowledge",))
        return
    for number, passage in enumerate(texts.passages(_TITLES, texts.CORPORA)):
        yield Passage(str(number), "invented", "", " ".join(passage.text.split()[:3]))


def _link(linker: Linker, sentences: Sequence[Sentence]) -> int:
    return sum(
        len(links)
        for start in range(0, len(sentences), _BATCH)
        for links in linker.link(sentences[start : start + _BATCH])
    )


def _automaton(passages: Sequence[Passage]) -> Any:
    import ahocorasick

    automaton = ahocorasick.Automaton()
    for number, passage in enumerate(passages):
        automaton.add_word(f" {' '.join(name_words(passage.title, 'en'))} ", number)
    automaton.make_automaton()
    return automaton


def _find(automaton: Any, normalised: dict[str, str], sentences: Sequence[Sentence]) -> int:
    found = 0
    for sentence in sentences:
        for word in sentence.words:
            if word not in normalised:
                normalised[word] = " ".join(name_words(word, "en"))
        words = [text for word in sentence.words if (text := normalised[word])]
        found += sum(1 for _ in automaton.iter(f" {' '.join(words)} "))
    return found


def _rate(work: Any) -> float:
    started = time.perf_counter()
    assert work()
    return _SENTENCES / (time.perf_counter() - started)
