"""Passages that are not retrieved from a corpus: of other sentences, of the training data; and unlabelled sentences."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ctxner.config import DataConfig
from ctxner.files.atomic import new_file
from ctxner.files.contexts import Context, context_row, read_contexts
from ctxner.files.sentences import read_sentences
from ctxner.schema import Passage, ScoredPassage, context_schema

_SEED = 0
_NUM_RANDOM = 6  # passages per sentence; the paper's number of contexts


def shuffle_contexts(source: Path, target: Path) -> int:
    """Write contexts files whose passages are those of other sentences of the same file; returns their number.

    The sentences of a file pass their passages on in one circle drawn once, so none keeps its own. Marks around the
    words that name an entry go: they are places in the other sentence. An entry then counts as a text.

    Args:
        source: Folder of contexts files.
        target: Folder to write to.
    """

    def shuffled(contexts: dict[str, Context]) -> Iterator[tuple[str, Context]]:
        circle = list(contexts)
        random.Random(_SEED).shuffle(circle)  # noqa: S311  no secret
        giver = dict(zip(circle, [*circle[1:], *circle[:1]], strict=True))
        for id, context in contexts.items():
            other = contexts[giver[id]]
            passages = tuple(replace(scored, named=(), link_score=None) for scored in other.passages)
            yield id, replace(context, passages=passages, error=other.error)

    return _rewrite(source, target, shuffled)


def random_contexts(source: Path, target: Path) -> int:
    """Write contexts files whose passages are training sentences drawn at random; returns their number.

    Args:
        source: Folder of contexts files, of which only the sentences are used.
        target: Folder to write to.
    """
    texts = [" ".join(context.words) for context in read_contexts(source / "train.parquet").values()]

    def drawn(contexts: dict[str, Context]) -> Iterator[tuple[str, Context]]:
        chance = random.Random(_SEED)  # noqa: S311  no secret
        for id, context in contexts.items():
            sentence = " ".join(context.words)
            places = [place for place in chance.sample(range(len(texts)), min(len(texts), _NUM_RANDOM + 1))
                      if texts[place] != sentence][:_NUM_RANDOM]  # fmt: skip
            passages = tuple(
                ScoredPassage(Passage(f"train-{place}", "train", texts[place]), 0.0, rank)
                for rank, place in enumerate(places, start=1)
            )
            yield id, replace(context, passages=passages, error=None)

    return _rewrite(source, target, drawn)


def _rewrite(source: Path, target: Path, change: Callable[[dict[str, Context]], Iterator[tuple[str, Context]]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.parquet")):
        rows = [context_row(id, context) for id, context in change(read_contexts(path))]
        with new_file(target / path.name) as aside:
            pq.write_table(pa.Table.from_pylist(rows, schema=context_schema()), aside)
        number += len(rows)
    return number


def write_corpus(data: DataConfig, path: Path) -> None:
    """Write the training sentences as a corpus of texts, without their tags."""
    sentences = read_sentences(data.path("train"), data.column_format()).sentences
    with new_file(path) as aside, aside.open("w", encoding="utf-8") as file:
        for number, sentence in enumerate(sentences):
            record = {"id": f"train-{number}", "text": " ".join(sentence.words)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_rest(contexts: Path, path: Path, num_labelled: int) -> None:
    """Write the contexts of the training sentences after the labelled ones: a file of unlabelled sentences.

    Args:
        contexts: Contexts file of the training sentences, in their order.
        path: File to write.
        num_labelled: Number of sentences that keep their tags.

    Raises:
        ValueError: No sentence is left.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(contexts)
    if len(table) <= num_labelled:
        raise ValueError(
            f"{contexts}: {len(table)} sentences, of which data.train_sentences={num_labelled} leaves none"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as aside:
        pq.write_table(table.slice(num_labelled), aside)
