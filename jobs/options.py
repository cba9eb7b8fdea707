"""Options and arguments that several commands share, with their help; `jobs.commands` declares the commands."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from ctxner.files.uris import path_or_uri

ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; defaults without one.")]
Overrides = Annotated[list[str], typer.Option("--set", "-s", help="section.key=value over the config; repeatable.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan; write nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Model = Annotated[str, typer.Argument(help="Model folder that `ctxner train` wrote, its URI, or a hub id.")]
OfModel = Annotated[
    str | None, typer.Option("--model", "-m", help="Model folder: the data, contexts and index of its training.")
]
Corpus = Annotated[
    list[Path],
    typer.Option(
        "--corpus",
        parser=path_or_uri,
        help="Files, folders or URIs: JSONL, JSON, text, Markdown, CSV, TSV, .names, OBO or MediaWiki XML "
        "(also .gz, .zst), .xml.bz2, Parquet; repeatable.",
    ),
]
IndexOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", parser=path_or_uri, help="Index folder or its URI (default: index.folder)."),
]
IndexFolder = Annotated[
    Path | None,
    typer.Option("--index", "-i", parser=path_or_uri, help="Index folder or its URI (default: index.folder)."),
]
Language = Annotated[str | None, typer.Option(help="Of the corpus, e.g. en, de, zh (default: index.language).")]
PassageUnit = Annotated[
    Literal["paragraph", "sentence"] | None,
    typer.Option(help="What a passage of a MediaWiki dump is (default: index.unit)."),
]
ColumnMapping = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="FIELD=COLUMN,...", help="Names in the header of CSV and TSV files, e.g. name=Produktname."
    ),
]
SentenceFiles = Annotated[
    list[Path],
    typer.Argument(
        parser=path_or_uri,
        metavar="[FILES]...",
        help="Files, folders, quoted patterns or URIs with sentences; without any, the config's data sets.",
    ),
]
SentenceFormat = Annotated[
    Literal["auto", "columns", "jsonl", "json", "parquet", "arrow", "spacy", "brat", "text"],
    typer.Option(help="Of FILES; auto goes by suffix and content, text is one text per line."),
]
Shards = Annotated[
    int | None, typer.Option(min=1, max=1000, help="Lucene indexes built at once on Ray (default: index.shards).")
]
NONE: list[str] = []


class Converted(StrEnum):
    """Formats that `ctxner data` writes."""

    jsonl = "jsonl"
    columns = "columns"


class Written(StrEnum):
    """Formats that `ctxner tag` writes; an enum, because Typer takes no list of literals."""

    parquet = "parquet"
    jsonl = "jsonl"
    conll = "conll"
    spacy = "spacy"
    brat = "brat"
    label_studio = "label-studio"
    doccano = "doccano"


NO_PATHS: list[Path] = []
