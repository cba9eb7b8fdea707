"""What spaCy's component does unless it is told otherwise, read from its source: spaCy need not be installed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _functions(module: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((ROOT / "ctxner" / f"{module}.py").read_text(encoding="utf-8"))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("module", "function"), [("spacy_component", "__init__"), ("spacy_docs", "set_entities")])
def test_entities_that_are_there_stay_unless_they_are_to_be_replaced(module: str, function: str) -> None:
    arguments = _functions(module)[function].args
    defaults = {
        argument.arg: value for argument, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }
    value = defaults["overwrite"]
    assert value is not None
    assert ast.literal_eval(value) is False


def test_a_pipeline_that_does_not_say_keeps_them_too() -> None:
    [factory] = _functions("spacy_component")["make_component"].decorator_list
    assert isinstance(factory, ast.Call)
    options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in factory.keywords}
    assert options["default_config"]["overwrite"] is False
