"""Measures what `jobs/cost/costs.yaml` holds, on this machine: CPU seconds, bytes and memory per sentence and passage.

`python -m tests.benchmarks.costs OUT.yaml [PART ...]` (`make costs`) writes a file for `ctxner cost --costs OUT.yaml`.
Parts that are not named keep the figures of OUT.yaml, or of the project's own file when OUT.yaml is not there.

    index    a build, with the driver's part apart; the reading of a shard that has no line; bytes of an index
    search   every query mode over 100,000, 690,652 and 5 million passages, and how CPU time grows (takes long)
    actors   the jobs' own actors without Ray, one thread: re-ranking, both views; the encoder's share apart
    driver   what the driver does per sentence before and after Ray's part, and the memory that it takes

Figures are CPU seconds, so that other work on the machine counts little. The texts are the shared data, or an invented
world's where that is absent. Costs that come from whole jobs on Ray (`move`, memory of workers, starts) are kept: they
are measured by `tests.benchmarks.weak_scaling`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from jobs.cost.files import COSTS
from jobs.experiment.steps import commit, machine
from tests.benchmarks.costs.actors import actors
from tests.benchmarks.costs.driver import driver
from tests.benchmarks.costs.index import index, search

PARTS: dict[str, Callable[[], dict[str, Any]]] = {"index": index, "search": search, "actors": actors, "driver": driver}
_HEAD = """\
# Measured costs, for `ctxner cost` and `ctxner experiment plan`. Written by `make costs`; the keys are explained in
# jobs/cost/files.py. Seconds are of one core of the machine of the stage's source.
"""


def main(out: Path, parts: list[str]) -> None:
    """Measure the parts and write the file."""
    tree = yaml.safe_load((out if out.is_file() else COSTS).read_text())
    here = machine()
    for part in parts:
        source = f"{part}-{datetime.date.today()}"
        load = os.getloadavg()[0]
        stages = _in_a_process(part)
        tree["sources"][source] = {
            "machine": f"{here.cpu}, {here.cores} cores, {platform.system()}",
            "isa": here.isa,
            "date": str(datetime.date.today()),
            "commit": commit() or "unknown",
            "command": f"python -m tests.benchmarks.costs {out.name} {part}",
            "note": f"load average before: {load:.1f}",
        }
        for name, figures in stages.items():
            target = tree["text"] if name == "text" else tree["stages"].setdefault(name, {})
            target.update(figures, source=source)
    used = {each["source"] for each in (tree["text"], *tree["stages"].values())}
    tree["sources"] = {name: source for name, source in tree["sources"].items() if name in used}
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    aside.write_text(_HEAD + yaml.safe_dump(tree, sort_keys=False, width=120), encoding="utf-8")
    aside.rename(out)


def _in_a_process(part: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.costs", "--part", part]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{part}:\n{done.stderr[-4000:]}")
    stages: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return stages


if __name__ == "__main__":
    if sys.argv[1] == "--part":
        print(json.dumps(PARTS[sys.argv[2]]()))
    else:
        main(Path(sys.argv[1]), sys.argv[2:] or list(PARTS))
