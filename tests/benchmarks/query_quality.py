"""How many gold mentions each query mode looks up, against the ceiling of the corpus.

`python -m tests.benchmarks.query_quality [dev|test]` indexes the shared corpora and prints one JSON line a data set,
corpus and mode: the share of gold mentions that stand in one of the best k passages
(`ctxner.retrieval.measure.coverage`, where passages that nearly are the sentence do not count), the share that is the
title of one of the best six, and milliseconds a sentence on one thread. Settings were chosen on dev. Gold mentions
serve for measuring only.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ctxner.files.sentences import read_sentences
from ctxner.retrieval.corpus.reader import read_corpus
from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.measure.coverage import ceiling, gold_mentions, mention_coverage
from ctxner.retrieval.search.bm25 import BM25Searcher
from ctxner.retrieval.search.query import QueryMode
from ctxner.retrieval.text import normalised_words
from ctxner.schema import Example, Sentence

DATA = Path(__file__).parents[3] / "shared" / "data"
CASES = (
    ("wnut17", ("social-wiki-news",)),
    ("wnut17", ("knowledge",)),
    ("wnut17", ("social-wiki-news", "knowledge")),
    ("bc5cdr", ("biomedical",)),
)
KS = (1, 3, 6, 10)
_SPARE = 10  # passages fetched beyond the largest k, to replace those that nearly are the sentence


def main(split: str) -> None:
    """Print the JSON lines of all cases."""
    if not DATA.is_dir():
        sys.exit(f"{DATA}: the shared data sets are needed")
    for name, corpora in CASES:
        sentences = read_sentences(DATA / name / f"{split}.conll").sentences
        files = [DATA / "corpora" / f"{corpus}.jsonl.gz" for corpus in corpora]
        case = {"data": f"{name}-{split}", "corpus": "+".join(corpora)}
        most = ceiling(read_corpus(files), sentences).all.share
        with tempfile.TemporaryDirectory() as folder:
            build_index(files, Path(folder, "index"))
            for mode in get_args(QueryMode):
                figures = measure(BM25Searcher(Path(folder, "index"), query_mode=mode, num_threads=1), sentences)
                print(json.dumps({**case, "mode": mode, **figures, "ceiling": most}), flush=True)


def measure(searcher: BM25Searcher, sentences: Sequence[Sentence]) -> dict[str, object]:
    """Coverage by k, and the time of a search."""
    started = time.perf_counter()
    results = searcher.search(sentences, depth=max(KS) + _SPARE)
    milliseconds = 1000 * (time.perf_counter() - started) / len(sentences)
    examples = [Example(*pair) for pair in zip(sentences, (r.hits for r in results), strict=True)]
    found = mention_coverage(examples, KS)
    shares = {f"coverage_at_{k}": round(tally.all.share or 0.0, 4) for k, tally in found.items()}
    return {**shares, "titles_at_6": round(_share_of_titles(examples), 4), "ms_a_sentence": round(milliseconds, 2)}


def _share_of_titles(examples: Sequence[Example]) -> float:
    is_title = []
    for example in examples:
        titles = {tuple(normalised_words(scored.passage.title)) for scored in example.passages[:6]}
        is_title += [surface in titles for _, (surface, _) in gold_mentions(example.sentence)]
    return sum(is_title) / len(is_title)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "dev")
