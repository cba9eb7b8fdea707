"""Plain lists of names, one per line -> records of entries that have a title only, or a title and a type.

The records become passages in `ctxner.retrieval.corpus.records`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def read_names(lines: Iterable[tuple[int, str]], name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The names of a list; a line is a name, or a name, a tab and a type.

    Args:
        lines: Lines that are not blank, with their numbers.
        name: Name of the file in errors.

    Raises:
        ValueError: A line with a type but no name, or with more than one tab.
    """
    for line_no, line in lines:
        title, *types = line.split("\t")
        if len(types) > 1 or not title.strip():
            raise ValueError(f"{name}:{line_no}: found {line!r:.200}, wanted a name, or a name, one tab and a type")
        yield line_no, {"title": title, "type": types[0] if types else ""}
