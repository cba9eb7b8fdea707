"""What somebody outside of a cluster is told, and with which exit code, when a job cannot start or is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctxner.predictor import Tagger
from tests.integration.hosts.cluster import RayCluster, cluster
from tests.integration.hosts.jobs import assert_same_tags, num_done, tag_settings, write_files
from tests.integration.hosts.network import missing, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "")]

NUM_DOCUMENTS = 4000  # enough for `ray job stop`, which takes seconds, to find the job at work


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, tagger: Tagger, minilm: str) -> Iterator[RayCluster]:
    with cluster(2, tmp_path_factory.mktemp("hosts")) as ray:
        write_files(ray.network.files, num_documents=NUM_DOCUMENTS, tagger=tagger, tokenizer=minilm)
        yield ray


@pytest.mark.parametrize("given", [{"RAY_AUTH_TOKEN": "0" * 64}, {"HOME": "/nowhere"}, {"RAY_AUTH_MODE": "disabled"}])
def test_a_wrong_or_missing_token_is_refused(two: RayCluster, given: dict[str, str]) -> None:
    submission = two.submission("refused", "ctxner", "doctor")
    ended = two.network.outside.run(*submission, variables=given, check=False)
    said = ended.stdout + ended.stderr
    print(given, ended.returncode, said[-800:])
    assert ended.returncode == 1
    assert "token" in said
    assert two.token not in said


def test_a_file_that_is_not_there_is_wrong_input(two: RayCluster) -> None:
    files = two.network.files
    job = ["ctxner", "tag", files / "nowhere.jsonl", files / "out", "--model", files / "model"]
    ended = two.network.outside.run(*two.submission("missing", *job), check=False, timeout=300)
    assert ended.returncode == 1, "of `ray job submit`, whatever ended the job"
    assert two.ask("api/jobs/missing")["driver_exit_code"] == 2
    assert f"{files}/nowhere.jsonl" in ended.stdout
    assert "Traceback" not in ended.stdout


def test_a_stopped_job_goes_on_when_it_is_submitted_again(two: RayCluster, tmp_path: Path) -> None:
    files, outside = two.network.files, two.network.outside
    how = ["tag", files / "documents.jsonl"]
    two.result("whole", *how, files / "whole", *tag_settings(files, "plain"))
    command = ["ctxner", *how, files / "stopped", *tag_settings(files, "plain")]
    process = outside.start(*two.submission("stopped", *command), log=tmp_path / "log")
    wait_until(lambda: num_done(files / "stopped"), seconds=300, what="rows")
    outside.run("ray", "job", "stop", f"--address={two.dashboard}", "stopped", timeout=120)
    code = process.wait(120)
    job = two.ask("api/jobs/stopped")
    assert (code, job["status"], job["driver_exit_code"]) == (0, "STOPPED", None), "Ray counts it as intended"
    found = two.result("again", *how, files / "stopped", *tag_settings(files, "plain"))
    assert found["resumed_from"] > 0
    assert_same_tags(files / "stopped", files / "whole")
