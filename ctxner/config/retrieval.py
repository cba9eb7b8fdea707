"""Settings of looking things up: the index, the search with its re-ranking, and the tagging of documents with it.

`ctxner.retriever`, `ctxner.batch`, jobs and serving read these sections; `ctxner.retrieval` takes plain arguments. The
other settings of a server are in `serving.settings`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ctxner.config.section import Place, Runtime, Section
from ctxner.languages import check_language


class IndexConfig(Section):
    """The index that is searched, and its corpus."""

    corpus: tuple[Place, ...] = ()
    folder: Place = Path("runs/index")  # path or URI; each node copies an index behind a URI once
    source: str | None = None  # path or URI (s3://, gs://, ...) of an index; each node copies it under `folder` once
    # Analyzer of the corpus and the queries alike: a code of ctxner.languages
    language: Annotated[str, AfterValidator(check_language)] = "en"
    unit: Literal["paragraph", "sentence"] = "paragraph"  # passages of a MediaWiki dump; other files list passages
    # Column by field (name, description, type, aliases, id, source) of CSV and TSV files with another header
    columns: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it for each object
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
    # Threads per actor; None: the cores of its node, divided by the node's share of the actors of its kind
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
    threads: Runtime[PositiveInt | None] = None  # threads per actor; None: its node's cores / its share of the actors
    # Largest share of documents (in `ctxner retrieve`, of sentences) with an `error`; with more, the job ends with an
    # error and writes no result
    max_errors: Runtime[Annotated[float, Field(ge=0, le=1)]] = 0.1
    # Not used any more: the rows of a job whose result is a URI lie beside it
    work: Runtime[Path] = Path("runs/tagging")
    gpus: Runtime[NonNegativeFloat] = 0  # GPUs per actor; 0.5 puts two on a GPU, 0 tags on CPUs
