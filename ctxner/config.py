"""Every setting of every job: frozen sections, unknown keys refused, YAML plus `a.b=c` overrides.

Pipelines, the training worker, jobs and serving take config objects; the code below them takes plain arguments.
Relative paths are relative to the working directory.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ctxner.files.columns import ColumnFormat
from ctxner.files.gold import Overlaps
from ctxner.files.lines import check_encoding
from ctxner.files.tags import AUTO, file_scheme
from ctxner.languages import check_language
from ctxner.schema import VIEWS, ViewName
from ctxner.settings_text import explain, override, read_yaml

Mode = Literal["plain", "context", "cl-l2", "cl-kl"]
MODES: tuple[str, ...] = get_args(Mode)
DEMO_MODES = ("plain", "cl-kl")  # other modes only on request, so that the demo is short
SPLITS = ("train", "dev", "test")
FILES_SPLIT = "sentences"  # name of the contexts of files that are no split of the config
Probability = Annotated[float, Field(ge=0, lt=1)]


RUNTIME = "runtime"
T = TypeVar("T")
Runtime = Annotated[T, RUNTIME]  # changes where, how fast or how safely work is done, but not its result


class Section(BaseModel):
    """A group of settings; frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def results_settings(self) -> dict[str, Any]:
        """The settings that results depend on, as JSON: those that are not `Runtime`."""
        return self.model_dump(mode="json", exclude=self.runtime_settings())

    @classmethod
    def runtime_settings(cls) -> set[str]:
        """Names of the `Runtime` settings."""
        return {name for name, field in cls.model_fields.items() if RUNTIME in field.metadata}


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

    train: Path
    contexts: Path | None = None  # Parquet file or folder that `ctxner retrieve` wrote for them


class DataConfig(Columns):
    """Column, JSONL or Parquet files of one data set, and the contexts retrieved for them."""

    # A split is a file, a folder of files, or a pattern such as shards/*.jsonl.gz.
    train: Path | None = None
    dev: Path | None = None
    test: Runtime[Path | None] = None
    # Folder of <split>.parquet or sentences.parquet that `ctxner retrieve` wrote; joined by words and sentence id
    contexts: Path | None = None
    # Further training sets. The label set is the union of all; dev and test stay those above.
    also: tuple[FurtherData, ...] = ()
    # Parquet of `ctxner retrieve` with untagged sentences; training makes their two views agree
    train_sentences: PositiveInt | None = None  # only the first so many sentences of train; None: all
    # The same for dev, in training. auto: evenly spaced ones, as many as take about 15% of an epoch's time; None: all
    dev_sentences: PositiveInt | Literal["auto"] | None = "auto"
    unlabelled: Path | None = None
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
        path, of_files = self.contexts / f"{split}.parquet", self.contexts / f"{FILES_SPLIT}.parquet"
        return of_files if of_files.is_file() and not path.is_file() else path


class IndexConfig(Section):
    """The index that is searched, and its corpus."""

    corpus: tuple[Path, ...] = ()
    folder: Path = Path("runs/index")
    source: str | None = None  # path or URI (s3://, gs://, ...) of an index; each node copies it under `folder` once
    # Analyzer of the corpus and the queries alike: a code of ctxner.languages
    language: Annotated[str, AfterValidator(check_language)] = "en"
    unit: Literal["paragraph", "sentence"] = "paragraph"  # passages of a MediaWiki dump; other files list passages
    # Column by field (name, description, type, aliases, id, source) of CSV and TSV files with another header
    columns: dict[str, str] = {}
    shards: Annotated[int, Field(gt=0, le=1000)] = 1  # more than one: built in parallel on Ray; scores stay equal


class RetrievalConfig(Section):
    """Sentence -> query -> BM25 -> re-ranking."""

    # entries: what the sentence names, then texts; mentions: passages that cover most candidate mentions
    query: Literal["entries", "mentions", "weighted", "bag"] = "entries"
    tagger: str | None = None  # model whose plain view finds the mentions to look up first (not with weighted and bag)
    max_query_terms: Annotated[int, Field(gt=0, le=512)] = 64  # Lucene refuses more than 1,024 clauses
    k1: PositiveFloat = 0.9  # Anserini's default, not the textbook's 1.2
    b: Annotated[float, Field(ge=0, le=1)] = 0.4
    entries: PositiveInt = 12  # largest number of entries per sentence, kept before any text (`entries` only)
    depth: PositiveInt = 6  # passages per sentence for the re-ranker; with more, it drops good ones
    encoder: str | None = None  # encoder of the re-ranker; None: the packaged MiniLM
    layer: PositiveInt | None = None  # layer of its vectors; None: the last one
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the re-ranker's encoder; auto: fastest on this node
    idf: bool = False  # weigh BERTScore's pieces by idf over the sentences of a batch
    keep: PositiveInt = 6  # passages kept per sentence; the paper's number
    drop_near_duplicates: bool = True  # a passage that repeats the sentence leaks data and teaches nothing
    batch_sentences: PositiveInt = 4096  # sentences re-ranked together; their distinct passages are encoded once
    rerank: bool = True  # False: passages stay in the order of the search, and no encoder is needed
    cache: Runtime[Path | None] = Path("~/.cache/ctxner")  # for encoded texts, on each node's own disk; None: no cache
    # Largest size of the cache in GiB; 4 GiB hold 250,000 tweet-sized passages of MiniLM in bfloat16
    cache_gib: Runtime[Annotated[float, Field(ge=0.001)]] = 4.0
    search_actors: Runtime[PositiveInt] = 1  # largest number of actors with a JVM; a pool grows with its work
    rerank_actors: Runtime[PositiveInt] = 1  # largest number of actors with an encoder, and of actors with the tagger
    actor_cpus: Runtime[PositiveFloat] = 0.5  # CPUs that an actor reserves; Ray Data's own tasks need 2 more
    # Threads per actor; None: the cores of its node, divided by the number of actors of its kind
    threads: Runtime[PositiveInt | None] = None
    gpus: Runtime[NonNegativeFloat] = 0  # GPUs per actor with an encoder; 0.5 puts two on a GPU, 0 encodes on CPUs


