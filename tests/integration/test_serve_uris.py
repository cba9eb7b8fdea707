"""A server whose model and index lie in a store behind S3 answers as the same command does on local files."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray")

from ctxner.client import Client  # noqa: E402
from ctxner.demo import make_world  # noqa: E402
from ctxner.files.storage import put_folder  # noqa: E402
from ctxner.predictor import Tagger  # noqa: E402
from tests.benchmarks.serving import served  # noqa: E402
from tests.integration.built import write_served_folder  # noqa: E402
from tests.s3_server import BUCKET, S3Server  # noqa: E402

RETRIEVAL = ["--set", "retrieval.keep=2", "--set", "retrieval.dtype=float32"]


def test_a_server_reads_its_model_and_its_index_from_the_store(s3: S3Server, tagger: Tagger, tmp_path: Path) -> None:
    world, folder = make_world(num_train=40, num_dev=8, num_test=0), tmp_path / "local"
    folder.mkdir()
    write_served_folder(folder, world, tagger)
    root = f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"
    for name in ("model", "index"):
        put_folder(folder / name, f"{root}/{name}")
    texts = [" ".join(own.words) for own in world.train[:12]]
    command = [sys.executable, "-m", "jobs", "tag-text", str(folder / "model"), *texts, *RETRIEVAL]
    done = subprocess.run([*command, "--index", folder / "index", "--json"], check=True, capture_output=True, text=True)
    wanted = json.loads(done.stdout.splitlines()[-1])["texts"]
    options = ["--model", f"{root}/model", "--index", f"{root}/index", *RETRIEVAL]
    with served(*options, log=tmp_path / "serve.log") as (port, _), Client(f"http://127.0.0.1:{port}") as client:
        found = client.tag(texts, view="context")
    assert [[(e.text, e.type, e.start) for e in own.entities] for own in found.results] == [
        [(e["text"], e["type"], e["start"]) for e in own["entities"]] for own in wanted
    ]
    assert any(own.entities for own in found.results)
    assert found.views["context"] > 0
    assert found.versions.index
