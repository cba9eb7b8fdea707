"""`ctxner audit`: data splits and corpus files -> sentences that have copies, and mentions that occur in training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from ctxner.config import SPLITS, Config, IndexConfig
from ctxner.retrieval.corpus.reader import read_corpus
from ctxner.retrieval.measure.leakage import (
    SeenMentions,
    entity_overlap,
    find_copies,
    texts_of,
)
from ctxner.schema import Passage, Sentence
from jobs.console import progress
from jobs.pages.audit import Comparison, write_audit_page
from jobs.pages.page import as_dict
from jobs.retrieve import read_splits


def run(config: Config, out: Path) -> dict[str, Any]:
    """Audit all configured splits, write the page, and return the figures and the ids of the copies."""
    started = time.perf_counter()
    splits, corpus = read_splits(config, ()), config.index.corpus
    comparisons = compare(splits, config.index)
    overlap = {
        split: entity_overlap(splits["train"], sentences)
        for split, sentences in splits.items()
        if split != "train" and "train" in splits and any(sentence.tags for sentence in sentences)
    }
    seconds = round(time.perf_counter() - started, 1)
    files = {split: str(config.data.path(split)) for split in splits}
    facts = {
        "Corpus": ", ".join(map(str, corpus)) or "none given",
        **{f"{split}, {len(sentences):,} sentences": files[split] for split, sentences in splits.items()},
        "Seconds": f"{seconds}",
    }
    write_audit_page(out, comparisons, overlap, facts)
    return {
        "splits": files,
        "corpus": [str(path) for path in corpus],
        "comparisons": [_comparison_dict(comparison) for comparison in comparisons],
        "seen_in_training": {split: _overlap_dict(*counts) for split, counts in overlap.items()},
        "seconds": seconds,
        "report": str(out),
    }


def plan(config: Config, out: Path) -> dict[str, Any]:
    """What `run` would do; reads the data and the corpus."""
    splits, corpus = read_splits(config, ()), config.index.corpus
    return {
        "sentences": {split: len(sentences) for split, sentences in splits.items()},
        "num_passages": sum(1 for _ in read_passages(config.index, "reading passages")) if corpus else 0,
        "report": str(out),
    }


def summary(result: dict[str, Any]) -> dict[str, str]:
    """A short result for people: one line per comparison."""

    def line(row: dict[str, Any], names: dict[str, str]) -> str:
        def share(count: dict[str, Any]) -> str:
            return f"{count['found']:,} ({count['share']:.1%})" if count["total"] else "none"

        return ", ".join(f"{text} {share(row[name])}" for name, text in names.items())

    copies = {"exact": "exact", "near": "near", "most_words": "most words"}
    seen = {"mentions": "mentions", "distinct": "distinct"}
    return {
        **{f"{row['split']}, copies in {row['where']}": line(row, copies) for row in result["comparisons"]},
        **{f"{split}, seen in training": line(row, seen) for split, row in result["seen_in_training"].items()},
        "report": result["report"],
        "seconds": str(result["seconds"]),
    }


def default_page(config: Config) -> Path:
    """Page named after the folder of the data, so that audits of several data sets stay."""
    first = next((path for split in SPLITS if (path := getattr(config.data, split)) is not None), Path("data"))
    return Path("runs") / f"audit-{first.absolute().parent.name}.html"


def compare(splits: dict[str, list[Sentence]], index: IndexConfig) -> list[Comparison]:
    """Compare every split with the corpus (in one pass over it), with the splits before it, and with itself."""
    everything = [sentence for split in splits.values() for sentence in split]
    comparisons = []
    if index.corpus:
        passages = read_passages(index, "comparing passages")
        copies = iter(find_copies(((passage.id, passage.text) for passage in passages), everything))
        for split, sentences in splits.items():
            comparisons.append(Comparison(split, "corpus", sentences, [next(copies) for _ in sentences]))
    for first, second in combinations(splits, 2):
        split_copies = find_copies(texts_of(splits[first]), splits[second])
        comparisons.append(Comparison(second, first, splits[second], split_copies))
    for split, sentences in splits.items():
        comparisons.append(
            Comparison(split, "itself", sentences, find_copies(texts_of(sentences), sentences, same=True))
        )
    return comparisons


def read_passages(index: IndexConfig, description: str) -> Iterator[Passage]:
    """The passages of an index's corpus files, with a progress bar."""
    with progress(description, None) as done:
        number = 0
        for number, passage in enumerate(read_corpus(index.corpus, columns=index.columns), start=1):
            if number % 1000 == 0:
                done(number)
            yield passage
        done(number)


def _comparison_dict(comparison: Comparison) -> dict[str, Any]:
    leaks = {
        sentence.id: {
            "ids": copies.ids,
            "num_near": copies.num_near,
            "num_exact": copies.num_exact,
            "containment": round(copies.closest.containment, 4),
        }
        for sentence, copies in zip(comparison.sentences, comparison.copies, strict=True)
        if copies.closest
    }
    shares = comparison.shares
    return {
        "split": comparison.split,
        "where": comparison.where,
        "exact": as_dict(shares.exact),
        "near": as_dict(shares.near),
        "most_words": as_dict(shares.words),
        "leaks": leaks,
    }


def _overlap_dict(overall: SeenMentions, by_type: dict[str, SeenMentions]) -> dict[str, Any]:
    def plain(seen: SeenMentions) -> dict[str, Any]:
        return {"mentions": as_dict(seen.mentions), "distinct": as_dict(seen.surfaces)}

    return {**plain(overall), "by_type": {type: plain(tally) for type, tally in by_type.items()}}
