"""The ordinary commands with every path a URI of a real S3 server, and the same on local paths: the same tags.

One Ray serves all commands; its workers find the server by the environment that it was started with.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ray = pytest.importorskip("ray")

from transformers import AutoTokenizer, BertModel  # noqa: E402

from ctxner.demo import make_world, write_world  # noqa: E402
from ctxner.files.node_copies import local  # noqa: E402
from ctxner.files.storage import names_in, put_folder, remove  # noqa: E402
from jobs.cli import app  # noqa: E402
from jobs.exit_codes import TRY_AGAIN, exit_code  # noqa: E402
from tests.s3_server import BUCKET, S3Server  # noqa: E402
from tests.tiny_bert import tiny_bert  # noqa: E402

EPOCHS = 2


@pytest.fixture(scope="module")
def server(s3_process: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server, in the environment of this process and of a Ray that starts now."""
    from jobs.cluster import connect

    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_process.variables.items():
            patch.setenv(name, value)
        patch.setenv("CTXNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        nobody = {"env_vars": {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}}
        ray.init(
            address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, runtime_env=nobody,
            object_store_memory=200 << 20,
        )  # fmt: skip
        connect()
        yield s3_process
        ray.shutdown()


@pytest.fixture(scope="module")
def world(server: S3Server, minilm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world with documents to tag and a narrow encoder, on this disk and in the store."""
    folder = tmp_path_factory.mktemp("world")
    write_world(make_world(num_train=41, num_dev=11, num_test=12), folder)
    texts = [json.dumps({"id": f"d{number}", "text": f"They sail to Velmora {number}. Fine!"}) for number in range(9)]
    (folder / "posts.jsonl").write_text("\n".join(texts))
    torch.manual_seed(0)
    BertModel(tiny_bert(), add_pooling_layer=False).save_pretrained(folder / "encoder")
    AutoTokenizer.from_pretrained(minilm).save_pretrained(folder / "encoder")
    return folder


@pytest.fixture(scope="module", params=["local", "s3"])
def root(request: pytest.FixtureRequest, world: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where everything lies: a folder, or a URI with the same files."""
    if request.param == "local":
        return str(shutil.copytree(world, tmp_path_factory.mktemp("local") / "world"))
    uri = f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"
    put_folder(world, uri)
    return uri


def call(*arguments: str) -> dict:
    """Run a command in this process, which has the Ray; its result is all that it writes to stdout."""
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(output.fileno(), 1)
        try:
            app([*arguments, "--json"], standalone_mode=False)
        finally:
            sys.stdout.flush()
            os.dup2(saved, 1)
            os.close(saved)
        output.seek(0)
        return json.loads(output.read())


def train(root: str, *settings: str) -> dict:
    fixed = (f"model.encoder={root}/encoder", f"data.contexts={root}/contexts", f"run.storage={root}/runs")
    more = (f"optim.epochs={EPOCHS}", "run.checkpoint_steps=2", "data.cache=null", "optim.batch_sentences=8")
    options = [part for setting in (*fixed, *more, *settings) for part in ("--set", setting)]
    return call("train", f"{root}/train.conll", "--dev", f"{root}/dev.conll", "--test", f"{root}/test.conll", *options)


@pytest.fixture(scope="module")
def done(root: str) -> dict:
    """Results of each command."""
    files = [part for split in ("train", "dev", "test") for part in ("--set", f"data.{split}={root}/{split}.conll")]
    index = call("index", "--corpus", f"{root}/corpus.jsonl", "--out", f"{root}/index", "--shards", "2")
    retrieved = call("retrieve", "--index", f"{root}/index", "--out", f"{root}/contexts", *files)
    trained = train(root, "run.name=first")
    model = trained["model"]
    evaluated = call("evaluate", model)
    looking = ("--view", "context", "--index", f"{root}/index")
    tagged = call("tag", f"{root}/posts.jsonl", f"{root}/tagged", "--model", model, "--to", "jsonl", *looking)
    return {"index": index, "retrieved": retrieved, "trained": trained, "evaluated": evaluated, "tagged": tagged}


RESULTS: dict[str, list] = {}


def test_all_commands_do_the_same_as_on_local_paths(root: str, done: dict) -> None:
    assert done["index"]["num_documents"] == sum(done["index"]["shard_documents"])
    assert (done["retrieved"]["sentences"], done["retrieved"]["errors"]) == (64, 0)
    assert (done["tagged"]["documents"], done["tagged"]["errors"]) == (9, 0)
    rows = [json.loads(line) for line in (Path(local(f"{root}/tagged/tagged.jsonl"))).read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"d{number}" for number in range(9)]
    scores = {view: each["micro"]["num_correct"] for view, each in done["evaluated"]["scores"].items()}
    found = [[[(each["start"], each["type"]) for each in row["entities"]] for row in rows], scores]
    assert RESULTS.setdefault("all", found) == found


def test_nothing_but_results_is_left(root: str, done: dict) -> None:
    assert done["trained"]["run"] == f"{root}/runs/first"
    if root.startswith("s3://"):
        assert names_in(f"{root}/contexts") == ["_SUCCESS", "dev.parquet", "test.parquet", "train.parquet"]
        assert names_in(f"{root}/tagged") == ["_SUCCESS", "tagged.jsonl"]
        kept = {"config.json", "history.json", "model", "training.html", "tensorboard", "evaluation-test.html"}
        assert kept <= set(names_in(f"{root}/runs/first"))


def test_a_cut_run_goes_on_from_its_checkpoint_in_the_store(root: str, done: dict) -> None:
    if not root.startswith("s3://"):
        pytest.skip("tests/integration/test_train_faults.py has it for local paths")
    from ctxner.config import parse_config
    from ctxner.files.storage import read_bytes
    from ctxner.files.uris import path_or_uri
    from ctxner.training.checkpoints.resume import read_config

    first = path_or_uri(f"{root}/runs/first")
    config = read_config(first)
    assert str(config.data.contexts) == f"{root}/contexts"
    assert parse_config(config.model_dump(mode="json")) == config
    record = json.loads(read_bytes(first / "checkpoint_manager_snapshot.json", 1 << 20))
    newest = record["latest_checkpoint_result"]["checkpoint_dir_name"]
    assert json.loads(read_bytes(first / newest / "progress.json", 1 << 20))["epoch"] == EPOCHS
    remove(first / "model")
    resumed = train(root, "run.name=first", "run.resume=true")
    assert resumed["scores"] == done["trained"]["scores"]
    assert "config.json" in names_in(first / "model")


def test_a_store_that_is_silent_for_some_seconds_loses_no_row(server: S3Server, root: str, done: dict) -> None:
    if not root.startswith("s3://"):
        pytest.skip("only a store can be silent")
    arguments = ["tag", f"{root}/posts.jsonl", f"{root}/again", "--model", done["trained"]["model"], "--to", "jsonl"]
    ended = threading.Event()

    def disturb() -> None:
        while not ended.wait(4):
            with server.silent():
                ended.wait(3)

    thread = threading.Thread(target=disturb)
    thread.start()
    code: int | None = 0
    try:
        call(*arguments)
    except Exception as error:
        code = exit_code(error)
    finally:
        ended.set()
        thread.join()
    assert code in (0, TRY_AGAIN)
    assert call(*arguments)["documents"] == 9
    rows = [json.loads(line) for line in Path(local(f"{root}/again/tagged.jsonl")).read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"d{number}" for number in range(9)]
    assert os.environ["AWS_ENDPOINT_URL"] == server.url
