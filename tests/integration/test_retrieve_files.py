"""`ctxner retrieve FILES` on a real Ray: contexts for files of several kinds, none of them in a config."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctxner.files.columns import ColumnFormat
from ctxner.files.contexts import load_examples

pytestmark = pytest.mark.ray


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, arguments), "--json"], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_files_without_gold_tags_get_contexts_that_join_to_them(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("Velmora is a port.\nThe Quodun sank.\nKim met Dana in Oslo.\n")
    shards, out = tmp_path / "shards", tmp_path / "made"
    shards.mkdir()
    (shards / "a.conll").write_text("We\nsaw\nVelmora\n\nIt\nrained\n")
    (shards / "b.jsonl.gz").write_bytes(gzip.compress('{"id": "ünï", "text": "The Quodun sails."}\n'.encode()))
    pq.write_table(pa.table({"sentence_id": [7, 8], "text": ["Dana stayed.", "\U0001f600"]}), shards / "c.parquet")
    assert command("index", "--corpus", tmp_path / "corpus.txt", "--out", tmp_path / "index").returncode == 0
    ended = command("retrieve", shards, "--out", out, "--index", tmp_path / "index")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["sentences"], found["errors"], found["without_query"]) == (5, 0, 2)
    assert (found["without_passage"], found["warning"]) == (2, None)
    assert found["seconds"] > found["staging_seconds"] > 0
    assert "staging sentences" in ended.stderr
    assert "retrieving for sentences" in ended.stderr
    assert {path.name for path in out.iterdir()} == {"sentences.parquet", "_SUCCESS"}
    assert json.loads((out / "_SUCCESS").read_text())["sentences"]["sentences"] == 5
    (tmp_path / "vain.txt").write_text("It rained.\nIt was so.\n\nKim left.\n")
    vain = "retrieve", tmp_path / "vain.txt", "--format", "text", "--out", tmp_path / "vain", "--index"
    ended = command(*vain, tmp_path / "index")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["warning"].startswith("67% of 3 sentences got no passage.")
    assert ended.stderr.strip().splitlines()[-1].startswith("warning: 67% of 3 sentences got no passage. The index's")
    examples = load_examples(shards, ColumnFormat(tag_column=None), contexts=out / "sentences.parquet")
    assert [own.sentence.id for own in examples] == ["a-0", "a-1", "ünï", "7", "8"]
    first = [own.passages[0].passage.text if own.passages else None for own in examples]
    assert first == ["Velmora is a port.", None, "The Quodun sank.", "Kim met Dana in Oslo.", None]
