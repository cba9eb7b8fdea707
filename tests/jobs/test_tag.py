"""`ctxner tag`: faulty files are left out where asked for.

Whole jobs are in tests/integration.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.jobs.command_line import Called


def refused_and_skipped(call: Callable[..., Called], model: str, *files: str) -> tuple[str, dict[str, Any]]:
    """The message of a dry run, and its result where faulty files are left out."""
    arguments = ("tag", *files, "made", "-m", model, "--dry-run", "--json")
    code, _, message = call(*arguments)
    assert code == 2
    code, out, _ = call(*arguments, "--on-error", "skip")
    assert code == 0
    return message, json.loads(out)


def test_faulty_files_are_left_out_of_a_tagging_job_and_listed_if_asked_for(folder: Path, model: str, call) -> None:
    (folder / "bad.jsonl").write_bytes(b'{"text": "Gr\xf6\xdfe"}\n')
    (folder / "good.jsonl").write_text('{"text": "We met."}\n')
    message, result = refused_and_skipped(call, model, "bad.jsonl", "good.jsonl")
    assert "bad.jsonl:1: not UTF-8" in message
    assert (result["documents"], result["skipped_files"]) == (1, 1)
    assert result["skipped"][0]["file"] == "bad.jsonl"
    assert "not UTF-8" in result["skipped"][0]["error"]


def test_a_file_that_expands_beyond_reason_is_left_out_and_the_others_are_read(folder: Path, model: str, call) -> None:
    with (folder / "bomb.jsonl.gz").open("wb") as file:
        file.write(gzip.compress(b'{"text": "We met."}\n{"text": "'))
        file.write(gzip.compress(b"a" * (1 << 24)) * 20)
    for name in ("a.jsonl", "c.jsonl"):
        (folder / name).write_text('{"text": "We met."}\n{"text": "In Paris."}\n')
    message, result = refused_and_skipped(call, model, "a.jsonl", "bomb.jsonl.gz", "c.jsonl")
    assert "bomb.jsonl.gz:2: expands to more than 500 times its size" in message
    assert (result["documents"], result["skipped_files"]) == (4, 1)
    assert result["skipped"][0]["file"] == "bomb.jsonl.gz"
