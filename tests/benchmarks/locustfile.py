"""Load for a running server, with Locust (`make peers`); its table has the percentiles by view.

Closed loop, 16 clients, each with one request at a time:
  locust -f tests/benchmarks/locustfile.py --headless -H http://127.0.0.1:8000 -u 16 -r 16 -t 60s
Open loop, so many requests a second whatever becomes of them: 100 users, each with one request every 100/RATE seconds:
  RATE=50 locust -f tests/benchmarks/locustfile.py --headless -H http://127.0.0.1:8000 -u 100 -r 100 -t 60s

CTXNER_KEY is sent as the key, DEADLINE_MS as the deadline; VIEWS=plain,auto names the views, TEXTS a file with a text a
line.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from locust import FastHttpUser, constant, constant_throughput, task

_RATE, _USERS = os.environ.get("RATE"), 100
_VIEWS = os.environ.get("VIEWS", "plain,auto,context").split(",")
_TEXTS = (
    Path(os.environ["TEXTS"]).read_text(encoding="utf-8").splitlines()
    if "TEXTS" in os.environ
    else [f"Marta Ilves moved from Tartu to the Nordlys Institute in {year}." for year in range(1900, 2000)]
)
_HEADERS = {"X-API-Key": os.environ["CTXNER_KEY"]} if "CTXNER_KEY" in os.environ else {}


class Caller(FastHttpUser):
    """Asks for one text at a time."""

    wait_time = constant_throughput(float(_RATE) / _USERS) if _RATE else constant(0)

    @task
    def tag(self) -> None:
        """A request; 503 counts as a failure, with its own line in Locust's table."""
        view = random.choice(_VIEWS)
        body: dict[str, object] = {"texts": [random.choice(_TEXTS)], "view": view}
        if "DEADLINE_MS" in os.environ:
            body["deadline_ms"] = float(os.environ["DEADLINE_MS"])
        with self.client.post("/v1/tag", json=body, headers=_HEADERS, name=view, catch_response=True) as answer:
            if answer.status_code == 200:
                answer.success()
            else:
                answer.failure(str(answer.status_code))
