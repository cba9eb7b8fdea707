"""The formats of corpus files, told from the end of the file's name, and the corpus files of a folder."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

_KINDS = (
    *(".jsonl", ".json", ".csv", ".tsv", ".names", ".names.txt", ".txt", ".md"),
    *(".obo", ".xml", ".ttl", ".nt", ".rdf", ".owl"),
)
SUFFIXES = (*(kind + compression for kind in _KINDS for compression in ("", ".gz", ".zst")), ".xml.bz2", ".parquet")
_WAYS_OUT = {
    ".pdf": "a PDF holds places of letters, not text; extract it, e.g. `pdftotext FILE.pdf FILE.txt`, and look at it",
    ".docx": "save it as plain text (.txt) or Markdown (.md)",
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".ods": "save the sheet as CSV",
    ".html": "save it as plain text (.txt) or Markdown (.md)",
}


def split_name(path: Path) -> tuple[str, str]:
    """File name without its corpus suffix, and the suffix in lower case: `news.jsonl.gz` -> `news`, `.jsonl.gz`.

    Raises:
        ValueError: Another suffix than those of `SUFFIXES`.
    """
    if kind := _suffix(path):
        return path.name[: -len(kind)], kind
    way_out = _WAYS_OUT.get(path.suffix.lower())
    wanted = f"the name must end in one of {', '.join(SUFFIXES)}"
    raise ValueError(f"{path}: unknown corpus format; {way_out or wanted}")


def corpus_files(paths: Iterable[Path]) -> list[tuple[Path, str]]:
    """Files of a corpus, and of each the beginning of ids and the source of passages that give none.

    It is the file's name without its suffix; below a folder, the path from there. Files of a folder that have another
    suffix are counted and logged; names that begin with `.` or `_` are left out.

    Raises:
        FileNotFoundError: A path does not exist, or a folder has no corpus file.
        ValueError: A file has another suffix than those of `SUFFIXES`.
    """
    stems: list[tuple[Path, str]] = []
    for path in paths:
        if path.is_dir():
            stems += _files_below(path).items()
            continue
        stems.append((path, split_name(path)[0]))
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such corpus file")
    return stems


def _files_below(folder: Path) -> dict[Path, str]:
    below = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    seen = [path for path in below if not any(part[0] in "._" for part in path.relative_to(folder).parts)]
    stems = {
        path: path.relative_to(folder).as_posix()[: -len(kind)] for path in seen if (kind := _suffix(path)) is not None
    }
    others = Counter(path.suffix.lower() or path.name for path in seen if path not in stems)
    told = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    if not stems:
        raise FileNotFoundError(
            f"{folder}: no corpus file in this folder (others: {told or 'none'}); wanted names that end in one of "
            f"{', '.join(SUFFIXES)}"
        )
    if others:
        logger.warning("%s: %d corpus files; left out: %s", folder, len(stems), told)
    return stems


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default=None)
