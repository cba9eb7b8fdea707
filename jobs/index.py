"""`ctxner index ...`: building, changing, checking and searching a Lucene index."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from ctxner.config import Config
from jobs.console import Lines, console, printable

if TYPE_CHECKING:
    from ctxner.retrieval.corpus.reader import Unit
    from ctxner.retrieval.index.changes import IndexChange
    from ctxner.schema import Passage


def run(config: Config) -> dict[str, Any]:
    """Build the index of the config's index section; returns its manifest and the speed."""
    from ctxner.retrieval.index.build import build_index, write_shards_in_turn
    from ctxner.retrieval.index.remote import index_work

    write_shards: Any = write_shards_in_turn
    if config.index.shards > 1:
        from jobs.cluster import connect

        connect()
        from ctxner.batch.index_shards import write_shards_on_ray as write_shards
    started = time.perf_counter()
    with index_work(config.index.folder) as work, _progress("indexing passages") as done:
        if work.shards and config.index.shards > 1:
            write_shards = partial(write_shards, uri=work.shards)
        manifest = build_index(
            config.index.corpus,
            work.folder,
            language=config.index.language,
            unit=config.index.unit,
            columns=config.index.columns,
            num_shards=config.index.shards,
            write_shards=write_shards,
            on_progress=done,
        )
        manifest = work.publish(manifest)
    seconds = time.perf_counter() - started
    return {
        "folder": str(config.index.folder),
        **dataclasses.asdict(manifest),
        "seconds": round(seconds, 2),
        "passages_per_second": round(manifest.num_documents / seconds),
    }


def plan(config: Config) -> dict[str, Any]:
    """What `run` would do; reads the corpus and checks it."""
    from ctxner.retrieval.lucene.shard_writer import analyzer_for

    analyzer_for(config.index.language)
    return {
        "folder": str(config.index.folder),
        "language": config.index.language,
        "shards": config.index.shards,
        "num_passages": sum(1 for _ in _read(config)),
    }


def add(config: Config) -> dict[str, Any]:
    """Add the corpus of the config's index section to its index."""
    from ctxner.retrieval.index.changes import add_passages
    from ctxner.retrieval.index.remote import index_work

    with index_work(config.index.folder, changes=True) as work, _progress("adding passages") as done:
        change = add_passages(config.index.corpus, work.folder, columns=config.index.columns, on_progress=done)
        change = dataclasses.replace(change, manifest=work.publish(change.manifest))
    return _changed(config, change)


def plan_add(config: Config) -> dict[str, Any]:
    """What `add` would do."""
    from ctxner.retrieval.index.versions import read_manifest
    from ctxner.retrieval.lucene.reader import PassageFinder

    folder = _here(config)
    manifest = read_manifest(folder)
    num_added = num_replaced = 0
    with PassageFinder(manifest.shard_folders(folder)) as find:
        for passage in _read(config, unit=manifest.unit):
            is_known = find(passage.id) is not None
            num_replaced += is_known
            num_added += not is_known
    return {"folder": str(config.index.folder), "num_added": num_added, "num_replaced": num_replaced}


def delete(config: Config, ids: Sequence[str]) -> dict[str, Any]:
    """Delete passages from the config's index."""
    from ctxner.retrieval.index.changes import delete_passages
    from ctxner.retrieval.index.remote import index_work

    with index_work(config.index.folder, changes=True) as work:
        change = delete_passages(ids, work.folder)
        change = dataclasses.replace(change, manifest=work.publish(change.manifest))
    return _changed(config, change)


def plan_delete(config: Config, ids: Sequence[str]) -> dict[str, Any]:
    """What `delete` would do."""
    from ctxner.retrieval.index.versions import read_manifest
    from ctxner.retrieval.lucene.reader import PassageFinder

    folder = _here(config)
    manifest = read_manifest(folder)
    with PassageFinder(manifest.shard_folders(folder)) as find:
        unknown = [passage_id for passage_id in dict.fromkeys(ids) if find(passage_id) is None]
    num_deleted = len(set(ids)) - len(unknown)
    return {"folder": str(config.index.folder), "num_deleted": num_deleted, "unknown_ids": unknown}


def verify(config: Config) -> dict[str, Any]:
    """Check the config's index; a ValueError lists every fault."""
    from ctxner.retrieval.index.verify import verify_index

    with _progress("checking passages") as done:
        manifest = verify_index(_here(config), on_progress=done)
    return {"folder": str(config.index.folder), "sound": True, **dataclasses.asdict(manifest)}


