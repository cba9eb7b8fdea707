"""Every job on three hosts, submitted from outside: the results of one host, and each host did its part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ctxner.demo import make_world
from ctxner.predictor import Tagger
from tests.integration.hosts.cluster import RayCluster, cluster
from tests.integration.hosts.jobs import KEY, assert_same_tags, deploy, here, tag_settings, write_files, write_training
from tests.integration.hosts.network import missing

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "")]

NUM_DOCUMENTS = 1600  # more than three batches of the retrieval actors


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with cluster(3, tmp_path_factory.mktemp("hosts")) as ray:
        yield ray


@pytest.fixture(scope="module")
def everywhere(three: RayCluster) -> list[str]:
    return [host.address for host in three.network.hosts]


@pytest.fixture(scope="module")
def files(three: RayCluster, tagger: Tagger, minilm: str) -> Path:
    folder = three.network.files
    write_files(folder, num_documents=NUM_DOCUMENTS, tagger=tagger, tokenizer=minilm)
    return folder


@pytest.fixture(scope="module")
def index(three: RayCluster, files: Path) -> dict[str, Any]:
    three_shards = ["--corpus", files / "corpus.jsonl", "--out", files / "index", "--set", "index.shards=3"]
    return three.result("index", "index", *three_shards)


@pytest.fixture(scope="module")
def contexts(three: RayCluster, files: Path, index: dict[str, Any]) -> Path:
    """Contexts for training."""
    splits = [f"--set=data.{split}={files}/{split}.conll" for split in ("train", "dev")]
    found = three.result("contexts", "retrieve", *splits, "--index", files / "index", "--out", files / "contexts")
    assert (found["sentences"], found["errors"]) == (52, 0)
    return files / "contexts"


def test_each_host_writes_a_shard_of_the_index(
    three: RayCluster, everywhere: list[str], files: Path, index: dict[str, Any]
) -> None:
    assert three.hosts_of("tasks", "_write", "index") == everywhere
    one = here("index", "--corpus", files / "corpus.jsonl", "--out", files / "one-shard")
    for name in ("corpus_sha256", "num_documents", "num_names", "num_texts"):
        assert index[name] == one[name]
    assert index["num_shards"] == 3
    question = ["index", "search", "Velmora ship", "--index"]
    assert here(*question, files / "index") == here(*question, files / "one-shard")


def test_all_hosts_retrieve_the_contexts_of_one(
    three: RayCluster, everywhere: list[str], files: Path, index: dict[str, Any]
) -> None:
    how = [files / "documents.jsonl", "--index", files / "index", "--set", "retrieval.rerank=false", "--out"]
    found = three.result("retrieve", "retrieve", *how, files / "retrieved", "--set", "retrieval.search_actors=3")
    assert (found["sentences"], found["errors"], found["resumed_from"]) == (NUM_DOCUMENTS, 0, 0)
    assert three.hosts_of("actors", "(Search)", "retrieve") == everywhere
    assert len(three.hosts_of("actors", "FooterReader", "retrieve")) <= 1, "one process reads the one input file"
    here("retrieve", *how, files / "retrieved-here")
    tables = [pq.read_table(next((files / name).glob("*.parquet"))) for name in ("retrieved", "retrieved-here")]
    assert tables[0].num_rows == NUM_DOCUMENTS
    assert tables[0].equals(tables[1])


def test_two_hosts_train_the_model_of_one(three: RayCluster, files: Path, contexts: Path) -> None:
    config = write_training(files, contexts)
    for name, num_workers in (("two", 2), ("one", 1)):
        run = ["--config", config, "--set", f"run.workers={num_workers}", "--set", f"run.name={name}"]
        three.submit(name, "ctxner", "train", *run)
        assert len(set(three.hosts_of("actors", "RayTrainWorker", name))) == num_workers
    one, two = (json.loads((files / "runs" / name / "history.json").read_text()) for name in ("one", "two"))
    for alone, shared in zip(one, two, strict=True):
        assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        assert shared["dev_f1"] == pytest.approx(alone["dev_f1"], abs=1e-6)
    assert one[-1]["losses"]["loss"] < one[0]["losses"]["loss"]
    shared, alone = (load_file(files / "runs" / name / "model" / "model.safetensors") for name in ("two", "one"))
    torch.testing.assert_close(shared, alone, atol=1e-5, rtol=0)


def test_all_hosts_tag_as_one_does(
    three: RayCluster, everywhere: list[str], files: Path, index: dict[str, Any]
) -> None:
    how = tag_settings(files)
    spread = ["--set", "tagging.actors=3"]
    found = three.result("tag", "tag", files / "documents.jsonl", files / "tagged", *how, *spread)
    assert (found["documents"], found["errors"]) == (NUM_DOCUMENTS, 0)
    assert min(found["views"].values()) > NUM_DOCUMENTS / 50, "both views answer"
    assert set(three.hosts_of("actors", "(Tag", "tag")) == set(everywhere)
    alone = here("tag", files / "documents.jsonl", files / "tagged-here", *how)
    assert found["entities"] == alone["entities"] > NUM_DOCUMENTS / 10
    assert_same_tags(files / "tagged", files / "tagged-here")


def test_a_proxy_on_every_host_answers_as_the_model_does(
    three: RayCluster, everywhere: list[str], files: Path, tagger: Tagger, index: dict[str, Any]
) -> None:
    deploy(three, files)
    text = " ".join(make_world(seed=2, num_train=1, num_dev=0, num_test=0).train[0].words)
    expected = [(entity.type, entity.start, entity.end) for entity in tagger.tag(text)]
    body = json.dumps({"texts": [text], "view": "plain"})
    for address in everywhere:
        curl = ["curl", "--silent", "--fail-with-body", f"http://{address}:8000/v1/tag", "--data", body]
        curl += ["--header", f"Authorization: Bearer {KEY}", "--header", "Content-Type: application/json"]
        (result,) = json.loads(three.network.outside.run(*curl).stdout)["results"]
        assert [(entity["type"], entity["start"], entity["end"]) for entity in result["entities"]] == expected
    for replica in ("PlainTagger", "Router"):
        assert three.hosts_of("actors", f"ServeReplica:ctxner:{replica}") == everywhere
