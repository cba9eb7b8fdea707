"""The priority of a model's thread in a replica."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serving.replicas.shared import model_thread
from serving.settings import ServeSettings


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere priorities are of whole processes")
def test_a_models_thread_gives_way_to_the_event_loop() -> None:
    import torch

    before = os.getpriority(os.PRIO_PROCESS, 0)  # who = 0 means the calling thread, on Linux
    with model_thread(ServeSettings(model="m", threads=2)) as thread:
        inside, num = thread.submit(lambda: (os.getpriority(os.PRIO_PROCESS, 0), torch.get_num_threads())).result()
    assert inside == max(before, 10)
    assert num == 2
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere priorities are of whole processes")
def test_a_server_of_a_low_priority_keeps_it() -> None:
    """Only root may raise a priority: a replica started at niceness 15 would not have come up."""
    code = (
        "import os, torch; os.nice(15)\n"
        "from serving.replicas.shared import model_thread; from serving.settings import ServeSettings\n"
        "os.getuid() or os.setuid(65534)\n"
        "print(model_thread(ServeSettings(model='m')).submit(os.getpriority, os.PRIO_PROCESS, 0).result())"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert int(ended.stdout.split()[-1]) >= 15, ended.stderr
