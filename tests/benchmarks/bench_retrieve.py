"""The search stage of `ctxner retrieve` on Ray Data against one plain process, with the same number of threads.

`bm25_stage`: bag-of-words queries. The reference is Anserini's own batch search in Java of the same query strings, then
its batch look-up of the distinct passages found; these stay in Java, while ours come out of Ray as Arrow rows.
`bm25_stage_mentions`: the mode `mentions`. The reference is the same searcher without Ray.
`bm25_entries`: the default mode `entries`, without Ray, over passages that all have titles: 100,000 of `knowledge`.
The reference is the mode `mentions` on the same index.

Each measurement is a process of its own, in turns. Warm-up sentences go first; ours is timed from the moment they have
come out at the other end of the pipeline. The index holds 100,000 passages of the shared social-wiki-news, the queries
are WNUT-17's sentences, varied; without the shared data both are of an invented world.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ctxner.batch.job_folder import JobFolder
from ctxner.batch.retrieval_files import job_path, stage
from ctxner.config import IndexConfig, RetrievalConfig
from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.index.versions import read_manifest
from ctxner.schema import Sentence
from tests.benchmarks import texts

MODES = {"bm25_stage": "bag", "bm25_stage_mentions": "mentions", "bm25_entries": "entries"}
NAMES = list(MODES)
_PASSAGES = 100_000
_SENTENCES = {"bag": 20_000, "mentions": 6_000, "entries": 6_000}  # mentions are ten times the work of a bag
_WARM_UP = 4096  # sentences
_BATCH = 512  # sentences a call, as in the pipeline
_REFERENCE_BATCH = 5000  # queries a call of Anserini's: the more the better for it, but for memory
_THREADS = 2
_ROUNDS = 3
_SIDES = {  # ours and the reference, by mode
    "bag": ("pipeline", "anserini"),
    "mentions": ("pipeline", "searcher"),
    "entries": ("entries", "mentions_of_entries"),
}


def main(names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield sentences a second of both."""
    with tempfile.TemporaryDirectory() as folder:
        _in_a_process("prepare", "", folder)
        for name in names:
            sides = _SIDES[MODES[name]]
            rates = [tuple(_in_a_process(side, MODES[name], folder) for side in sides) for _ in range(_ROUNDS)]
            yield {
                "benchmark": name,
                "floor": 2.0 if MODES[name] == "entries" else 0.8,
                "unit": "sentences/s",
                "ratio": round(statistics.median(ours / theirs for ours, theirs in rates), 2),
                "ours": round(statistics.median(ours for ours, _ in rates)),
                "reference": round(statistics.median(theirs for _, theirs in rates)),
            }


def prepare(_: str, folder: Path) -> float:
    """Write the index and the sentences."""
    texts.write_passages(texts.passages(_PASSAGES, texts.CORPORA[:1]), folder / "corpus.jsonl")
    build_index([folder / "corpus.jsonl"], folder / "index")
    texts.write_passages(texts.passages(_PASSAGES, ["knowledge"]), folder / "entries.jsonl")
    build_index([folder / "entries.jsonl"], folder / "index_of_entries")
    for mode, number in _SENTENCES.items():
        (folder / mode).mkdir()
        stage({"all": texts.sentences(_WARM_UP + number)}, folder / mode, {})
    return 0.0


def pipeline(mode: str, folder: Path) -> float:
    """Ray Data: read, search, consume."""
    import ray

    from ctxner.batch.retrieval_actors import Search

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    settings = RetrievalConfig(query=mode, threads=_THREADS)  # type: ignore[arg-type]
    index = IndexConfig(folder=folder / "index")
    found = (
        ray.data.read_parquet(str(_inputs(mode, folder)))
        .repartition(target_num_rows_per_block=_BATCH)
        .map_batches(
            Search,
            fn_constructor_args=(index.model_dump(), read_manifest(index.folder), settings.model_dump()),
            batch_size=_BATCH,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=settings.actor_cpus,
        )
    )
    num_rows = num_before = 0
    started = 0.0
    for batch in found.iter_batches(batch_size=None, batch_format="pyarrow"):
        num_rows += len(batch)
        assert batch["error"].null_count == len(batch)
        if not started and num_rows >= _WARM_UP:
            started, num_before = time.perf_counter(), num_rows
    assert num_rows == _WARM_UP + _SENTENCES[mode]
    return (num_rows - num_before) / (time.perf_counter() - started)


