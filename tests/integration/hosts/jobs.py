"""Files, jobs and a server for the tests on hosts, and comparisons of their results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoTokenizer, BertModel

from ctxner.demo import make_world, write_world
from ctxner.predictor import Tagger
from tests.integration.hosts.cluster import RayCluster
from tests.integration.hosts.network import wait_until
from tests.tiny_bert import tiny_bert

KEY = "a-key-of-the-tests-of-hosts"
THRESHOLD = 3.0  # nats; both views answer


def write_files(folder: Path, *, num_documents: int, tagger: Tagger, tokenizer: str) -> None:
    """An invented world with `documents.jsonl`, `model`, which finds something, and a tiny `encoder` to train."""
    write_world(make_world(num_train=41, num_dev=11, num_test=0), folder)
    lines = [
        json.dumps({"id": sentence.id, "text": " ".join(sentence.words)}) + "\n"
        for sentence in make_world(seed=1, num_train=num_documents, num_dev=0, num_test=0).train
    ]
    (folder / "documents.jsonl").write_text("".join(lines))
    tagger.save_pretrained(folder / "model")
    torch.manual_seed(0)
    BertModel(tiny_bert(), add_pooling_layer=False).save_pretrained(folder / "encoder")
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder / "encoder")


def tag_settings(files: Path, view: str = "auto") -> list[object]:
    """Options of `ctxner tag`, in batches so small that each actor gets several."""
    how = ["--model", files / "model", "--view", view, "--set", "tagging.batch_documents=64"]
    return how if view == "plain" else [*how, "--index", files / "index", "--set", f"tagging.threshold={THRESHOLD}"]


def write_training(files: Path, contexts: Path, *, epochs: int = 2) -> Path:
    """A config for training on the world, with runs in `files/runs`."""
    tree = {
        "data": {**{split: f"{files}/{split}.conll" for split in ("train", "dev")}, "contexts": str(contexts)},
        "model": {"encoder": str(files / "encoder"), "dropout": 0.0},
        "optim": {"epochs": epochs, "batch_sentences": 8, "encoder_lr": 1e-3, "head_lr": 5e-3, "crf_lr": 5e-3},
        "run": {"storage": str(files / "runs"), "seed": 3, "threads": 1},
    }
    path = files / "train.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def here(*command: object) -> dict[str, Any]:
    """The result of a job on this machine, without the hosts."""
    line = [sys.executable, "-m", "jobs", *map(str, command), "--json"]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def deploy(ray: RayCluster, files: Path) -> None:
    """`ctxner serve --write` and `serve deploy` from outside, with a proxy, a router and a plain tagger per host."""
    num = len(ray.network.hosts)
    each = {"autoscaling_config": {"min_replicas": num, "max_replicas": num}, "max_replicas_per_node": 1}
    tree = {
        "proxy_location": "EveryNode",
        "applications": [
            {
                "name": "ctxner",
                "route_prefix": "/",
                "import_path": "serving.app:build",
                "args": {"model": str(files / "model"), "index": str(files / "index"), "threshold": THRESHOLD},
                "deployments": [{"name": name, **each} for name in ("Router", "PlainTagger")],
            }
        ],
    }
    (files / "in.yaml").write_text(yaml.safe_dump(tree))
    outside, keys = ray.network.outside, {"CTXNER_API_KEYS": f"tests:{KEY}"}
    write = ["serve", "--config", files / "in.yaml", "--host", "0.0.0.0", "--write", files / "serve.yaml"]
    outside.run("ctxner", *write, variables=keys, timeout=300)
    outside.run("serve", "deploy", files / "serve.yaml", "--address", ray.dashboard, timeout=300)
    wait_until(lambda: is_served(ray), seconds=600, what=f"the server runs, with {num} proxies")


def is_served(ray: RayCluster) -> bool:
    """Whether all replicas run and each host has a proxy that answers, which the controller learns too late."""
    for host in ray.network.hosts:
        curl = ["curl", "--silent", "--fail", "--max-time", "5", f"http://{host.address}:8000/healthz"]
        if ray.network.outside.run(*curl, check=False).returncode:
            return False
    found = ray.ask("api/serve/applications/")
    (application,) = found["applications"].values() or ({},)
    assert application.get("status") != "DEPLOY_FAILED", application
    proxies = [proxy["status"] for proxy in found["proxies"].values()]
    states = {deployment["status"] for deployment in application.get("deployments", {}).values()}
    return states == {"HEALTHY"} and proxies == ["HEALTHY"] * len(ray.network.hosts)


def num_done(folder: Path) -> int:
    """Rows that a tagging job has finished."""
    done = [path for path in folder.glob(".tagging/checkpoint/*.parquet") if ".pending" not in path.name]
    return sum(pq.read_metadata(path).num_rows for path in done)


def assert_same_tags(folder: Path, other: Path) -> None:
    """The same documents in the same order with the same entities; confidences within 1e-4."""
    first, second = (pq.read_table(path / "tagged.parquet").to_pylist() for path in (folder, other))
    assert [row["id"] for row in first] == [row["id"] for row in second]
    for row, expected in zip(first, second, strict=True):
        for kind, name in (("entities", "confidence"), ("sentences", "entropy")):
            values, wanted = ([entry.pop(name) for entry in own[kind]] for own in (row, expected))
            assert values == pytest.approx(wanted, abs=1e-4)
        assert row == expected


def tell(drill: str, **figures: object) -> None:
    """Print the figures of a drill as a JSON line."""
    rounded = {name: round(value, 1) if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps({"drill": drill, **rounded}))
