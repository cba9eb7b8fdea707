"""`ctxner serve` under attack, with HAProxy and without, and its end: what is in work is answered or told so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray")

from ctxner.predictor import Tagger  # noqa: E402
from tests.benchmarks.serving import free_port, served  # noqa: E402
from tests.integration.listening import assert_only_public  # noqa: E402
from tests.serving.streaming import Connection, line  # noqa: E402

WITHOUT_HAPROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0"}
DRAIN_SECONDS = 8
MARK = "CTXNER_TEST_SERVER"  # in the environment of every process that the server starts
BODY = {"texts": ["London"], "view": "plain"}
LINES = {"content-type": "application/x-ndjson"}
MIB = 1 << 20


@pytest.fixture(scope="module", params=["haproxy", "serve's proxy"])
def server(request: Any, tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Port and process of a server; the last test ends it."""
    folder = tmp_path_factory.mktemp("hostile")
    tagger.save_pretrained(folder / "model")
    options = ["--model", str(folder / "model"), "--set", f"limits.drain_seconds={DRAIN_SECONDS}"]
    options += ["--set", "limits.body_seconds=5", "--set", "limits.lines=1000000"]
    environment = WITHOUT_HAPROXY if request.param != "haproxy" else {}
    with served(*options, log=folder / "serve.log", environment={**environment, MARK: str(os.getpid())}) as found:
        yield found
    print(f"\n{(folder / 'serve.log').read_text()}")


def post(port: int, body: Any = BODY, seconds: float = 30) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/tag", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def marked() -> list[str]:
    """Command lines of the living processes that a server of this test has started, whoever their parent is now."""
    mark, lines = f"{MARK}={os.getpid()}".encode(), []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if mark in Path(f"/proc/{process.pid}/environ").read_bytes() and process.status() != psutil.STATUS_ZOMBIE:
                lines.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
    return lines


