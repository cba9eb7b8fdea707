"""`ctxner data`: files of sentences -> what they were read as, what is in them, what is odd; and their conversion.

Sentences are read one by one; memory grows by eight bytes per sentence. `jobs.data_tables` shows the result.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctxner.config import SPLITS, Config
from ctxner.files.columns import write_columns
from ctxner.files.jsonl import write_jsonl
from ctxner.files.lines import ReadCounts
from ctxner.files.paths import Kind, kind_of, sentence_files
from ctxner.files.sentences import iter_sentences
from ctxner.files.unique_ids import IdHashes
from ctxner.labels import gold_spans
from ctxner.schema import Sentence, Span
from jobs.console import progress

MAX_EXAMPLES = 5
_TYPES_SHOWN, _WORDS_SHOWN = 100, 40  # further types, and longer sentences, are examples only for want of others
_WRITERS = {"jsonl": write_jsonl, "columns": write_columns}
_REPORT_EVERY = 1000  # sentences
_COUNTED = {  # `ReadCounts` in words
    "num_repaired_tags": "tags changed by data.repair",
    "num_empty_tokens": "empty words, read as _",
    "num_multi_tags": "cells with several tags, of which one was read",
    "num_comments": "comment lines, not read",
    "num_empty_texts": "texts without a word, left out",
}


class Examples:
    """A few sentences that show as many types as they can, then others with mentions, drawn at random."""

    def __init__(self) -> None:
        """Begin with no sentence."""
        self._best = dict[str, tuple[tuple[bool, int], dict[str, Any]]]()  # by type, of the first `_TYPES_SHOWN` types
        self._others, self._num_others = list[dict[str, Any]](), 0
        self._random = random.Random(0)  # noqa: S311 - the same again, not a secret

    def add(self, sentence: Sentence, spans: Sequence[Span]) -> None:
        """Look at a sentence and its mentions."""
        types = {span.type for span in spans}
        if not types:
            return
        rank, example = (len(sentence.words) <= _WORDS_SHOWN, len(types)), _example(sentence, spans)
        for type in types:
            if type in self._best or len(self._best) < _TYPES_SHOWN:
                self._best[type] = max(self._best.get(type, (rank, example)), (rank, example), key=lambda pair: pair[0])
        self._num_others += 1  # reservoir sampling
        place = self._random.randrange(self._num_others)
        if len(self._others) < MAX_EXAMPLES:
            self._others.append(example)
        elif place < MAX_EXAMPLES:
            self._others[place] = example

    def chosen(self) -> list[dict[str, Any]]:
        """The sentences: each one adds as many new types as any other would."""
        candidates, chosen, shown = [example for _, example in self._best.values()], list[dict[str, Any]](), set[str]()

        def num_new(example: dict[str, Any]) -> int:
            return len({mention["type"] for mention in example["mentions"]} - shown)

        while candidates and len(chosen) < MAX_EXAMPLES and num_new(example := max(candidates, key=num_new)):
            chosen.append(example)
            shown |= {mention["type"] for mention in example["mentions"]}
        rest = [example for example in self._others if example not in chosen]
        return [*chosen, *rest][:MAX_EXAMPLES]


class Summary:
    """What is counted of one file while it is read."""

    def __init__(self, file: Path, kind: Kind, config: Config) -> None:
        """Begin with no sentence."""
        self.file, self.kind, self.counts = file, kind, ReadCounts()
        self._scheme = config.data.scheme
        self._num_sentences = self._num_words = self._num_untagged = self._num_without = 0
        self._mentions, self._examples = Counter[str](), Examples()
        self._longest: dict[str, Any] | None = None
        self._texts, self._documents = IdHashes(), IdHashes()
        self._document: str | None = None

    def add(self, sentence: Sentence) -> None:
        """Count a sentence."""
        num_words = len(sentence.words)
        self._num_sentences += 1
        self._num_words += num_words
        if self._longest is None or num_words > self._longest["words"]:
            self._longest = {"id": sentence.id, "words": num_words, "begins": " ".join(sentence.words[:12])}
        self._texts.add("\0".join(sentence.words))
        if sentence.document not in (None, self._document):
            self._documents.add(str(sentence.document))
        self._document = sentence.document
        if sentence.tags is None:
            self._num_untagged += 1
            return
        spans = gold_spans(sentence)
        self._mentions.update(span.type for span in spans)
        self._num_without += not spans
        self._examples.add(sentence, spans)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON and for `jobs.data_tables`."""
        recognised = self.counts.recognised.get(str(self.file))
        num_tagged = self._num_sentences - self._num_untagged
        return {
            "file": str(self.file),
            "format": recognised or self.kind,
            "scheme": self._scheme if self.kind == "columns" and not recognised and num_tagged else None,
            "sentences": self._num_sentences,
            "documents": self._documents.num_distinct(),
            "words": self._num_words,
            "mentions": dict(self._mentions.most_common()),
            "untagged": self._num_untagged,
            "without_mentions": self._num_without,
            "share_without_mentions": self._num_without / num_tagged if num_tagged else None,
            "repeated": self._num_sentences - self._texts.num_distinct(),
            "longest": self._longest,
            "odd": [*_odd(self.counts), *_odd_types(self._mentions, self.counts.places_of_tags)],
            "examples": self._examples.chosen(),
        }


