"""Contexts files: the passages retrieved for each sentence, in Parquet, joined to the data by words and sentence id.

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
from ctxner.files.node_copies import local
from ctxner.files.sentences import read_sentences
from ctxner.schema import Example, ScoredPassage, Sentence, context_schema, passage_row, scored_passage

logger = logging.getLogger(__name__)

MAX_FAILED = 0.1  # largest share of sentences that may lack passages because their retrieval failed
RETRIEVE_AGAIN = "run `ctxner retrieve` for this data"
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
    path = local(path)
    if not path.exists():
        raise ValueError(
            f"{path}: no contexts file; make it with `ctxner retrieve`, or leave data.contexts out: "
            "`ctxner train --index INDEX` retrieves what it needs"
        )
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
    """Give every sentence its passages; sentences whose retrieval failed have none and are logged.

    A row fits a sentence of the same words; its id chooses among several. So the rows of a file from which sentences
    were removed, or into which some were put, still fit those that are unchanged: ids that count sentences shift.
    Both the sentences found by their words alone and the rows that no sentence takes are counted and logged.

    Args:
        sentences: Sentences of a data file.
        contexts: Contexts by sentence id.
        where: Place of the contexts in errors and log lines.

    Raises:
        ValueError: A sentence has no row with its words; or retrieval failed for more than the share `MAX_FAILED` of
            the sentences.
    """
    joined = fitting_contexts(sentences, contexts)
    if missing := [sentence for sentence in sentences if sentence.id not in joined]:
        raise ValueError(
            f"{where}: no row for {len(missing)} of {len(sentences)} sentences, {_first_missing(missing, contexts)}; "
            f"{RETRIEVE_AGAIN}"
        )
    _check_failed(joined, where)
    by_id = [sentence for sentence in sentences if joined[sentence.id] is contexts.get(sentence.id)]
    if num_moved := len(sentences) - len(by_id):
        logger.info(
            "%s: %d of %d sentences have another id now; found by their words", where, num_moved, len(sentences)
        )
    if num_others := len(contexts) - len({id(context) for context in joined.values()}):
        logger.info(
            "%s: %d of %d rows are for sentences that the data lacks; ignored", where, num_others, len(contexts)
        )
    return [Example(sentence, joined[sentence.id].passages) for sentence in sentences]


def fitting_contexts(sentences: Sequence[Sentence], contexts: Mapping[str, Context]) -> dict[str, Context]:
    """The context of each sentence that has one: the row of its id and words, else a row of the same words.

    Args:
        sentences: Sentences with unique ids.
        contexts: Contexts by sentence id.

    Returns:
        Contexts by the sentences' ids; those of sentences without a row of their words are missing.
    """
    words = {sentence.id: storable(sentence.words) for sentence in sentences}
    joined = {id: contexts[id] for id in words if id in contexts and contexts[id].words == words[id]}
    if len(joined) < len(words):
        by_words = {context.words: context for context in contexts.values() if context.error is None}
        moved = {id: by_words[words[id]] for id in words if id not in joined and words[id] in by_words}
        joined |= moved
    return joined


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


def _first_missing(missing: Sequence[Sentence], contexts: Mapping[str, Context]) -> str:
    """The first sentence without a row, preferably one whose id has a row of other words, and those words."""
    first = next((sentence for sentence in missing if sentence.id in contexts), missing[0])
    context = contexts.get(first.id)
    if context is None:
        return f"first {first.id!r}"
    return (
        f"as {first.id!r} was retrieved for {' '.join(context.words)[:60]!r}, but the data has "
        f"{' '.join(first.words)[:60]!r}"
    )


def storable(words: Sequence[str]) -> tuple[str, ...]:
    """The words as Parquet can hold them (UTF-8): lone surrogates become question marks."""
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        return tuple(word.encode("utf-8", "replace").decode() for word in words)
    return tuple(words)
