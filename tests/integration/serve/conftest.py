"""One server for all modules of this folder: `ctxner serve` with a key, open to all addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctxner.client import Client
from ctxner.demo import World, make_world
from ctxner.predictor import Tagger
from tests.benchmarks.serving import served
from tests.integration.built import write_served_folder

KEY = "k" * 32
RETRIEVAL = {"keep": 2, "cache": None, "dtype": "float32"}


@dataclass(frozen=True)
class Served:
    """A server: its port, its process, and the folder with its model, its index and its log."""

    port: int
    pid: int
    folder: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="package")
def world() -> World:
    return make_world(num_train=40, num_dev=8, num_test=0)


@pytest.fixture(scope="package")
def folder(world: World, tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and an index."""
    path = tmp_path_factory.mktemp("serve")
    write_served_folder(path, world, tagger)
    return path


@pytest.fixture(scope="package")
def server(folder: Path) -> Iterator[Served]:
    options = ["--model", str(folder / "model"), "--index", str(folder / "index"), "--host", "0.0.0.0"]
    options += ["--set", "threshold=0.5"]
    for name, value in RETRIEVAL.items():
        options += ["--set", f"retrieval.{name}={json.dumps(value)}"]
    environment = {"CTXNER_API_KEYS": f"me:{KEY}"}
    with served(*options, log=folder / "serve.log", environment=environment) as (port, pid):
        yield Served(port, pid, folder)


@pytest.fixture(scope="package")
def client(server: Served) -> Iterator[Client]:
    with Client(server.url, KEY) as client:
        yield client
