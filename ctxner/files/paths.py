"""Finding the files of a data set: files, folders and patterns -> files in order, each with the prefix of its ids.

The format of a file is decided here too, by its suffix or else by its beginning. `ctxner.files.sentences` reads them.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from ctxner.files.folders import brat_file, is_description, is_saved, visible_files, whole_folders
from ctxner.files.layouts import looks_like_columns
from ctxner.files.lines import SURROGATE, bare_name
from ctxner.files.node_copies import fetched

Kind = Literal["columns", "jsonl", "json", "parquet", "arrow", "spacy", "brat", "text"]
COLUMN_SUFFIXES = (
    *(".conll", ".conllu", ".txt", ".tsv", ".col", ".v4_gold_conll"),
    *(".bio", ".iob", ".iob2", ".bioes", ".bilou", ".bmes"),
)
_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "jsonl": (".jsonl",),
    "columns": COLUMN_SUFFIXES,
    "json": (".json",),
    "arrow": (".arrow",),
    "spacy": (".spacy",),
    "brat": (".ann",),
    "parquet": (".parquet",),
    "text": (".txt",),
}
_KNOWN = tuple(suffix for kind, suffixes in _SUFFIXES.items() for suffix in suffixes if kind != "text")
_COMPRESSED = "(or with .gz or .zst)"


def kind_of(path: str | Path) -> Kind:
    """Format of a file, by its suffix before any `.gz` or `.zst`; `.txt` means columns.

    A folder, where `sentence_files` gives one, is one data set that `datasets` saved, or brat's.
    A file with another suffix, or none, such as `eng.train`, is looked into: it may show words and tags in columns.

    Raises:
        ValueError: Another suffix, and no columns in the file.
    """
    if Path(path).is_dir():
        return "arrow" if is_saved(Path(path)) else "brat"
    suffix = bare_name(path)[1]
    for kind, suffixes in _SUFFIXES.items():
        if suffix in suffixes:
            return kind
    if Path(path).is_file() and looks_like_columns(path):
        return "columns"
    wanted = f"{_KNOWN[0]} or {', '.join(_KNOWN[1:])} {_COMPRESSED}"
    raise ValueError(f"{path}: unknown suffix {suffix!r}; wanted {wanted}, or words and tags in columns")


def refuse_txt(files: Iterable[Path], meanings: Mapping[str, str]) -> None:
    """Refuse `.txt` files, whose suffix does not tell the format.

    Args:
        files: Files to be read without a given format.
        meanings: Formats that a `.txt` file may have: name -> what the file would hold.

    Raises:
        ValueError: A file is called `.txt`; the formats are named.
    """
    for file in files:
        if bare_name(file)[1] == ".txt":
            question = ", or ".join(meanings.values())
            raise ValueError(f"{file}: {question}? give --format {' or '.join(meanings)}")


def sentence_files(paths: str | Path | Sequence[str | Path], kind: Kind | None = None) -> dict[Path, str]:
    """The files of a data set, sorted within a folder and a pattern, each with a prefix for ids that it does not give.

    The prefix is the file's name without suffixes. If two files share that name, it is the path from their common
    folder.

    Args:
        paths: Files, folders and patterns such as `shards/*.jsonl.gz`, where `**` stands for any folders; or URIs of
            such, which are copied to this node first. Of a folder, all files in and below it with a fitting suffix are
            taken, unless a name begins with `.` or `_`. A folder that `datasets` saved counts as a file, and so does a
            folder with brat's `.txt` and `.ann` files.
        kind: Format of the files, which decides the fitting suffixes; None for all that `kind_of` knows.

    Raises:
        FileNotFoundError: A folder or a pattern without files. Whether a named file exists is found out on reading.
        ValueError: A folder with several splits that `datasets` saved.
    """
    given = fetched([paths] if isinstance(paths, str | Path) else paths)
    files = list(dict.fromkeys(file for path in given for file in _expanded(path, kind)))
    stems = {file: bare_name(file if file.name else file.resolve())[0] for file in files}
    repeated = {stem for stem, count in Counter(stems.values()).items() if count > 1}
    if not repeated:
        return stems
    above = os.path.commonpath([file.absolute().parent for file in files])
    return {
        file: SURROGATE.sub("\ufffd", file.absolute().relative_to(above).as_posix()) if stem in repeated else stem
        for file, stem in stems.items()
    }


def _expanded(path: Path, kind: Kind | None) -> list[Path]:
    if path.is_dir():
        suffixes = _SUFFIXES[kind] if kind else _KNOWN
        files = visible_files(path)
        units = whole_folders(path, files) if kind in (None, "arrow", "brat") else {}
        fitting = [
            file for file in files if bare_name(file)[1] in suffixes and file not in units and not is_description(file)
        ]
        fitting += dict.fromkeys(units.values())
        if not fitting:
            raise FileNotFoundError(
                f"{path}: no sentence file in this folder; wanted names that end in {', '.join(suffixes)} {_COMPRESSED}"
            )
        return sorted(fitting)
    if path.exists() or not glob.has_magic(str(path)):
        return [brat_file(path) if kind is None else path]
    matching = sorted(file for file in map(Path, glob.glob(str(path), recursive=True)) if file.is_file())
    if not matching:
        raise FileNotFoundError(f"{path}: no file matches this pattern (seen from {Path.cwd()})")
    return list(dict.fromkeys(brat_file(file) for file in matching)) if kind is None else matching
