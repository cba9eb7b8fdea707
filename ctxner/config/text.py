"""Reads settings that people write, YAML files and `key=value` overrides, into nested dicts, and explains their errors.

`ctxner.config` and `serving.settings` define the settings themselves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
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
    except yaml.MarkedYAMLError as error:  # without the line itself, in which a key may stand
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else f"{path}"
        raise ValueError(f"{where}: not a readable YAML file: {error.problem}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
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
        raise ValueError(f"--set {key!r}: wanted key=value, the key dotted, for example --set optim.epochs=3")
    for section in sections:
        if tree.get(section) is None:
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise ValueError(f"--set {key!r}: {section!r} is a value, not a section")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else type(error).__name__
        raise ValueError(f"--set {key!r}: the value is not YAML: {problem}") from None


def place_in(path: Path, keys: Sequence[Any]) -> str:
    """`FILE:LINE` of a key in a YAML file that `read_yaml` has read; keys that are not there stand at the one above.

    Args:
        path: YAML file.
        keys: The key, and the keys and numbers in lists that lead to it.
    """
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    line = 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((name, value) for name, value in node.value if name.value == str(key)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            found = (node.value[key], node.value[key])
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return f"{path}:{line}"


def explain(
    error: ValidationError,
    model: type[BaseModel],
    source: str,
    *,
    secret: Collection[str] = frozenset(),
    file: Path | None = None,
) -> str:
    """The errors in settings, one per line: where, what was found, what was wanted.

    Args:
        error: Errors to explain.
        model: Settings that were wanted.
        source: Name of the file or of its part in the text.
        secret: Names of sections of which nothing that was found is shown.
        file: YAML file of all settings, to name each error's line in it instead of `source`.
    """
    problems = error.errors()
    sources = [place_in(file, problem["loc"]) if file else source for problem in problems]
    return "\n".join(_explain(*pair, model, secret) for pair in zip(sources, problems, strict=True))


def _explain(source: str, problem: Any, model: Any, secret: Collection[str]) -> str:
    is_secret = bool(secret) and (not problem["loc"] or problem["loc"][0] in secret)
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        shown = "" if is_secret else f"found {problem['input']!r:.200}: "
        return f"{source}: {where}: {shown}{problem['msg']}"
    *sections, key = problem["loc"]
    for name in sections:
        if name in model.model_fields:  # else an index in a list, or a key of a mapping
            model = model.model_fields[name].annotation
            model = next((argument for argument in get_args(model) if hasattr(argument, "model_fields")), model)
    if is_secret and not re.fullmatch(r"[a-z_]{1,12}", str(key)):
        where, key = ".".join(str(part) for part in sections), "..."
    return f"{source}: {where}: unknown key {key!r}; valid here: {', '.join(model.model_fields)}"
