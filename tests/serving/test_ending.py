"""What `ctxner serve` has started, directly or not, so that nothing of it is left at its end."""

from __future__ import annotations

import os
import subprocess
import time

import psutil

from serving.ending import descendants


def test_descendants_are_those_that_psutil_lists():
    process = subprocess.Popen(["sh", "-c", "sh -c 'sleep 300 & wait' & wait"])
    try:
        until = time.monotonic() + 20
        while len(psutil.Process(process.pid).children(recursive=True)) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        listed = {each.pid for each in psutil.Process(process.pid).children(recursive=True)}
        assert len(listed) == 2
        assert set(descendants(process.pid)) == listed
        assert listed | {process.pid} <= set(descendants(os.getpid()))
    finally:
        for pid in [process.pid, *descendants(process.pid)]:
            os.kill(pid, 9)
        process.wait()
    assert not descendants(process.pid)
