"""Folders that are one data set: those that Hugging Face's `datasets` saved, and brat's texts with annotations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ctxner.files.dataset_info import DATASET_INFO

STATE = "state.json"  # of a folder that save_to_disk wrote: names its files in their order
_SPLITS = "dataset_dict.json"
_DESCRIPTIONS = {STATE, _SPLITS, DATASET_INFO, "dataset_infos.json"}
ANNOTATIONS = ".ann"


def visible_files(folder: Path) -> list[Path]:
    """All files in and below a folder, unless a name begins with `.` or `_`."""
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part[0] in "._" for part in file.relative_to(folder).parts)
    ]


def is_saved(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` wrote the folder."""
    return (folder / STATE).is_file()


def is_description(file: Path) -> bool:
    """Whether the file describes a data set that `datasets` wrote, and holds no sentences."""
    return file.name in _DESCRIPTIONS


def whole_folders(folder: Path, files: Sequence[Path]) -> dict[Path, Path]:
    """The files that belong to a data set which is a folder, each with that folder; `folder` itself for brat's.

    Args:
        folder: Folder that is looked into.
        files: All files in and below it.

    Raises:
        ValueError: The folder is a `DatasetDict`, with several splits.
    """
    if (folder / _SPLITS).is_file():
        raise ValueError(f"{folder}: it holds the splits {_splits(folder)}; give one of them, e.g. {folder}/train")
    units = {file: file.parent for file in files if is_saved(file.parent)}
    if any(file.suffix == ANNOTATIONS for file in files):
        units |= {file: folder for file in files if file.suffix in (ANNOTATIONS, ".txt")}
    return units


def brat_file(file: Path) -> Path:
    """The `.ann` file beside a `.txt` file, which stands for both; else the file itself."""
    annotations = file.with_suffix(ANNOTATIONS)
    return annotations if file.suffix == ".txt" and annotations.is_file() else file


def parts(unit: Path) -> list[Path]:
    """All files that the sentences of a file, or of a folder that is one data set, come from."""
    if unit.is_dir():
        return sorted(visible_files(unit))
    if unit.suffix == ANNOTATIONS:
        return [unit, unit.with_suffix(".txt")]
    description = unit.parent / DATASET_INFO
    return [unit, description] if description.is_file() else [unit]


def _splits(folder: Path) -> str:
    try:
        return ", ".join(json.loads((folder / _SPLITS).read_bytes())["splits"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder / _SPLITS}: wanted 'splits' as save_to_disk writes them ({error!r})") from error