class TaggingConfig(Section):
    """Documents -> entities; the sections index and retrieval say how passages are found."""

    view: Literal["plain", "context", "auto"] = "plain"  # auto: passages only where the plain view is unsure
    # `auto` looks a sentence up when the plain view's entropy exceeds this many nats; None: the calibrated value
    threshold: Runtime[NonNegativeFloat | None] = None
    n_best: Annotated[int, Field(ge=0, le=100)] = 0  # number of best analyses to write per sentence
    passages: bool = False  # write the passages that were read
    precision: Literal["float32", "bfloat16"] = "float32"  # of the encoder; bfloat16 is faster where it is native
    # Documents per call of an actor; a long document counts as several parts of some thousand characters
    batch_documents: Runtime[PositiveInt] = 512
    window: Runtime[PositiveInt] = 2048  # number of sentences that are sorted by length together
    # Pieces per forward pass, padding included; None: 1,024 on CPUs, else 8,192
    batch_pieces: Runtime[PositiveInt | None] = None
    # Largest number of actors per view, each with a model; None: as many as the cluster has room for
    actors: Runtime[PositiveInt | None] = None
    actor_cpus: Runtime[PositiveFloat] = 1.0  # CPUs that an actor reserves; Ray Data's own tasks need 2 more
    threads: Runtime[PositiveInt | None] = None  # threads per actor; None: its node's cores, divided by the actors
    # Largest share of documents (in `ctxner retrieve`, of sentences) with an `error`; with more, the job ends with an
    # error and writes no result
    max_errors: Runtime[Annotated[float, Field(ge=0, le=1)]] = 0.1
    # Folder for the rows of a job whose result is a URI; reachable from every node
    work: Runtime[Path] = Path("runs/tagging")
    gpus: Runtime[NonNegativeFloat] = 0  # GPUs per actor; 0.5 puts two on a GPU, 0 tags on CPUs


class ModelConfig(Section):
    """Encoder, head and views."""

    encoder: str | None = None  # folder or hub id; None: the packaged MiniLM
    warm_start: str | None = None  # ctxner model to start from instead; keeps the tags that the data has too
    dropout: Probability = 0.1
    encoder_dropout: Probability | None = None  # of its layers, attention included; None: its default
    # Of attention probabilities; None: as encoder_dropout. 0 lets CPUs use fused attention, which is faster
    attention_dropout: Probability | None = None
    word_dropout: Probability = 0.0  # share of words whose vector is zeroed in training
    context_dropout: Probability = 0.0  # share of sentences that an epoch shows without passages in the context view
    random_passages: bool = False  # other sentences get their best n, n drawn again each epoch: fits any number
    freeze_embeddings: bool = False  # keep the pre-trained embeddings: half of MiniLM's parameters
    # Number of lowest layers kept frozen; with freeze_embeddings too, the backward pass ends there
    freeze_layers: NonNegativeInt = 0
    # Compute the activations of the encoder's layers twice instead of storing them
    gradient_checkpointing: Runtime[bool] = False
    legal_transitions: bool = True  # forbid tag sequences that BIOES forbids, in training and decoding
    max_pieces: PositiveInt = 512  # pieces per view, special pieces included; the encoder's limit is a further bound
    max_passages: NonNegativeInt = 6  # no text follows once so many passages are shown; entries are not bounded
    mark_entries: bool = True  # marks around the words that name an entry, in the context view

    @model_validator(mode="after")
    def _one_start(self) -> ModelConfig:
        if self.encoder is not None and self.warm_start is not None:
            raise ValueError("model.encoder and model.warm_start each say where to begin; set one of them")
        return self


