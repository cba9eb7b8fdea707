"""What happens to jobs and servers when hosts fail: nothing is lost, doubled or wrong; the time it costs is printed.

Each drill prints a JSON line; docs/cluster.md has them as a table.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ctxner.predictor import Tagger
from tests.integration.hosts import faults
from tests.integration.hosts.cluster import RayCluster, cluster
from tests.integration.hosts.jobs import assert_same_tags, num_done, tag_settings, tell, write_files, write_training
from tests.integration.hosts.network import missing, wait_for_end, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "")]

NUM_DOCUMENTS = 1200
NUM_EPOCHS = 12
DEADLINE = 900  # seconds of a job; on a quiet machine it needs a minute
TRY_AGAIN = 75
FAULTS = [
    faults.killed, faults.cut_for_a_while, faults.cut_for_good, faults.disk_full, faults.no_files, faults.slow
]  # fmt: skip


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with cluster(3, tmp_path_factory.mktemp("hosts")) as ray:
        yield ray


@pytest.fixture(scope="module")
def files(three: RayCluster, tagger: Tagger, minilm: str) -> Path:
    """The common files, with an index."""
    folder = three.network.files
    write_files(folder, num_documents=NUM_DOCUMENTS, tagger=tagger, tokenizer=minilm)
    three.result("index", "index", "--corpus", folder / "corpus.jsonl", "--out", folder / "index")
    return folder


@pytest.fixture(scope="module")
def undisturbed(three: RayCluster, files: Path) -> float:
    """Seconds that tagging takes without a fault; the result is in `tagged`."""
    started = time.monotonic()
    found = three.result("undisturbed", *_tag(files, "tagged"))
    assert (found["documents"], found["errors"]) == (NUM_DOCUMENTS, 0)
    return time.monotonic() - started


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_tagging_ends_with_every_row_once(
    three: RayCluster, files: Path, undisturbed: float, fault: faults.Fault, tmp_path: Path
) -> None:
    name, started, codes = f"tag-{fault.__name__}", time.monotonic(), list[int | None]()
    process = _submit(three, f"{name}-0", *_tag(files, name), log=tmp_path / "0")
    wait_until(lambda: num_done(files / name), seconds=DEADLINE, what="the first rows")
    with faults.struck(three, fault):
        struck = time.monotonic()
        while process.wait(DEADLINE):
            codes.append(_code(three, f"{name}-{len(codes)}"))
            assert codes[-1] == TRY_AGAIN, (tmp_path / str(len(codes) - 1)).read_text()[-6000:]
            assert len(codes) < 20
            process = _submit(three, f"{name}-{len(codes)}", *_tag(files, name), log=tmp_path / str(len(codes)))
        ended = time.monotonic()
    tell(name, undisturbed=undisturbed, seconds=ended - started, after_fault=ended - struck, failed_with=codes)
    assert_same_tags(files / name, files / "tagged")


def test_retrieval_ends_with_every_row_once_when_a_host_is_killed(
    three: RayCluster, files: Path, tmp_path: Path
) -> None:
    how = ["retrieve", files / "documents.jsonl", "--index", files / "index", "--set", "retrieval.search_actors=3"]
    how += ["--set", "retrieval.batch_sentences=32"]
    started = time.monotonic()
    found = three.result("retrieve-undisturbed", *how, "--out", files / "retrieved")
    undisturbed = time.monotonic() - started
    assert (found["sentences"], found["errors"]) == (NUM_DOCUMENTS, 0)
    started = time.monotonic()
    process = _submit(three, "retrieve-killed", *how, "--out", files / "retrieved-killed", log=tmp_path / "log")
    wait_until(lambda: three.hosts_of("actors", "(Search)", "retrieve-killed"), seconds=DEADLINE, what="searches")
    with faults.struck(three, faults.killed):
        struck = time.monotonic()
        wait_for_end(process, tmp_path / "log", seconds=DEADLINE)
        ended = time.monotonic()
    tell("retrieve-killed", undisturbed=undisturbed, seconds=ended - started, after_fault=ended - struck)
    tables = [pq.read_table(next((files / name).glob("*.parquet"))) for name in ("retrieved", "retrieved-killed")]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("fault", [faults.killed, faults.cut_for_a_while], ids=lambda fault: fault.__name__)
def test_training_ends_with_the_losses_of_an_undisturbed_run(
    three: RayCluster, files: Path, fault: faults.Fault, tmp_path: Path
) -> None:
    if not (files / "contexts").exists():
        splits = [f"--set=data.{split}={files}/{split}.conll" for split in ("train", "dev")]
        three.result("contexts", "retrieve", *splits, "--index", files / "index", "--out", files / "contexts")
        config = write_training(files, files / "contexts", epochs=NUM_EPOCHS)
        three.submit("train-alone", "ctxner", "train", "-c", config, "--set", "run.name=alone")
    name = f"train-{fault.__name__}"
    how = ["train", "-c", files / "train.yaml", "--set", "run.workers=3", "--set", f"run.name={name}"]
    process = _submit(three, name, *how, "--set", "run.checkpoint_steps=2", log=tmp_path / "log")
    run = files / "runs" / name
    wait_until(lambda: list(run.glob("checkpoint_*")), seconds=DEADLINE, what="a checkpoint")
    with faults.struck(three, fault):
        struck = time.monotonic()
        wait_for_end(process, tmp_path / "log", seconds=DEADLINE)
        ended = time.monotonic()
    tell(name, after_fault=ended - struck)
    alone, shared = (json.loads((files / "runs" / name / "history.json").read_text()) for name in ("alone", run.name))
    assert len(shared) == len(alone) == NUM_EPOCHS
    for expected, entry in zip(alone, shared, strict=True):
        assert entry["losses"] == pytest.approx(expected["losses"], rel=1e-4)
        assert entry["dev_f1"] == pytest.approx(expected["dev_f1"], abs=1e-6)


def _tag(files: Path, name: str) -> list[object]:
    return ["tag", files / "documents.jsonl", files / name, *tag_settings(files, "plain"), "--set", "tagging.actors=3"]


def _submit(ray: RayCluster, name: str, *command: object, log: Path) -> subprocess.Popen[bytes]:
    return ray.network.outside.start(*ray.submission(name, "ctxner", *command, "--json"), log=log)


def _code(ray: RayCluster, name: str) -> int | None:
    """The exit code of a job's driver, or None if Ray does not know it."""
    return ray.ask(f"api/jobs/{name}")["driver_exit_code"]