def searcher(mode: str, folder: Path) -> float:
    """The same searcher, called batch by batch."""
    from ctxner.retrieval.search.bm25 import BM25Searcher

    return _search_rate(BM25Searcher(folder / "index", query_mode=mode, num_threads=_THREADS), mode, folder)  # type: ignore[arg-type]


def entries(mode: str, folder: Path) -> float:
    """Entries by name, then texts, over an index of entries."""
    from ctxner.retrieval.search.bm25 import BM25Searcher

    return _search_rate(BM25Searcher(folder / "index_of_entries", num_threads=_THREADS), mode, folder)


def mentions_of_entries(mode: str, folder: Path) -> float:
    """The mode `mentions` over the same index."""
    from ctxner.retrieval.search.bm25 import BM25Searcher

    searcher = BM25Searcher(folder / "index_of_entries", query_mode="mentions", num_threads=_THREADS)
    return _search_rate(searcher, mode, folder)


def _search_rate(searcher: Any, mode: str, folder: Path) -> float:
    settings = RetrievalConfig()
    return _rate(lambda batch: searcher.search(batch, depth=settings.depth), _sentences(mode, folder), _BATCH)


def anserini(mode: str, folder: Path) -> float:
    """Anserini's batch search, then its batch look-up of what was found, all in Java."""
    from ctxner.retrieval.lucene.jvm import java_class
    from ctxner.retrieval.lucene.method_handles import as_interface, getter, static_method
    from ctxner.retrieval.search.query import bag_of_words

    settings, function = RetrievalConfig(), "java.util.function.Function"
    (shard,) = read_manifest(folder / "index").shard_folders(folder / "index")
    own = java_class("io.anserini.search.SimpleSearcher")(str(shard))
    own.set_bm25(settings.k1, settings.b)
    all_hits = as_interface(
        function, static_method("java.util.Arrays", "stream", "java.util.stream.Stream", "[java.lang.Object")
    )
    docid = as_interface(function, getter("io.anserini.search.ScoredDoc", "docid", "java.lang.String"))
    to_list = java_class("java.util.stream.Collectors").toList()

    def search(batch: tuple[Any, Any]) -> None:
        found = own.batch_search(*batch, settings.depth, _THREADS)
        ids = found.values().stream().flatMap(all_hits).map(docid).distinct().collect(to_list)
        assert own.batch_get_docs(ids, _THREADS).size() == ids.size() > 0

    sentences = _sentences(mode, folder)
    queries = [bag_of_words(sentence.words, max_terms=settings.max_query_terms) for sentence in sentences]
    search(_java_batch(queries[:_WARM_UP]))
    timed = range(_WARM_UP, len(queries), _REFERENCE_BATCH)
    batches = [_java_batch(queries[start : start + _REFERENCE_BATCH]) for start in timed]
    started = time.perf_counter()
    for batch in batches:
        search(batch)
    return _SENTENCES[mode] / (time.perf_counter() - started)


def _java_batch(queries: Sequence[str]) -> tuple[Any, Any]:
    """Queries and their ids as Java lists; a sentence without a query is not searched for, as with ours."""
    from ctxner.retrieval.lucene.jvm import java_class

    lists = java_class("java.util.ArrayList")(), java_class("java.util.ArrayList")()
    for n, query in enumerate(queries):
        if query:
            for own, text in zip(lists, (query, str(n)), strict=True):
                own.add(java_class("java.lang.String")(text.encode(), "UTF-8"))
    return lists


def _rate(search: Callable[[Sequence[Sentence]], object], sentences: Sequence[Sentence], size: int) -> float:
    for start in range(0, _WARM_UP, size):
        search(sentences[start : start + size])
    started = time.perf_counter()
    for start in range(_WARM_UP, len(sentences), size):
        search(sentences[start : start + size])
    return (len(sentences) - _WARM_UP) / (time.perf_counter() - started)


def _inputs(mode: str, folder: Path) -> Path:
    return JobFolder(job_path(folder / mode), _WARM_UP + _SENTENCES[mode]).inputs


def _sentences(mode: str, folder: Path) -> list[Sentence]:
    rows = pq.read_table(_inputs(mode, folder)).sort_by("position").to_pylist()
    return [Sentence(row["sentence_id"], tuple(row["words"])) for row in rows]


def _in_a_process(side: str, mode: str, folder: str) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.bench_retrieve", side, mode, folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))))