class OptimConfig(Section):
    """AdamW with three parameter groups and a linear schedule."""

    encoder_lr: PositiveFloat = 1e-4
    head_lr: PositiveFloat = 2e-3
    crf_lr: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 0.01  # not on biases, norms and the CRF
    warmup: Probability = 0.1  # share of all steps
    clip: PositiveFloat = 5.0  # global gradient norm
    epochs: PositiveInt = 5
    batch_sentences: PositiveInt = 16  # largest number of sentences per step, over all workers
    # Largest number of pieces per micro-batch over all workers, padding and both views included. auto: as many as fit
    # into the starting machine's memory
    batch_pieces: PositiveInt | Literal["auto"] = 8192
    accumulate: PositiveInt = 1  # micro-batches per step


class LossConfig(Section):
    """Which losses are used, and their weights."""

    mode: Mode = "cl-kl"
    preset: Literal["paper", "released_code"] = "paper"
    # The temperature divides each word's log-marginals (marginal, as the released code) or, before them, the chain's
    # scores (marginal_chain). None: the preset's
    kl: Literal["sequence", "marginal", "marginal_chain"] | None = None
    temperature: PositiveFloat | None = None  # None: the preset's


class RunConfig(Section):
    """Where a run is stored, on how many workers it trains, and how it is saved."""

    storage: Runtime[Path] = Path("runs")
    name: Runtime[str | None] = None  # None: a new name; an existing name only with resume
    workers: Runtime[PositiveInt] = 1
    gpus: NonNegativeInt = 0  # GPUs per worker; 0 trains on CPUs with gloo
    threads: Runtime[PositiveInt | None] = None  # torch threads per CPU worker; None: this node's CPUs / workers
    # Of the encoder's arithmetic; the CRF is always float32. auto: bfloat16 where the starting machine's processor, or
    # its GPU, multiplies it natively
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    # ZeRO divides among workers at stage 1: AdamW's state, 2: gradients too, 3: parameters too
    zero_stage: Runtime[Annotated[int, Field(ge=0, le=3)]] = 0
    offload: Runtime[bool] = False  # keep what ZeRO divides in main memory: slower, but fits larger models
    seed: int = 0
    keep_checkpoints: Runtime[PositiveInt] = 2  # number of best checkpoints; the last one is kept too
    # Steps between checkpoints within an epoch, beside the one at its end
    checkpoint_steps: Runtime[PositiveInt | None] = None
    checkpoint_minutes: Runtime[PositiveFloat | None] = None  # minutes without a checkpoint after which one is written
    # Number of times that the run continues by itself after losing a worker; after that, use run.resume
    max_failures: Runtime[NonNegativeInt] = 3
    resume: Runtime[bool] = False
    # Views that are scored on dev after each epoch. trained: a run of one view scores that view
    dev_views: Literal["trained", "both"] = "trained"
    log_steps: Runtime[PositiveInt] = 50  # optimizer steps between two points in TensorBoard
    mlflow: Runtime[str | None] = None  # tracking URI, such as http://host:5000; needs pip install 'ctxner[mlflow]'

    @model_validator(mode="after")
    def _offload_needs_zero(self) -> RunConfig:
        if self.offload and not self.zero_stage:
            raise ValueError(
                "run.offload=true moves what ZeRO shares, and run.zero_stage=0 shares nothing; --set run.zero_stage=1 "
                "(to 3)"
            )
        return self


class Config(Section):
    """All sections; saved beside every model."""

    data: DataConfig = DataConfig()
    index: IndexConfig = IndexConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    tagging: TaggingConfig = TaggingConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _unlabelled_needs_two_views(self) -> Config:
        if self.data.unlabelled is not None and not self.loss.mode.startswith("cl-"):
            raise ValueError(
                f"data.unlabelled: sentences without tags teach only that both views shall agree, and loss.mode="
                f"{self.loss.mode} has one view; --set loss.mode=cl-kl or cl-l2"
            )
        return self

    def trained_views(self) -> tuple[ViewName, ...]:
        """The views that the loss trains; their dev scores choose the checkpoint."""
        if self.loss.mode.startswith("cl-"):
            return VIEWS
        return ("context",) if self.loss.mode == "context" else ("plain",)

    def dev_views(self) -> tuple[ViewName, ...]:
        """The views that are scored on dev after each epoch."""
        return VIEWS if self.run.dev_views == "both" else self.trained_views()

    def digest(self) -> str:
        """Short SHA-256 over every setting."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:12]


def load_config(
    path: Path | None = None, overrides: Sequence[str] = (), *, saved: Mapping[str, Any] | None = None
) -> Config:
    """Defaults, then a YAML file or else saved settings, then overrides.

    Args:
        path: YAML with any of the sections of `Config`; None for defaults only.
        overrides: `section.key=value`; the value is read as YAML, e.g. `null`, `3` or `[a, b]`.
        saved: Sections that a run has saved, used when there is no `path`.

    Raises:
        ValueError: Unreadable or malformed file, unknown key (the valid ones are listed), or a value out of bounds.
    """
    tree = read_yaml(path) if path else copy.deepcopy(dict(saved or {}))
    for item in overrides:
        override(tree, item)
    return parse_config(tree, source=str(path or "--set"))


def parse_config(tree: dict[str, Any], *, source: str = "config") -> Config:
    """A validated config from plain nested dicts (see `load_config`)."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ValueError(explain(error, Config, source)) from None
