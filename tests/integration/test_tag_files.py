"""`ctxner tag IN OUT` as a command on a Ray of its own: from URIs to a URI, in every format."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ctxner.files.columns import ColumnFormat
from ctxner.files.sentences import read_sentences
from ctxner.predictor import Tagger

pytestmark = pytest.mark.ray


@pytest.mark.slow
def test_files_behind_uris_are_tagged_in_order_into_a_uri(tagger: Tagger, tmp_path: Path) -> None:
    tagger.save_pretrained(tmp_path / "model")
    texts = [f"Paris Hilton sings in London {number}. Don't!" for number in range(4)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps({"text": own}) + "\n" for own in texts[:2]))
    (tmp_path / "in" / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps({"id": "é", "text": texts[2]}).encode()))
    (tmp_path / "c.jsonl").write_text(json.dumps({"words": texts[3].split()}))
    command = [sys.executable, "-m", "jobs", "tag", f"file://{tmp_path}/in", str(tmp_path / "c.jsonl")]
    command += [f"file://{tmp_path}/out", "-m", str(tmp_path / "model"), "--json"]
    for format in ("parquet", "jsonl", "conll"):
        command += ["--to", format]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["documents"], found["sentences"], found["errors"]) == (4, 7, 0)
    out = tmp_path / "out"
    assert {own.name for own in out.iterdir()} == {"tagged.parquet", "tagged.jsonl", "tagged.conll", "_SUCCESS"}
    rows = pq.read_table(out / "tagged.parquet").to_pylist()
    assert [(row["id"], row["text"]) for row in rows] == [*zip(("a-0", "a-1", "é", "c-0"), texts, strict=True)]
    for row, text in zip(rows, texts[:3], strict=False):
        expected = [(own.text, own.type, own.start, own.end) for own in tagger.tag(text)]
        assert [(own["text"], own["type"], own["start"], own["end"]) for own in row["entities"]] == expected
    sentences = read_sentences(out / "tagged.conll", ColumnFormat()).sentences
    assert [own.words for own in sentences][-1] == tuple(texts[3].split())
    assert len(sentences) == 7
    assert not (tmp_path / "runs").exists(), "file:// is a path of this machine"
