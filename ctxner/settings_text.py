"""Reads settings that people write, YAML files and `key=value` overrides, into nested dicts, and explains their errors.

`ctxner.config` and `serving.settings` define the settings themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, safe-loaded; empty when the file is empty.

    Raises:
        ValueError: The file cannot be read, or it holds no mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a readable YAML file: {error}") from None
    if not isinstance(tree, dict | None):
        raise ValueError(f"{path}: found {type(tree).__name__}, wanted sections such as 'data:' with keys below them")
    return tree or {}


def override(tree: dict[str, Any], item: str) -> None:
    """Put `a.b=value` into nested dicts; the value is read as YAML.

    Raises:
        ValueError: `item` does not have this form, or a section in it is a value.
    """
    key, equals, value = item.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        raise ValueError(f"--set {item!r}: wanted key=value, the key dotted, for example --set optim.epochs=3")
    for section in sections:
        if tree.get(section) is None:
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise ValueError(f"--set {item!r}: {section!r} is a value, not a section")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {item!r}: the value is not YAML: {error}") from None


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """The errors in settings, one per line: where, what was found, what was wanted."""
    return "\n".join(_explain(source, problem, model) for problem in error.errors())


def _explain(source: str, problem: Any, model: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{source}: {where}: found {problem['input']!r:.200}: {problem['msg']}"
    *sections, key = problem["loc"]
    for name in sections:
        if isinstance(name, str):  # a number is an index in a list
            model = model.model_fields[name].annotation
            model = next((argument for argument in get_args(model) if hasattr(argument, "model_fields")), model)
    return f"{source}: {where}: unknown key {key!r}; valid here: {', '.join(model.model_fields)}"
