"""Expected latencies, and how long what waits will take."""

from __future__ import annotations

import time

import pytest

from serving.latency import Latency, Load

pytestmark = pytest.mark.numeric


def test_expected_latency_covers_most_of_what_was_seen_and_follows_a_change():
    latency = Latency()
    assert latency.expected(1) == 0
    for number in range(200):
        latency.add(1, 0.010 if number % 2 else 0.014)
    assert 0.014 < latency.expected(1) < 0.025
    assert latency.expected(64) > latency.expected(1)
    for _ in range(60):
        latency.add(1, 0.1)
    assert 0.1 <= latency.expected(1) < 0.15
    for number in range(40):
        latency.add(1, 3.0 + number % 3)
    assert latency.expected(1) > 4
    for _ in range(6):  # the queue has gone
        latency.add(1, 0.07)
    assert 0.07 < latency.expected(1) < 0.5


def test_load_knows_how_long_what_waits_will_take(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    load = Load()
    assert load.seconds(100) == 0
    for _ in range(50):  # 100 words in 0.2 s, with pauses that do not count
        load.start(100)
        now[0] += 0.2
        load.end(100)
        now[0] += 5
    load.start(300)
    assert load.seconds(200) == pytest.approx(1.0, rel=0.01)
