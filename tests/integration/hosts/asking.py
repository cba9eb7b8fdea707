"""Asks a server without pause until its standard input closes, and prints one JSON line per request.

`python -m tests.integration.hosts.asking URL [URL ...]`; the key is in ASKING_KEY. Run it on the host of the client.
Several clients ask at once; each one knows all addresses. A line has `at` and `seconds` (of the monotonic clock, which
all hosts share), the `text`, and its `entities` or an `error`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence

from ctxner.client import Client, ClientError

TEXTS = ("Marta Ilves moved to Tartu.", "The ship was built in Velmora.", "Paris Hilton sings in London.")
_NUM_CLIENTS = 4
_PAUSE_SECONDS = 0.1
_TIMEOUT_SECONDS = 30


def main(urls: Sequence[str]) -> None:
    """Ask until the input ends."""
    ended = threading.Event()
    threads = [threading.Thread(target=_ask, args=(urls, ended)) for _ in range(_NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()


def _ask(urls: Sequence[str], ended: threading.Event) -> None:
    number = 0
    with Client(urls, os.environ["ASKING_KEY"], timeout=_TIMEOUT_SECONDS) as client:
        while not ended.wait(_PAUSE_SECONDS):
            text, number, started = TEXTS[number % len(TEXTS)], number + 1, time.monotonic()
            line: dict[str, object] = {"text": text, "at": started}
            try:
                (result,) = client.tag(text, view="plain").results
                line["entities"] = [(entity.type, entity.start, entity.end) for entity in result.entities]
            except ClientError as error:
                line["error"] = str(error)
            sys.stdout.write(json.dumps(line | {"seconds": time.monotonic() - started}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
