"""Any text at all, as passage or as sentence, goes through indexing and the retrieval job and comes out as one row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.ray, pytest.mark.slow]

from ctxner.files.contexts import read_contexts  # noqa: E402
from ctxner.retrieval.search.query import clean_text  # noqa: E402

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=30)  # lone surrogates and NUL included
SYNTAX = st.sampled_from(
    ("AND", "NOT", "a:b", '"', "((", "^2", "/x", "*", "~", "\\", "[a TO", "\0", "\ud800", "日本", "🎉")
)
WORD = ANYTHING | SYNTAX


@settings(max_examples=1, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    passages=st.lists(st.lists(WORD, min_size=1, max_size=4).map(" ".join), min_size=30, max_size=60),
    sentences=st.lists(st.lists(WORD, min_size=1, max_size=8), min_size=30, max_size=60),
)
def test_any_text_gives_one_row_without_an_error(
    tmp_path_factory: pytest.TempPathFactory, passages: list[str], sentences: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("unicode")
    texts = ["Velmora is a river port", *(text if clean_text(text).strip() else "x" for text in passages)]
    _write(folder / "corpus.jsonl", [{"id": str(n), "contents": text, "title": text} for n, text in enumerate(texts)])
    own = [["Sailors", "of", "Velmora"], *([word if word.strip() else "x" for word in words] for words in sentences)]
    _write(folder / "test.jsonl", [{"id": str(n), "words": words} for n, words in enumerate(own)])
    _run("index", "build", "--corpus", folder / "corpus.jsonl", "--out", folder / "index")
    places = (f"data.test={folder / 'test.jsonl'}", f"data.contexts={folder}", f"index.folder={folder / 'index'}")
    _run("retrieve", *(part for place in places for part in ("--set", place)))
    found = read_contexts(folder / "test.parquet")
    assert list(found) == [str(n) for n in range(len(own))]
    assert [context.error for context in found.values()] == [None] * len(own)
    assert "0" in {scored.passage.id for scored in found["0"].passages}  # and what stands among the oddities is found


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _run(*arguments: object) -> None:
    command = [sys.executable, "-m", "jobs", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
