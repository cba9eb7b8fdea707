"""Names of the tags that numbers stand for, as Hugging Face's `datasets` writes them beside or into a data file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DATASET_INFO = "dataset_info.json"
_MAX_BYTES = 1 << 24

Names = dict[str, tuple[str, ...]]  # column -> names of its numbers, from 0


def names_beside(path: str | Path) -> Names:
    """The names in the `dataset_info.json` of a file's folder, or of the folder itself; none without that file.

    Raises:
        ValueError: The file is no JSON object, or too large.
    """
    path = Path(path)
    file = (path if path.is_dir() else path.parent) / DATASET_INFO
    if not file.is_file():
        return {}
    if file.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{file}: larger than {_MAX_BYTES:,} bytes; wanted the description of a data set")
    return _names(file.read_bytes(), file, ())


def names_within(metadata: Mapping[bytes, bytes] | None, path: str | Path) -> Names:
    """The names in the metadata of a Parquet or Arrow schema, under the key `huggingface`; none without it.

    Raises:
        ValueError: The metadata is no JSON object.
    """
    content = (metadata or {}).get(b"huggingface")
    return {} if content is None else _names(content, f"{path}: metadata 'huggingface'", ("info",))


def _names(content: bytes, where: str | Path, keys: tuple[str, ...]) -> Names:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error}); write it again, or remove it") from error
    for key in (*keys, "features"):
        value = value.get(key) if isinstance(value, dict) else None
    named = {column: _class_names(feature) for column, feature in value.items()} if isinstance(value, dict) else {}
    return {column: names for column, names in named.items() if names}


def _class_names(feature: Any) -> tuple[str, ...] | None:
    """The names of a ClassLabel, which may stand inside lists."""
    while True:
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        elif isinstance(feature, dict) and isinstance(feature.get("names"), list):
            names = feature["names"]
            return tuple(names) if all(isinstance(name, str) for name in names) else None
        elif isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
        else:
            return None
