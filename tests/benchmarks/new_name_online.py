"""A new name reaches a server that is up: seconds of `ctxner index add`, and from `kill -HUP` to the first answer.

`python -m tests.benchmarks.new_name_online MODEL INDEX TEXT ENTRY`: a server with a copy of the index tags TEXT in the
context view; ENTRY, a line of a JSON-lines corpus, is added; the server is told by the signal and asked every 50 ms
until it has read the entry. One JSON object is printed. For the demo:

    python -m tests.benchmarks.new_name_online runs/demo/cl-kl/model runs/demo/index \
        "We still talk about Zorblax." '{"title": "Zorblax", "text": "Zorblax is a popular company.", "source": "news"}'
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ctxner.client import Client, Reply
from tests.benchmarks.serving import served

_MOST_SECONDS = 120


def main(model: str, index: str, text: str, entry: str) -> dict[str, object]:
    """Answers before and after, and the seconds between."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, new = Path(temporary, "index"), Path(temporary, "new.jsonl")
        shutil.copytree(index, folder)
        new.write_text(entry + "\n")
        options = ["--model", model, "--index", str(folder)]
        with served(*options, log=Path(temporary, "serve.log")) as (port, pid), Client(_url(port)) as client:
            before = client.tag([text], view="context")
            started = time.monotonic()
            add = [sys.executable, "-m", "jobs", "index", "add", "--corpus", str(new), "--index", str(folder)]
            subprocess.run(add, check=True, capture_output=True)
            added = time.monotonic()
            os.kill(pid, signal.SIGHUP)
            reply = client.tag([text], view="context")
            while reply.versions.index == before.versions.index and time.monotonic() < added + _MOST_SECONDS:
                time.sleep(0.05)
                reply = client.tag([text], view="context")
            return {
                "before": _entities(before),
                "after": _entities(reply),
                "index": [before.versions.index, reply.versions.index],
                "add_seconds": round(added - started, 1),
                "reload_seconds": round(time.monotonic() - added, 1),
            }


def _entities(reply: Reply) -> list[str]:
    return [f"{entity.text} = {entity.type} ({entity.confidence:.2f})" for entity in reply.results[0].entities]


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