def stats(config: Config, num_terms: int) -> dict[str, Any]:
    """Statistics of the config's index."""
    from ctxner.retrieval.index.verify import index_stats

    with _progress("reading passages") as done:
        return index_stats(_here(config), num_terms=num_terms, on_progress=done)


def search(config: Config, text: str, depth: int) -> dict[str, Any]:
    """The best passages of the config's index for a text."""
    from ctxner.files.words import split_words
    from ctxner.retrieval.search.bm25 import BM25Searcher
    from ctxner.schema import Sentence

    settings = config.retrieval
    searcher = BM25Searcher(
        _here(config),
        k1=settings.k1,
        b=settings.b,
        query_mode=settings.query,
        max_query_terms=settings.max_query_terms,
    )
    words = tuple(text[start:end] for start, end in split_words(text))
    (result,) = searcher.search([Sentence("query", words)], depth=depth)
    if result.error:
        raise ValueError(f"the search failed: {result.error}")
    hits = [
        {
            "rank": hit.bm25_rank,
            "score": round(hit.bm25_score if hit.link_score is None else hit.link_score, 4),
            "id": hit.passage.id,
            "source": hit.passage.source,
            "title": hit.passage.title,
            "text": hit.passage.text,
        }
        for hit in result.hits
    ]
    return {"query": result.query, "hits": hits}


def show_hits(result: dict[str, Any]) -> None:
    """Print the result of a search for people, on stdout."""
    out = Console()
    out.print(Text(f"query: {result['query']}", style="dim"))
    for hit in result["hits"]:
        line = f"{hit['rank']:3}. {hit['score']:8.4f}  {hit['title'] or hit['source']}  [{hit['id']}]"
        out.print(Text(printable(line), "bold"))
        out.print(Padding(Text(printable(hit["text"])), (0, 0, 0, 5)))
    if not result["hits"]:
        out.print("no passage found")


def parse_columns(text: str | None) -> dict[str, str] | None:
    """The mapping in `--columns FIELD=COLUMN,FIELD=COLUMN`; None without the option."""
    if text is None:
        return None
    pairs = [pair.partition("=") for pair in text.split(",")]
    if faulty := next((field + equals for field, equals, column in pairs if not field.strip() or not column), None):
        raise ValueError(f"--columns {text!r}: found {faulty!r}, wanted FIELD=COLUMN, with commas between the pairs")
    return {field.strip(): column.strip() for field, _, column in pairs}


def read_ids(path: Path) -> list[str]:
    """Ids from a file, one per line."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}); wanted one id a line") from None


def _here(config: Config) -> Path:
    from ctxner.retrieval.index.fetch import index_here

    return index_here(config.index.folder)


def _changed(config: Config, change: IndexChange) -> dict[str, Any]:
    counts = {field: getattr(change, field) for field in ("num_added", "num_replaced", "num_deleted", "unknown_ids")}
    return {"folder": str(config.index.folder), **counts, **dataclasses.asdict(change.manifest)}


def _read(config: Config, unit: Unit | None = None) -> Iterator[Passage]:
    """The passages of the corpus, with a progress bar; the corpus is checked after the last one."""
    from ctxner.files.unique_ids import IdHashes
    from ctxner.retrieval.corpus.reader import CorpusReader, check_corpus

    unit, columns = unit or config.index.unit, config.index.columns
    passages, hashes = CorpusReader(config.index.corpus, unit=unit, columns=columns), IdHashes()
    with _progress("reading passages") as done:
        for passage in passages:
            hashes.add(passage.id)
            if len(hashes) % 1000 == 0:
                done(len(hashes), passages.share_read)
            yield passage
        done(len(hashes), 1.0)
    check_corpus(config.index.corpus, hashes, unit=unit, columns=columns)


@contextmanager
def _progress(description: str) -> Iterator[Callable[[int, float], None]]:
    """A bar with passages, their rate and an ETA; yields a function of the passages done and the share of all work."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[passages]:,} passages, {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    if not console.is_terminal:
        lines = Lines(description, None)
        yield lambda passages, share: lines.update(passages, round(passages / share) if share else None)
        lines.show()
        return
    started = time.perf_counter()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=1.0, passages=0, rate=0.0)
        yield lambda passages, share: bar.update(
            task, completed=share, passages=passages, rate=passages / (time.perf_counter() - started)
        )