def alive(processes: list[psutil.Process]) -> list[str]:
    """Those that have not ended."""
    return [str(each) for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def memory(pid: int) -> int:
    """MiB of the server's processes."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total >> 20


def test_half_sent_requests_silence_nobody(server):
    """Before: 4,100 of them silenced the server for minutes."""
    port, _ = server
    attack = []
    for _ in range(4100):
        with contextlib.suppress(OSError):  # one too many of this address
            connection = socket.create_connection(("127.0.0.1", port))
            attack.append(connection)
            connection.send(b"POST /v1/tag HTTP/1.1\r\nhost: loc")
    started, status = time.monotonic(), 0
    while status != 200 and time.monotonic() < started + 40:  # headers may take 10 s; until then this address is full
        time.sleep(1)
        with contextlib.suppress(OSError):
            status = post(port)
    print(f"\nanswered after {time.monotonic() - started:.2f} s")
    assert status == 200
    time.sleep(max(0.0, started + 13 - time.monotonic()))
    closed = 0
    for connection in attack:
        connection.setblocking(False)
        try:
            while part := connection.recv(4096):
                assert b" 408 " in part or b" 400 " in part
            closed += 1
        except ConnectionError:
            closed += 1
        except BlockingIOError:
            pass
        connection.close()
    assert closed == len(attack)


def test_stalled_bodies_stop_nobody(server):
    """Before: 1,100 of them turned everything into 503."""
    port, _ = server
    head = b"POST /v1/tag HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
    attack = []
    for number in range(1100):  # from addresses that have a part of the connections each
        source = (f"127.0.0.{2 + number % 8}", 0)
        connection = socket.create_connection(("127.0.0.1", port), source_address=source)
        connection.send(head)
        attack.append(connection)
    assert [post(port) for _ in range(5)] == [200] * 5
    time.sleep(8)
    for connection in attack:
        connection.settimeout(10)
        assert b" 408 " in connection.recv(4096)
        connection.close()


def test_nothing_of_a_server_without_keys_is_open_on_addresses_that_others_reach(server):
    assert_only_public(server[1], set())


def test_a_refused_body_is_not_taken_to_its_end(server):
    """Before: 14 GB were taken in 10 s, for 7 s of CPU."""
    port, _ = server
    sent, part = 0, b"x" * (64 << 10)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(20)
        connection.sendall(b"POST /v1/nothing HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000000\r\n\r\n")
        with contextlib.suppress(OSError):
            while sent < 2000 * MIB:
                sent += connection.send(part)
        with contextlib.suppress(OSError):
            assert b" 404 " in connection.recv(4096)
    print(f"\n{sent / MIB:.1f} MiB were taken")
    assert sent < 100 * MIB
    assert post(port) == 200


@pytest.mark.parametrize("what", ["lines", "blank lines"])
def test_memory_does_not_grow_with_a_stream(server, what):
    """Before: 800 MiB were taken in 4 s, and 3 GiB more memory with blank lines."""
    port, pid = server
    part = (b'{"text": "London", "view": "plain"}\n' * 2000) if what == "lines" else b"\n" * (64 << 10)
    before, sent = memory(pid), 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(2)
        connection.send(
            b"POST /v1/tag/stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        until, most = time.monotonic() + 10, 0
        try:
            while sent < 800 * MIB and time.monotonic() < until:  # it does not read
                connection.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                sent += len(part)
                most = max(most, memory(pid)) if sent % (50 * len(part)) == 0 else most
        except OSError:
            pass
        most = max(most, memory(pid))
    print(f"\n{what}: {sent / MIB:.0f} MiB were taken, memory grew from {before} to {most} MiB")
    assert most - before < 60
    assert post(port) == 200


def test_invented_methods_and_paths_are_no_labels(server):
    """Before: 400 methods made 10,006 time series."""
    import ray

    port, _ = server

    async def ask() -> Counter[int]:
        async with httpx2.AsyncClient() as client:
            asked = [
                await client.request(f"BREW{number}", f"http://127.0.0.1:{port}/v1/p{number}") for number in range(400)
            ]
            assert all(set(answer.json()) == {"error", "message", "request_id"} for answer in asked)
            return Counter(answer.status_code for answer in asked)

    assert set(asyncio.run(ask())) <= {400, 404, 405}
    time.sleep(15)  # Ray exports every ten seconds
    assert ray  # the agents' ports are in its folder; they are asked directly, as Prometheus does
    text = "".join(exported())
    assert "serve_" in text
    assert not re.search(r'="(BREW|/v1/p)\d', text)


def exported() -> Iterator[str]:
    """The text of all metrics' agents on this machine."""
    for service in Path(f"/tmp/ctxner-{os.getuid()}/ray/session_latest").glob("prom_metrics_service_discovery.json"):
        for entry in json.loads(service.read_text()):
            for target in entry["targets"]:
                try:
                    with urllib.request.urlopen(f"http://{target}/metrics", timeout=20) as answer:
                        yield answer.read().decode()
                except OSError:
                    continue


def test_a_signal_lets_work_finish_and_streams_say_that_it_ends(server):
    """Before: the port closed at once, a request in work got no answer, a stream ended at 64 of 1,500 lines."""
    port, pid = server
    url = f"http://127.0.0.1:{port}"
    family = psutil.Process(pid).children(recursive=True)  # some replace their environment by their title
    assert len(family) > 15, "Ray has many processes"
    signalled = 0.0

    async def streamed() -> list[dict[str, Any]]:
        """The answers of a client that sends and reads at the same time."""
        connection = await Connection.to(url)

        async def send() -> None:
            with contextlib.suppress(ConnectionError):
                for number in range(100_000):
                    await connection.send(line(f"{number} London sings in Paris"))
                    await asyncio.sleep(0.01)

        sending, answers = asyncio.ensure_future(send()), []
        await connection.head()
        while not answers or answers[-1].get("code") != "draining":
            answers.append(await connection.line())
        sending.cancel()
        return answers

    async def ready(client: httpx2.AsyncClient) -> float:
        """Seconds from the signal until the server says that it is not ready, or does not answer any more."""
        while True:
            try:
                if (await client.get(f"{url}/readyz")).status_code == 503:
                    break
            except httpx2.HTTPError:
                break
            await asyncio.sleep(0.05)
        return time.monotonic() - signalled

    async def work() -> tuple[Counter[str], list[list[dict[str, Any]]], float]:
        nonlocal signalled
        async with httpx2.AsyncClient(timeout=60) as client:
            body = {"texts": ["London sings in Paris with many people . " * 20] * 5, "view": "plain"}
            streams = [asyncio.ensure_future(streamed()) for _ in range(2)]
            await asyncio.sleep(1)
            posts = [asyncio.ensure_future(client.post(f"{url}/v1/tag", json=body)) for _ in range(50)]
            await asyncio.sleep(0.3)
            os.kill(pid, signal.SIGTERM)
            signalled = time.monotonic()
            not_ready, counts = await ready(client), Counter[str]()
            for answer in await asyncio.gather(*posts, return_exceptions=True):
                if isinstance(answer, BaseException):
                    counts[type(answer).__name__] += 1
                    continue
                counts[str(answer.status_code) + ":" + answer.json().get("error", "")] += 1
            return counts, list(await asyncio.gather(*streams)), not_ready

    counts, streams, not_ready = asyncio.run(work())
    psutil.Process(pid).wait(DRAIN_SECONDS + 30)
    seconds, left = time.monotonic() - signalled, marked() + alive(family)
    print(
        f"\n{dict(counts)}, {[len(lines) for lines in streams]} lines, not ready after {not_ready:.2f} s, "
        f"ended after {seconds:.2f} s, left: {left}"
    )
    assert set(counts) <= {"200:", "503:draining", "503:overload"}
    assert sum(counts.values()) == 50
    assert counts["200:"], "what is in work is finished"
    for lines in streams:
        assert lines[-1]["code"] == "draining"
        assert len(lines) > 1
        assert {each.get("code") for each in lines[:-1]} <= {None, "overload"}
    assert not left
    assert not_ready < 2
    assert seconds < DRAIN_SECONDS + 2
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.parametrize("sign", ["Started Serve", "Token authentication"])
def test_a_signal_ends_a_server_that_starts_and_all_its_processes(tagger, tmp_path, sign):
    tagger.save_pretrained(tmp_path / "model")
    log = tmp_path / "serve.log"
    command = [sys.executable, "-m", "serving.cli", "serve", "--model", tmp_path / "model", "--port", str(free_port())]
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, env={**os.environ, MARK: str(os.getpid())})
    until = time.monotonic() + 120
    while sign not in log.read_text() and time.monotonic() < until:
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.wait(60)
    time.sleep(1)  # where Ray's own handler ends the driver, its processes end a moment later
    assert not marked() + alive(family)
    assert "Traceback" not in log.read_text()
