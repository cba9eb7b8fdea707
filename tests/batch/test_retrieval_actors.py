"""The actors of a retrieval job, called without Ray: a sentence that fails is a row with an error, whatever fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("ray")

from ctxner.batch.retrieval_actors import Predict, Rerank, Search
from ctxner.batch.retrieval_files import publish, row_schema, stage
from ctxner.schema import Passage, ScoredPassage, Sentence, passage_row

WORDS = [["Ada"], ["poison"], ["Bob"]]


def poisoned(actor: type, error: Exception) -> Any:
    """An actor whose work fails for any batch with the word `poison`; it has no model and no JVM."""
    made = object.__new__(actor)

    def look_up(rows: Any) -> None:
        if any("poison" in row["words"] for row in rows):
            raise error
        for row in rows:
            row |= {"predicted": [(0, 1)], "query": "q", "passages": row.get("passages") or [], "error": None}

    made.look_up = look_up
    return made


def batch(**columns: list) -> pa.Table:
    ids = {"sentence_id": ["s-0", "s-1", "s-2"], "words": WORDS, "position": [0, 1, 2]}
    return pa.table({**ids, **columns})


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyError("no"), AssertionError("no"), OSError("no")], ids=repr)
def test_a_sentence_that_the_first_tagger_or_the_search_fails_on_is_a_row_with_an_error(error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}"
    predicted = poisoned(Predict, error)(batch())
    assert predicted["failed"].to_pylist() == [None, reason, None]
    assert predicted["predicted"].to_pylist() == [[[0, 1]], [], [[0, 1]]]
    for searched in (poisoned(Search, ValueError("other"))(predicted), poisoned(Search, error)(batch())):
        assert searched.schema == row_schema()
        assert searched["error"].to_pylist() == [None, reason, None]


def test_a_sentence_that_the_reranker_fails_on_is_a_row_with_an_error_and_no_passages() -> None:
    passage = passage_row(ScoredPassage(Passage("p", "x", "text"), 1.0, 1))
    rows = batch().append_column("query", pa.array(["q"] * 3)).to_pylist()
    given = pa.Table.from_pylist([{**row, "passages": [passage], "error": None} for row in rows], schema=row_schema())
    out = poisoned(Rerank, RuntimeError("no"))(given)
    assert out["error"].to_pylist() == [None, "RuntimeError: no", None]
    assert [len(passages) for passages in out["passages"].to_pylist()] == [1, 0, 1]
    earlier = given.set_column(given.column_names.index("error"), "error", pa.array([None, "before", None]))
    assert poisoned(Rerank, RuntimeError("no"))(earlier)["error"].to_pylist() == [None, "before", None]


def test_memory_that_runs_out_for_one_sentence_ends_the_job() -> None:
    with pytest.raises(MemoryError):
        poisoned(Search, MemoryError())(batch())


def test_more_failed_sentences_than_allowed_end_the_job_and_keep_its_rows(tmp_path: Path) -> None:
    staged = stage({"dev": [Sentence(f"s-{n}", ("a",)) for n in range(10)]}, tmp_path, {})
    rows = [
        {"sentence_id": f"dev\ts-{n}", "words": ["a"], "query": "", "passages": [], "position": n}
        | {"error": "KeyError: 'x'" if n in (3, 7) else None}
        for n in range(10)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=row_schema()), staged.job.rows / "0.parquet")
    with pytest.raises(
        ValueError, match=r"failed for 2 of 10 .* tagging\.max_errors=0\.1 allows; first: KeyError: 'x'"
    ):
        publish(staged, {}, max_errors=0.1)
    assert [path.name for path in tmp_path.glob("*.parquet")] == []
    assert publish(staged, {}, max_errors=0.2)["errors"] == 2
