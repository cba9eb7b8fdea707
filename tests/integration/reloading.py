"""SIGHUP for a server, what it says then, and a client that asks meanwhile and knows the answer."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from tests.serving.damage import Damage, a_folder, cut, emptied, with_field

REFUSED = "not reloaded, the old version goes on: "


def reload(pid: int, log: Path, wanted: str = REFUSED) -> str:
    """Send the signal; what the command says, once it says what is wanted."""
    end = time.monotonic() + 240
    while "ready after" not in log.read_text():  # some replicas may start later than /readyz says that it is ready
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
    before = len(log.read_text())
    os.kill(pid, signal.SIGHUP)
    end = time.monotonic() + 240
    while wanted not in (said := log.read_text()[before - 1 :]):
        assert time.monotonic() < end, said
        assert psutil.pid_exists(pid), said
        time.sleep(0.2)
    time.sleep(0.5)
    return log.read_text()[before - 1 :]


class Client(threading.Thread):
    """Asks the same again and again, the first text that is looked up; counts answers that are right, wrong or lost.

    An answer of the plain view that says why it is one (`deadline`, `overload`) counts as `plain` and must be right.
    """

    def __init__(self, port: int, texts: Iterable[str], key: str | None = None) -> None:
        super().__init__(daemon=True)
        self.counts, self._ended = Counter[str](), threading.Event()
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._url, self._headers = f"http://127.0.0.1:{port}/v1/tag", headers
        for self._text in texts:
            self._known = {json.dumps(views): answer for views, answer in map(self._answer, ("plain", "context"))}
            if '["context"]' in self._known:
                break
        assert '["context"]' in self._known, "no text of one sentence has passages"

    def run(self) -> None:
        """Ask until `end` is called."""
        while not self._ended.wait(0.1):
            try:
                views, answer = self._answer("context")
                self.counts["right" if self._known.get(json.dumps(views)) == answer else "wrong"] += 1
                self.counts["plain"] += views == ["plain"]
            except OSError as error:
                self.counts["lost"] += 1
                self.counts[f"status {getattr(error, 'code', 0)}"] += 1

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()
        self.join()

    def _answer(self, view: str) -> tuple[list[str], Any]:
        """The views, and what must not change: versions and entities."""
        body = json.dumps({"texts": [self._text], "view": view}).encode()
        request = urllib.request.Request(self._url, body, self._headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            tree = json.load(answer)
        views = [sentence["view"] for result in tree["results"] for sentence in result["sentences"]]
        return views, (tree["versions"]["model"], [result["entities"] for result in tree["results"]])


def drills(folder: Path) -> list[tuple[str, Damage]]:
    """30 damages of a folder with `model` and `index`: each file cut, emptied and of another type, and bad fields."""
    shard = folder / "index" / "v000001" / "shard-000"
    files = ["model/config.json", "model/model.safetensors", "model/tokenizer.json", "model/tokenizer_config.json"]
    files += ["index/CURRENT", "index/v000001/manifest.json"]
    files += [str(min(shard.glob(pattern)).relative_to(folder)) for pattern in ("segments_*", "_*")]
    fields: dict[str, tuple[Damage, ...]] = {
        "model/config.json": (
            with_field("types", None),
            with_field("encoder.hidden_size", 10**9),
            with_field("types", ["person", "place", "extra"]),
        ),
        "index/v000001/manifest.json": (
            with_field("num_documents", None),
            with_field("num_shards", 10**9),
            with_field("shard_documents", "many"),
        ),
    }
    pairs = [(name, damage) for name in files for damage in (cut, emptied, a_folder)]
    return pairs + [(name, damage) for name, damages in fields.items() for damage in damages]
