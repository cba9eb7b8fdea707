"""Every shell and Python block of README and docs runs, on the demo's files; `tests/test_docs.py` checks the words.

A block that cannot run here follows a comment `<!-- not run: reason -->`. Blocks of a page run in order, in one folder;
Python blocks see what earlier ones of the page defined. A block that is only `ctxner serve ...` stays up until the page
ends. CTXNER_DEMO_FOLDER=DIR takes the finished demo in DIR/runs/demo in place of running one.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "cluster" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
ELSEWHERE = {"start.md"}  # runs in tests/integration/test_start.py, on its own files
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\n+)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
CONFIG = """
data: {train: runs/demo/world/train.conll, dev: runs/demo/world/dev.conll, test: runs/demo/world/test.conll,
       contexts: runs/contexts, cache: runs/views}
index: {corpus: [corpus.jsonl.gz], folder: runs/index}
retrieval: {depth: 2, keep: 2}
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its place, language, code, and why it is not run, if so."""

    place: str
    language: str
    code: str
    reason: str | None


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            f"{page.name}:{text.count(chr(10), 0, fence.start('code'))}",
            fence["language"],
            fence["code"],
            fence["reason"],
        )
        for fence in FENCE.finditer(text)
    ]


def runs(page: Path) -> bool:
    return page.name not in ELSEWHERE and any(block.reason is None for block in blocks_of(page))


def test_every_block_is_run_or_says_why_not():
    for page in PAGES:
        blocks = blocks_of(page)
        assert 2 * len(blocks) == len(re.findall(r"(?m)^\s*```", page.read_text())), f"{page.name}: an indented fence"
        for block in blocks:
            assert block.reason or block.language in {"bash", "python"}, f"{block.place}: neither run nor marked"


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> Path:
    """What the pages assume: a finished demo, posts, books, a corpus and a config."""
    folder = tmp_path_factory.mktemp("docs")
    if finished := os.environ.get("CTXNER_DEMO_FOLDER"):
        shutil.copytree(Path(finished) / "runs", folder / "runs")
    else:
        _run(["ctxner", "demo", "--json"], folder)
    corpus = (folder / "runs/demo/world/corpus.jsonl").read_bytes()
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus))
    (folder / "config.yaml").write_text(CONFIG)
    for name in ("posts", "books"):
        (folder / name).mkdir()
    (folder / "posts" / "a.jsonl.gz").write_bytes(gzip.compress(b'{"id": "a", "text": "We met in Velmora."}\n'))
    (folder / "books" / "one.txt").write_text("Marta Ilves moved to Velmora. It rained.\n")
    return folder


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    "page", [page for page in PAGES if runs(page) and page.name not in ELSEWHERE], ids=lambda page: page.name
)
def test_every_block_of_the_page_runs(page, demo_folder):
    port, python, server = _free_port(), "", None
    try:
        for block in blocks_of(page):
            code = block.code.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
            if block.reason is not None:
                continue
            if block.language == "python":
                python += code
                _run([sys.executable, "-c", python], demo_folder, block.place)
            elif code.startswith("ctxner serve "):
                server = _serve(code.partition("#")[0], port, demo_folder)
            else:
                _run(["bash", "-euo", "pipefail", "-c", code.replace("curl ", "curl -sSf ")], demo_folder, block.place)
    finally:
        if server is not None:
            server.terminate()
            server.wait(60)


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path}


def _run(command: list[str], folder: Path, place: str = "demo") -> None:
    ended = subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=900, check=False
    )
    assert ended.returncode == 0, (
        f"{place}: exit status {ended.returncode}\n{ended.stdout[-1000:]}{ended.stderr[-3000:]}"
    )


def _serve(command: str, port: int, folder: Path) -> subprocess.Popen[bytes]:
    """A started server that answers."""
    log = (folder / "serve.log").open("wb")
    words = [*command.split(), "--port", str(port)]
    server = subprocess.Popen(words, cwd=folder, env=_environment(), stdout=log, stderr=subprocess.STDOUT)
    for _ in range(240):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return server
        except OSError:
            assert server.poll() is None, (folder / "serve.log").read_text()[-3000:]
            time.sleep(1)
    server.terminate()
    raise AssertionError(f"{command}: not ready after four minutes\n{(folder / 'serve.log').read_text()[-3000:]}")


def _free_port() -> int:
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        return int(taker.getsockname()[1])
