"""`ctxner doctor`: each finding says what is there, and what to do where that is not fine."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from jobs.doctor import compared, run
from jobs.node_checks import Finding, node_findings, storage, versions

STATUSES = ("ok", "warning", "failure")


def _of(check: str, storages: tuple[str, ...] = ()) -> list[Finding]:
    return [finding for finding in node_findings(storages)["findings"] if finding.check == check]


def test_this_machine_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    told = run()
    checks = [row["check"] for row in told["findings"]]
    assert {"Java", "memory", "working folder", "open files", "processor", "GPUs", "open ports"} <= set(checks)
    assert next(row["found"] for row in told["findings"] if row["check"] == "Java").startswith("openjdk version")
    assert sum(told["num"].values()) == len(checks)
    for row in told["findings"]:
        assert row["node"] == "here"
        assert row["status"] in STATUSES
        assert row["found"]
        assert row["status"] == "ok" or row["advice"], "what is not fine comes with advice"


def test_a_storage_is_written_read_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    [finding] = storage(str(tmp_path))
    assert (finding.status, finding.check) == ("ok", f"storage {tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("uri", ["odd://bucket/x", "/proc/ctxner"])
def test_a_storage_that_cannot_be_written_is_a_failure_with_its_reason(uri: str) -> None:
    [finding] = storage(uri)
    assert finding.status == "failure"
    assert "Error" in finding.found
    assert "reachable from this node" in finding.advice


def test_versions_and_clocks_of_nodes_are_compared() -> None:
    here, now = versions(), time.time()
    same = compared({"versions": here, "clock": now}, here, now - 1, now + 1)
    assert [finding.status for finding in same] == ["ok", "ok"]
    told = {"versions": {**here, "ray": "2.9.0"}, "clock": now + 30}
    other, clock = compared(told, here, now - 1, now + 1)
    assert (other.status, other.found) == ("failure", f"ray 2.9.0 (here {here['ray']})")
    assert (clock.status, clock.found) == ("warning", "29.0 s off")
    _, within = compared({"versions": here, "clock": now}, here, now - 60, now + 60)
    assert within.status == "ok", "a slow answer is no wrong clock"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="wants a second disk")
def test_the_disk_of_rays_folder_is_looked_at_wherever_it_is_mounted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as disk:
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        (tmp_path / "ray").symlink_to(disk)
        [finding] = _of("Ray's folder")
        assert finding.found.endswith(f" free of {shutil.disk_usage(disk).total / 2**30:.0f}")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are read from /proc")
@pytest.mark.parametrize("mode", [None, "token"])
def test_a_port_of_ray_that_others_reach_is_a_failure_unless_a_token_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, mode: str | None
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode) if mode else monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    code = (
        "import socket, sys; s = socket.create_server((sys.argv[1], 0));"
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    ports = {}
    processes = []
    for address in ("0.0.0.0", "127.0.0.1"):
        command = [sys.executable, "-c", code, address, "/x/ray/y"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        ports[address] = process.stdout.readline().strip()
    try:
        [finding] = _of("open ports")
    finally:
        for process in processes:
            process.kill()
    assert ports["127.0.0.1"] + " (" not in finding.found
    assert finding.status == ("ok" if mode else "failure")
    assert ports["0.0.0.0"] + " (" in finding.found or " more" in finding.found


def test_a_token_that_others_can_read_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    for mode, status in ((0o644, "failure"), (0o600, "ok")):
        path.chmod(mode)
        [finding] = _of("Ray's token")
        assert finding.status == status
        assert "secret" not in finding.found


def test_the_command_prints_findings_and_fails_where_something_will(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taker.getsockname()[1]}/x"
        ended = subprocess.run(
            [sys.executable, "-m", "jobs", "doctor", "--storage", uri, "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=tmp_path,
        )
    assert ended.returncode == 1, ended.stderr
    told = json.loads(ended.stdout)
    assert not told["ok"]
    assert [row["status"] for row in told["findings"] if row["check"] == f"storage {uri}"] == ["failure"]
    assert list(tmp_path.iterdir()) == []


def test_what_a_submission_would_upload_is_measured_as_ray_chooses_it(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from jobs.working_dir import working_dir

    (tmp_path / "code.py").write_text("print(1)")
    assert working_dir(tmp_path).status == "ok"
    for name in ("runs/index/shard.bin", "corpus.jsonl", "ignored.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with (tmp_path / name).open("wb") as file:
            file.truncate(3 << 30 if name == "corpus.jsonl" else 60 << 20)
    (tmp_path / ".rayignore").write_text("ignored.bin\n")
    found = working_dir(tmp_path)
    assert found.status == "failure"
    assert found.found.startswith("3.1 GiB would be uploaded; largest: corpus.jsonl 3.0 GiB, runs/index/ 60.0 MiB, ")
    assert "by URI" in found.advice
    assert ".rayignore" in found.advice
    (tmp_path / ".rayignore").write_text("*.bin\ncorpus.jsonl\n")
    assert working_dir(tmp_path).status == "ok"
    with pytest.raises(FileNotFoundError, match="no such folder"):
        working_dir(tmp_path / "absent")
