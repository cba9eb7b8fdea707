"""The formats of corpus files, told from the end of the file's name."""

from __future__ import annotations

from pathlib import Path

_KINDS = (".jsonl", ".csv", ".tsv", ".names", ".names.txt", ".txt", ".obo", ".xml", ".ttl", ".nt", ".rdf", ".owl")
SUFFIXES = (*(kind + compression for kind in _KINDS for compression in ("", ".gz", ".zst")), ".xml.bz2", ".parquet")


def split_name(path: Path) -> tuple[str, str]:
    """File name without its corpus suffix, and the suffix in lower case: `news.jsonl.gz` -> `news`, `.jsonl.gz`.

    Raises:
        ValueError: Another suffix than those of `SUFFIXES`.
    """
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)], suffix
    raise ValueError(f"{path}: unknown corpus format; the name must end in one of {', '.join(SUFFIXES)}")
