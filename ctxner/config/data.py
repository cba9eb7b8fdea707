"""Settings of data sets: files of the splits, their layout, and the contexts retrieved for them.

These sections say which files are read and in which format; `ctxner.files` reads them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, PositiveFloat, PositiveInt

from ctxner.config.section import Place, Runtime, Section
from ctxner.files.columns import ColumnFormat
from ctxner.files.gold import Overlaps
from ctxner.files.lines import check_encoding
from ctxner.files.node_copies import local
from ctxner.files.tags import AUTO, file_scheme

SPLITS = ("train", "dev", "test")
FILES_SPLIT = "sentences"  # name of the contexts of files that are no split of the config


class Columns(Section):
    """Layout of column files."""

    token_column: int = 0
    tag_column: int = -1  # the last one, or the one that the file's layout has (GermEval, CoNLL-2012, ...)
    # auto, recognised from each whole file; or IOB1, IOB2, BIOES, BMEWO, BILOU or BMES, which each file must then have.
    # ctxner itself uses BIOES.
    scheme: Annotated[str, AfterValidator(file_scheme)] = AUTO
    repair: bool = False  # mend illegal tag sequences (counted) instead of refusing the file
    labels: tuple[str, ...] | None = None  # tags that the numbers in ner_tags stand for, in order; None: the file says

    # Python's name of the encoding of column files and plain text, e.g. cp1252 (JSON lines are always UTF-8)
    encoding: Annotated[str, AfterValidator(check_encoding)] = "utf-8"
    # Overlapping mentions of texts. longest: the longest become tags, the others count as missed; refuse: an error
    overlaps: Overlaps = "longest"
    # Whether the lines of brat's texts, and of documents with one per file, are wrapped: a line break within a
    # paragraph is a space then. Else a line break ends a sentence, as it does in brat. Give it to training and tagging.
    wrapped: bool = False

    def column_format(self, *, tagged: bool = True) -> ColumnFormat:
        """The format for a reader; with `tagged=False` the reader ignores the tag column."""
        tag_column = self.tag_column if tagged else None
        return ColumnFormat(
            self.token_column,
            tag_column,
            scheme=self.scheme,
            repair=self.repair,
            labels=self.labels,
            encoding=self.encoding,
            overlaps=self.overlaps,
            wrapped=self.wrapped,
        )


class FurtherData(Columns):
    """Tagged sentences of another data set, used for training too."""

    train: Place
    contexts: Place | None = None  # Parquet file or folder that `ctxner retrieve` wrote for them


class DataConfig(Columns):
    """Column, JSONL or Parquet files of one data set, and the contexts retrieved for them."""

    # A split is a file, a folder of files, or a pattern such as shards/*.jsonl.gz; each a path or a URI.
    train: Place | None = None
    dev: Place | None = None
    test: Runtime[Place | None] = None
    # Folder of <split>.parquet or sentences.parquet that `ctxner retrieve` wrote; joined by words and sentence id
    contexts: Place | None = None
    # Further training sets. The label set is the union of all; dev and test stay those above.
    also: tuple[FurtherData, ...] = ()
    train_sentences: PositiveInt | None = None  # only the first so many sentences of train; None: all
    # The same for dev, in training. auto: evenly spaced ones, as many as take about 15% of an epoch's time; None: all
    dev_sentences: PositiveInt | Literal["auto"] | None = "auto"
    # Parquet of `ctxner retrieve` with untagged sentences; training makes their two views agree
    unlabelled: Place | None = None
    unlabelled_ratio: PositiveFloat = 1.0  # unlabelled sentences per tagged one in an epoch; each epoch takes others

    # Folder for tokenized sentences, on each node's own disk; None: they stay in memory.
    cache: Runtime[Path | None] = Path("~/.cache/ctxner/views")

    def views_cache(self) -> Path | None:
        """The cache folder in full."""
        return self.cache and self.cache.expanduser()

    def first_dev_sentences(self) -> int | None:
        """Number of sentences of dev that training reads; None: all."""
        return None if self.dev_sentences == "auto" else self.dev_sentences

    def path(self, split: str) -> Path:
        """The split's file, folder or pattern; ValueError when it is not set."""
        path: Path | None = getattr(self, split) if split in SPLITS else None
        if path is None:
            wanted = f"give --set data.{split}=FILE" if split in SPLITS else f"splits: {', '.join(SPLITS)}"
            named = f", or one of the splits that have one: {', '.join(self.named_splits())}"
            raise ValueError(f"split {split!r} has no file; {wanted}{named if self.named_splits() else ''}")
        return path

    def named_splits(self) -> list[str]:
        """The splits that have a file."""
        return [split for split in SPLITS if getattr(self, split) is not None]

    def contexts_path(self, split: str) -> Path | None:
        """The split's contexts file, when contexts are configured: without its own, that of `ctxner retrieve FILES`."""
        if self.contexts is None:
            return None
        folder = self.contexts
        with suppress(FileNotFoundError):  # a URI of contexts that are still to be made
            folder = local(folder)
            if (folder / f"{FILES_SPLIT}.parquet").is_file() and not (folder / f"{split}.parquet").is_file():
                return folder / f"{FILES_SPLIT}.parquet"
        return folder / f"{split}.parquet"
