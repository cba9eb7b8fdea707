"""Names of the tags that numbers stand for, as Hugging Face's `datasets` writes them beside or into a data file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

DATASET_INFO = "dataset_info.json"
_CARD = "README.md"
_CARD_YAML = re.compile(rb"\A---\r?\n(.*?)\r?\n---\s*$", re.DOTALL | re.MULTILINE)
_MAX_BYTES = 1 << 24

Names = dict[str, tuple[str, ...]]  # column -> names of its numbers, from 0


def names_beside(path: str | Path) -> Names:
    """The names in the `dataset_info.json` of a file's folder, or of the folder itself; else in the hub's data card.

    The card is a `README.md` in that folder or, as data sets of the hub keep their files in `data/`, in the one above.
    None without either.

    Raises:
        ValueError: The JSON file is no object, or too large.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if (file := folder / DATASET_INFO).is_file():
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"{file}: larger than {_MAX_BYTES:,} bytes; wanted the description of a data set")
        return _names(file.read_bytes(), file, ())
    return next((names for above in (folder, folder.parent) if (names := _names_of_card(above / _CARD))), {})


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


def _names_of_card(path: Path) -> Names:
    """The names in the `dataset_info` of a card's YAML, where all configurations agree; none if it cannot be read."""
    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return {}
    header = _CARD_YAML.match(path.read_bytes())
    try:
        card = yaml.safe_load(header[1]) if header else None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return {}
    info = card.get("dataset_info") if isinstance(card, dict) else None
    names: dict[str, set[tuple[str, ...]]] = {}
    for configuration in info if isinstance(info, list) else [info]:
        for column, column_names in _card_columns(configuration):
            names.setdefault(column, set()).add(column_names)
    return {column: next(iter(choices)) for column, choices in names.items() if len(choices) == 1}


def _card_columns(configuration: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Columns of class labels; a card has their names by number: `sequence: {class_label: {names: {'0': O}}}`."""
    features = configuration.get("features") if isinstance(configuration, dict) else None
    for feature in features if isinstance(features, list) else ():
        inner = feature
        for key in ("sequence", "list"):
            inner = inner.get(key, inner) if isinstance(inner, dict) else inner
        label = inner.get("class_label") if isinstance(inner, dict) else None
        names = label.get("names") if isinstance(label, dict) else None
        if isinstance(names, dict) and isinstance(feature.get("name"), str):
            numbered = {str(number): name for number, name in names.items()}
            yield feature["name"], tuple(str(numbered.get(str(number))) for number in range(len(numbered)))


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