def run(
    config: Config,
    sources: Sequence[Path],
    *,
    kind: Kind | None = None,
    to: tuple[str, Path] | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Read files to their end, and write their sentences in another format if asked for.

    Args:
        config: Config whose data section says how column files are laid out.
        sources: Files, folders and patterns; empty for the files of the data section.
        kind: Format of all files; None: the suffix and the content decide.
        to: Format and file to write.
        dry_run: Whether nothing is written.

    Raises:
        FileNotFoundError: A file does not exist, or a folder or pattern has no file.
        ValueError: No file, a fault in a file, or a sentence that the other format cannot hold.
    """
    files = sentence_files(list(sources) or _configured(config), kind)
    if to:
        _check_target(*to)
    results = list[dict[str, Any]]()
    with _quiet_readers():
        sentences = _read(config, files, kind, results)
        if to and not dry_run:
            target, out = to
            _WRITERS[target](_writable(sentences, target), out)
        else:
            for _ in _writable(sentences, to[0]) if to else sentences:
                pass
    mentions = sum((Counter(result["mentions"]) for result in results), Counter[str]())
    total = {name: sum(result[name] for result in results) for name in ("sentences", "words", "untagged")}
    written = {"written" if not dry_run else "would_write": str(to[1])} if to else {}
    return {"files": results, **total, "mentions": dict(mentions.most_common()), **written}


def _configured(config: Config) -> list[Path]:
    paths = [path for split in SPLITS if (path := getattr(config.data, split)) is not None]
    if not paths:
        raise ValueError("no file; give FILES, or set data.train, data.dev or data.test")
    return paths


def _check_target(target: str, out: Path) -> None:
    """Refuse a name by which the file would be read as another format."""
    if kind_of(out) != target:
        raise ValueError(f"{out}: the name says {kind_of(out)}; wanted {'.jsonl' if target == 'jsonl' else '.conll'}")


def _read(
    config: Config, files: Mapping[Path, str], kind: Kind | None, results: list[dict[str, Any]]
) -> Iterator[Sentence]:
    """The sentences of all files; the result of each file is added when it ends."""
    number = 0
    with progress("reading sentences", None) as done:
        for file, prefix in files.items():
            summary = Summary(file, kind or kind_of(file), config)
            format = config.data.column_format()
            try:
                for sentence in iter_sentences(file, format, kind=kind, id_prefix=prefix, counts=summary.counts):
                    summary.add(sentence)
                    number += 1
                    if number % _REPORT_EVERY == 0:
                        done(number)
                    yield sentence
            except ValueError as error:
                error.__notes__ = []  # they point to this command
                raise
            results.append(summary.to_dict())
        done(number, number)


def _writable(sentences: Iterator[Sentence], target: str) -> Iterator[Sentence]:
    """The sentences, if one file can hold them all.

    Raises:
        ValueError: For columns, some sentences have tags and some have none; for JSON lines, an id is there twice.
    """
    ids, tagged = IdHashes(), None
    for sentence in sentences:
        ids.add(sentence.id)
        if target == "columns":
            if tagged not in (None, sentence.tags is not None):
                raise ValueError(
                    f"sentence {sentence.id!r} has {'no' if tagged else 'gold'} tags, and sentences before it have "
                    f"{'some' if tagged else 'none'}; a column file cannot hold both: use --to jsonl"
                )
            tagged = sentence.tags is not None
        yield sentence
    if target == "jsonl" and ids.repeated():
        raise ValueError("two of the files give the same sentence id; convert each to a file of its own")


@contextmanager
def _quiet_readers() -> Iterator[None]:
    """Keep the readers' log lines back: the result has all that they say."""
    logger = logging.getLogger("ctxner.files")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _odd(counts: ReadCounts) -> Iterator[dict[str, Any]]:
    for name, value in vars(counts).items():
        if name.startswith("num_") and name != "num_sentences" and value:
            what = _COUNTED.get(name) or name.removeprefix("num_").replace("_", " ")
            yield {"what": what, "count": value, "places": counts.places.get(name, [])}
    for what, remark in counts.remarks.items():
        yield {"what": what, "count": remark.count, "places": list(remark.places)}


def _odd_types(mentions: Counter[str], places_of_tags: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Types that may be one, with the first place of each."""
    first = dict[str, str]()
    for tag, place in places_of_tags.items():
        first.setdefault(tag[2:], place)
    alike: dict[str, list[str]] = {}
    for type in mentions:
        alike.setdefault("".join(character for character in type.casefold() if character.isalnum()), []).append(type)
    for types in alike.values():
        if len(types) > 1:
            what = f"types that differ only in case or punctuation: {', '.join(types)}"
            places = [first[type] for type in types if type in first]
            yield {"what": what, "count": sum(mentions[type] for type in types), "places": places}


def _example(sentence: Sentence, spans: Sequence[Span]) -> dict[str, Any]:
    mentions = [{"start": span.start, "end": span.end, "type": span.type} for span in spans]
    return {"id": sentence.id, "words": list(sentence.words), "mentions": mentions}
