"""Checks a tagger's folder before anything is built from it: sizes, types and numbers, and that nothing is fetched.

A folder may come from somebody else, or be damaged. No size in `config.json` is used before it has been compared with
the weights, whose sizes are bounded by the bytes that the file has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ctxner.encoders import refuse_fetched
from ctxner.files.bounded import read_json_object
from ctxner.labels import LabelSet

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_MAX_CONFIG_BYTES = 1 << 20
_MAX_TOKENIZER_BYTES = 1 << 28
_MAX_NUMBER = 1 << 20  # of the encoder's config, unless a weight is larger; 1,048,576 positions are more than any has
_HEAD = "head.weight"


def check_folder(folder: Path) -> None:
    """Check a folder that `save_pretrained` wrote.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, too large, names code to fetch, or does not fit the others; the message names it.
    """
    config = check_config(folder)
    for path in sorted(folder.glob("*.json")):
        if path.name not in (_CONFIG, "calibration.json"):
            refuse_fetched(read_json_object(path, _MAX_TOKENIZER_BYTES), str(path))
    shapes = _shapes(folder)
    if _HEAD not in shapes:
        return  # the loader names all weights that are missing
    where, num_labels = folder / _CONFIG, len(LabelSet(tuple(config["types"])))
    if num_labels != (rows := shapes[_HEAD][0]):
        raise ValueError(
            f"{where}: {len(config['types'])} entity types have {num_labels} tags, but {folder / _WEIGHTS} has scores "
            f"of {rows}; both must be of the same training"
        )
    largest = max(_MAX_NUMBER, *(size for shape in shapes.values() for size in shape))
    for name, number in _numbers(config["encoder"]):
        most = len(shapes) if name.endswith("num_hidden_layers") else largest
        if not abs(number) <= most:  # also NaN
            raise ValueError(f"{where}: encoder.{name} is {number:g}, more than {_WEIGHTS} has ({most:,})")
    _build_empty(config["encoder"], where)


def check_config(folder: Path) -> dict[str, Any]:
    """The content of a tagger's `config.json`, checked; see `check_folder`."""
    path = folder / _CONFIG
    config = read_json_object(path, _MAX_CONFIG_BYTES)
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{folder}/adapter_config.json: adapters name a model to fetch; merge it into the weights")
    refuse_fetched(config, str(path))
    encoder, types = config.get("encoder"), config.get("types")
    if not encoder or not types:
        raise ValueError(f"{path}: 'encoder' and 'types' are missing; this is not a folder that ctxner saved")
    if not isinstance(encoder, dict) or not isinstance(encoder.get("model_type"), str):
        raise ValueError(f"{path}: encoder is no object with a model_type")
    if not isinstance(types, list) or not all(isinstance(name, str) for name in types):
        raise ValueError(f"{path}: types is no list of names")
    for name, most in (("max_pieces", _MAX_NUMBER), ("max_passages", _MAX_NUMBER)):
        number = config.get(name, 1)
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= most:
            raise ValueError(f"{path}: {name} is {number!r:.40}, wanted a number from 0 to {most:,}")
    for name in ("dropout", "word_dropout"):
        number = config.get(name, 0.0)
        if not isinstance(number, int | float) or not 0 <= number <= 1:
            raise ValueError(f"{path}: {name} is {number!r:.40}, wanted a number from 0 to 1")
    return config


def _build_empty(encoder: dict[str, Any], where: Path) -> None:
    """Build the encoder without memory for its weights, so that errors of its config are told apart from theirs."""
    import torch
    from transformers import AutoConfig, AutoModel

    try:
        with torch.device("meta"):
            AutoModel.from_config(AutoConfig.for_model(**encoder))
    except Exception as error:  # transformers raises any for values that it does not expect
        raise ValueError(f"{where}: encoder: {' '.join(f'{type(error).__name__}: {error}'.split())[:300]}") from error


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor in the folder's weights; only the files' headers are read."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder / _WEIGHTS} is missing")
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path}: not a regular file")
        try:
            with safe_open(path, framework="pt") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: unreadable weights ({error})") from None
    return shapes


def _numbers(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in nested mappings, with their dotted names."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value
