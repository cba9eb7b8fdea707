"""How much better the weighted query finds gold mentions than the raw bag of words.

`python -m tests.benchmarks.query_quality` indexes the shared corpora and prints one JSON line a data set and k: the
share of gold mentions that occur, word for word in any case, in the best k passages, nearly repeated sentences left
out. Gold mentions serve for measuring only. `ceiling` is the share that occurs in the corpus at all.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ctxner.conll import read_sentences
from ctxner.labels import tags_to_spans
from ctxner.retrieval.bm25 import BM25Searcher
from ctxner.retrieval.corpus import read_corpus
from ctxner.retrieval.duplicates import character_runs, repeats_sentence
from ctxner.retrieval.index import build_index
from ctxner.schema import Passage, Sentence

DATA = Path(__file__).parents[3] / "shared" / "data"
CASES = (("wnut17", "social-wiki-news", None), ("bc5cdr", "biomedical", 1000))  # data set, corpus, sentences
KS = (1, 3, 6, 10, 32)
_SPARE = 8  # passages fetched beyond the largest k, to replace repeated sentences


def main() -> None:
    """Print the JSON lines of all cases."""
    if not DATA.is_dir():
        sys.exit(f"{DATA}: the shared data sets are needed")
    for name, corpus, num_sentences in CASES:
        sentences = read_sentences(DATA / name / "dev.conll").sentences[:num_sentences]
        with tempfile.TemporaryDirectory() as folder:
            corpus_file = DATA / "corpora" / f"{corpus}.jsonl.gz"
            build_index([corpus_file], Path(folder, "index"))
            for line in compare(corpus_file, Path(folder, "index"), sentences):
                print(json.dumps({"benchmark": "query_quality", "data": f"{name}-dev", "corpus": corpus, **line}))


def compare(corpus: Path, index: Path, sentences: Sequence[Sentence]) -> Iterator[dict]:
    """One line a k."""
    weighted = BM25Searcher(index, query_mode="weighted")
    bag = BM25Searcher(index, query_mode="bag", max_query_terms=512)
    mentions = [_mentions(sentence) for sentence in sentences]
    ours, reference = (_recall(searcher, sentences, mentions) for searcher in (weighted, bag))
    ceiling = _ceiling(corpus, sentences, mentions)
    for k in KS:
        ratio = round(ours[k] / reference[k], 3)
        figures = {"ratio": ratio, "unit": "mention recall", "ours": ours[k], "reference": reference[k]}
        yield {"k": k, **figures, "ceiling": ceiling}


def _recall(searcher: BM25Searcher, sentences: Sequence[Sentence], mentions: Sequence[set[str]]) -> dict[int, float]:
    results = searcher.search(sentences, depth=max(KS) + _SPARE)
    first_ranks = []
    for sentence, wanted, result in zip(sentences, mentions, results, strict=True):
        texts = _others(sentence, [hit.passage for hit in result.hits])
        first_ranks += [next((rank for rank, text in enumerate(texts) if mention in text), None) for mention in wanted]
    return {k: _share(rank is not None and rank < k for rank in first_ranks) for k in KS}


def _ceiling(corpus: Path, sentences: Sequence[Sentence], mentions: Sequence[set[str]]) -> float:
    """Share of mentions in any passage that does not repeat their sentence."""
    askers: dict[str, set[int]] = {}
    for n, wanted in enumerate(mentions):
        for mention in wanted:
            askers.setdefault(mention, set()).add(n)
    longest = max(len(mention.split()) for mention in askers)
    num_mentions = sum(map(len, askers.values()))
    for passage in read_corpus([corpus]):
        tokens = _comparable(passage.text).split()
        runs = {f" {' '.join(tokens[i : i + n])} " for i in range(len(tokens)) for n in range(1, longest + 1)}
        for mention in runs & askers.keys():
            askers[mention] -= {n for n in askers[mention] if _others(sentences[n], [passage])}
    return round(1 - sum(map(len, askers.values())) / num_mentions, 4)


def _others(sentence: Sentence, passages: Sequence[Passage]) -> list[str]:
    """Comparable texts of the passages that do not repeat the sentence."""
    runs = character_runs(" ".join(sentence.words))
    return [
        _comparable(f"{passage.title} | {passage.text}")
        for passage in passages
        if not repeats_sentence(character_runs(passage.text), runs)
    ]


def _mentions(sentence: Sentence) -> set[str]:
    return {_comparable(" ".join(sentence.words[span.start : span.end])) for span in tags_to_spans(sentence.tags or ())}


def _comparable(text: str) -> str:
    """Lower-case tokens between blanks, so that a run of tokens is a substring."""
    tokens = re.findall(r"[^\W_]+|[^\w\s]|_", text.lower())
    return f" {' '.join(tokens)} "


def _share(found: Iterator[bool] | list[bool]) -> float:
    values = list(found)
    return round(sum(values) / len(values), 4)


if __name__ == "__main__":
    main()
