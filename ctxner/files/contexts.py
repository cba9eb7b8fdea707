"""Contexts files: the passages retrieved for each sentence, in Parquet, joined to the data by sentence id.

A contexts file never holds gold tags. It holds the words, so that joining it to other data is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ctxner.files.columns import ColumnFormat
from ctxner.files.sentences import read_sentences
from ctxner.schema import Example, ScoredPassage, Sentence, context_schema, passage_row, scored_passage

logger = logging.getLogger(__name__)

MAX_FAILED = 0.1  # largest share of sentences that may lack passages because their retrieval failed
SUCCESS = "_SUCCESS"  # beside a job's files once they are complete: its manifest, a JSON object


@dataclass(frozen=True, slots=True)
class Context:
    """The retrieval result of one sentence.

    Attributes:
        words: Words of the sentence, as retrieval saw them.
        query: Query that BM25 ran; empty when the sentence has no searchable word.
        passages: Passages, best first, dropped ones last.
        error: Reason why retrieval failed for this sentence, or None.
    """

    words: tuple[str, ...]
    query: str
    passages: tuple[ScoredPassage, ...]
    error: str | None = None


def context_row(sentence_id: str, context: Context) -> dict[str, object]:
    """A row of `context_schema`."""
    return {
        "sentence_id": sentence_id,
        "words": list(storable(context.words)),
        "query": context.query,
        "passages": [passage_row(scored) for scored in context.passages],
        "error": context.error,
    }


def read_contexts(path: Path) -> dict[str, Context]:
    """Read a contexts file, or a folder of them.

    Raises:
        ValueError: The path does not exist, is not a contexts file, or has a sentence id twice.
    """
    if not path.exists():
        raise ValueError(f"{path}: no contexts file; make it with `ctxner retrieve`")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file of contexts: {error}") from None
    if missing := set(context_schema().names) - set(table.column_names):
        raise ValueError(f"{path}: lacks the columns {sorted(missing)}; make it with `ctxner retrieve`")
    try:
        table = table.select(context_schema().names).cast(context_schema())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{path}: columns have other types ({error}); make it with `ctxner retrieve`") from None
    contexts: dict[str, Context] = {}
    for row in table.to_pylist():
        if row["sentence_id"] in contexts:
            raise ValueError(f"{path}: sentence id {row['sentence_id']!r} occurs twice; remove the stale file")
        passages = tuple(scored_passage(passage) for passage in row["passages"])
        contexts[row["sentence_id"]] = Context(tuple(row["words"]), row["query"], passages, row["error"])
    return contexts


def join_contexts(
    sentences: Sequence[Sentence], contexts: Mapping[str, Context], *, where: str | Path = "contexts"
) -> list[Example]:
    """Give every sentence its passages, by sentence id; sentences whose retrieval failed have none and are logged.

    Contexts of other sentences are ignored and their number is logged: the sentences may be a subset of those that were
    retrieved for.

    Args:
        sentences: Sentences of a data file.
        contexts: Contexts by sentence id.
        where: Place of the contexts in errors and log lines.

    Raises:
        ValueError: A sentence has no context row, or their words differ; or retrieval failed for more than the share
            `MAX_FAILED` of the sentences.
    """
    if missing := [sentence.id for sentence in sentences if sentence.id not in contexts]:
        raise ValueError(
            f"{where}: no row for {len(missing)} of {len(sentences)} sentences, first {missing[0]!r}; "
            "run `ctxner retrieve` for this data"
        )
    joined = {sentence.id: _context_of(sentence, contexts, where) for sentence in sentences}
    _check_failed(joined, where)
    if num_others := len(contexts) - len(joined):
        logger.info(
            "%s: %d of %d rows are for sentences that the data lacks; ignored", where, num_others, len(contexts)
        )
    return [Example(sentence, joined[sentence.id].passages) for sentence in sentences]


def load_examples(
    path: Path, format: ColumnFormat, *, contexts: Path | None = None, num_sentences: int | None = None
) -> list[Example]:
    """Read the sentences of a data file and join their contexts; without contexts both views are the same.

    Args:
        path: Data file, folder or pattern.
        format: Layout of column files.
        contexts: Contexts file, or a folder of them.
        num_sentences: Number of sentences to take, from the first; only they need contexts. None: all.

    Raises:
        ValueError: A fault in either file (see `ctxner.files.sentences`, `read_contexts`, `join_contexts`).
    """
    sentences = read_sentences(path, format).sentences[:num_sentences]
    if contexts is None:
        return [Example(sentence) for sentence in sentences]
    return join_contexts(sentences, read_contexts(contexts), where=contexts)


def unlabelled_examples(path: Path) -> list[Example]:
    """Sentences without tags and their passages, from a contexts file; rows that failed are left out and logged.

    Raises:
        ValueError: A fault in the file (see `read_contexts`), a larger share of failed rows than `MAX_FAILED`, or no
            row is left.
    """
    contexts = read_contexts(path)
    _check_failed(contexts, path)
    examples = [
        Example(Sentence(id, context.words), context.passages)
        for id, context in contexts.items()
        if context.words and context.error is None
    ]
    if not examples:
        raise ValueError(f"{path}: none of {len(contexts)} rows has words")
    return examples


def _check_failed(contexts: Mapping[str, Context], where: str | Path) -> None:
    """Log how many retrievals failed; ValueError if they are more than the share `MAX_FAILED`."""
    errors = {id: context.error for id, context in contexts.items() if context.error is not None}
    if not errors:
        return
    id, error = next(iter(errors.items()))
    failed = f"retrieval failed for {len(errors)} of {len(contexts)} sentences, first for {id!r}: {error}"
    if len(errors) > MAX_FAILED * len(contexts):
        raise ValueError(
            f"{where}: {failed}; more than {MAX_FAILED:.0%} is too many: mend the cause and run `ctxner retrieve` again"
        )
    logger.warning("%s: %s; these have no passages", where, failed)


def _context_of(sentence: Sentence, contexts: Mapping[str, Context], where: str | Path) -> Context:
    context = contexts[sentence.id]
    if context.words != storable(sentence.words):
        raise ValueError(
            f"{where}: sentence {sentence.id!r} was retrieved for {' '.join(context.words)[:60]!r}, but the data has "
            f"{' '.join(sentence.words)[:60]!r}; run `ctxner retrieve` for this data"
        )
    return context


def storable(words: Sequence[str]) -> tuple[str, ...]:
    """The words as Parquet can hold them (UTF-8): lone surrogates become question marks."""
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        return tuple(word.encode("utf-8", "replace").decode() for word in words)
    return tuple(words)
