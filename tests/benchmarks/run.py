"""Runs the benchmarks of this folder and prints one JSON line a figure.

`python -m tests.benchmarks.run [name]`, or `ONLY=name`: only figures of that name, or of the module `bench_name`. A
module has NAMES, the figures it can make, and `main(names)`, which yields those asked for as dicts with `benchmark`,
`ratio`, `floor`, `unit`, `ours` and `reference`. Exits 1 when a ratio is below its floor, 2 when nothing is called so.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path


def run(only: str | None) -> int:
    """Run what `only` names, everything when None; returns the exit code."""
    offered: list[str] = []
    ran, below = False, False
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        offered += module.NAMES
        wanted = [name for name in module.NAMES if only in (None, name, path.stem.removeprefix("bench_"))]
        for figure in module.main(wanted) if wanted else ():
            ok = figure["ratio"] >= figure["floor"]
            ran, below = True, below or not ok
            print(json.dumps({**figure, "ok": ok}), flush=True)
    if not ran:
        print(f"no benchmark is called {only!r}; there are {', '.join(offered)}", file=sys.stderr)
        return 2
    return int(below)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ONLY") or None))
