"""`ctxner retrieve`: data files -> contexts files, by BM25 and BERTScore re-ranking on Ray Data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ctxner.config import FILES_SPLIT, Config
from ctxner.files.paths import Kind, refuse_txt, sentence_files
from ctxner.files.sentences import iter_sentences, read_sentences
from ctxner.languages import LANGUAGES
from ctxner.schema import Sentence
from jobs.cluster import connect, prepare
from jobs.console import progress

_REPORT_EVERY = 1000  # sentences
_MOST_WITHOUT = 0.5  # share of sentences without a passage above which retrieval warns


def run(config: Config, splits: Sequence[str], files: Sequence[Path] = (), kind: Kind | None = None) -> dict[str, Any]:
    """Retrieve for the splits, or for the files; returns the manifest.

    Sentences are streamed. Errors in the files are reported before Ray starts.
    """
    streams, folder = sentence_streams(config, splits, files, kind), contexts_folder(config)
    prepare()
    from ctxner.batch.retrieve import retrieve

    with ExitStack() as bar:
        done = bar.enter_context(progress("staging sentences", None))
        staging = _counted(streams, done)

        def on_staged(num_sentences: int) -> None:
            nonlocal done
            done(num_sentences, num_sentences)
            bar.close()
            connect()
            done = bar.enter_context(progress("retrieving for sentences", num_sentences))

        manifest = retrieve(staging, config, folder, on_staged=on_staged, on_progress=lambda number: done(number))
    language, folder_of_index = manifest["index"]["language"], config.index.folder
    warning = warning_of_misses(manifest["without_passage"], manifest["sentences"], language, folder_of_index)
    return {"folder": str(folder), **manifest, "warning": warning}


def warning_of_misses(num_without: int, num_sentences: int, language: str | None, index: Path) -> str | None:
    """What to say where most sentences got no passage; None where they did.

    Args:
        num_without: Sentences without any passage, though their search did not fail.
        num_sentences: All sentences.
        language: Language of the index; None when unknown.
        index: Folder of the index, for the advice.
    """
    if num_without <= _MOST_WITHOUT * num_sentences:
        return None
    name = f"{LANGUAGES.get(language, '')} ({language})" if language else "unknown here"
    return (
        f"{num_without / num_sentences:.0%} of {num_sentences:,} sentences got no passage. The index's language is "
        f"{name}: if the sentences are in another one, build the index again with --language; else try a sentence with "
        f"`ctxner index search TEXT --index {index}`, and see whether the corpus speaks of what the sentences do"
    )


def plan(config: Config, splits: Sequence[str], files: Sequence[Path] = (), kind: Kind | None = None) -> dict[str, Any]:
    """What `run` would do; checks the data and the index."""
    from ctxner.retrieval.index.fetch import index_manifest

    streams, folder = sentence_streams(config, splits, files, kind), contexts_folder(config)
    index = index_manifest(config.index.folder, config.index.source)
    with progress("counting sentences", None) as done:
        counts = {split: sum(1 for _ in stream) for split, stream in _counted(streams, done).items()}
    return {
        "sentences": counts,
        "passages_in_index": index.num_documents,
        "pairs_at_most": config.retrieval.depth * sum(counts.values()),
        "folder": str(folder),
    }


def sentence_streams(
    config: Config, splits: Sequence[str], files: Sequence[Path] = (), kind: Kind | None = None
) -> dict[str, Iterator[Sentence]]:
    """The sentences of the wanted splits, or of the files as one split; missing files are refused at once.

    In files that are no split of the config, gold tags in columns are ignored.
    """
    if not files:
        if kind:
            raise ValueError(f"--format {kind} is for FILES; the config's data sets are read by their suffixes")
        format = config.data.column_format()
        return {split: iter_sentences(config.data.path(split), format) for split in wanted_splits(config, splits)}
    if splits:
        raise ValueError("--split chooses among the config's data sets; leave it out, or the FILES")
    listed = sentence_files(files, kind)
    if kind is None:
        refuse_txt(listed, {"columns": "words in columns", "text": "one text per line"})
    return {FILES_SPLIT: iter_sentences(files, config.data.column_format(tagged=False), kind=kind)}


def read_splits(config: Config, splits: Sequence[str]) -> dict[str, list[Sentence]]:
    """The sentences of the wanted splits; by default, of all splits that the config names."""
    format = config.data.column_format()
    return {split: read_sentences(config.data.path(split), format).sentences for split in wanted_splits(config, splits)}


def wanted_splits(config: Config, splits: Sequence[str]) -> list[str]:
    """The given splits, or else all splits that the config names; ValueError when there are none."""
    wanted = list(splits) or config.data.named_splits()
    if not wanted:
        raise ValueError("no data set; give --set data.test=FILE or a --config with a data section")
    return wanted


def contexts_folder(config: Config) -> Path:
    """Folder for contexts files; ValueError when it is not set."""
    if config.data.contexts is None:
        raise ValueError("data.contexts is not set; give the folder to write contexts to, e.g. --out runs/contexts")
    return config.data.contexts


def _counted(streams: dict[str, Iterator[Sentence]], done: Callable[[int], None]) -> dict[str, Iterator[Sentence]]:
    """The same streams; `done` is called regularly with the number of sentences so far, over all streams."""
    number = 0

    def passing(sentences: Iterator[Sentence]) -> Iterator[Sentence]:
        nonlocal number
        for sentence in sentences:
            number += 1
            if number % _REPORT_EVERY == 0:
                done(number)
            yield sentence
        done(number)

    return {split: passing(stream) for split, stream in streams.items()}
