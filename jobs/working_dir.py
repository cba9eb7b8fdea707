"""What `ray job submit --working-dir` would upload, as Ray itself chooses it: code travels, data does not."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from jobs.console import size
from jobs.node_checks import Finding

MOST_BYTES = 100 << 20  # Ray's dashboard takes no larger package
_MANY_BYTES = 20 << 20  # code is smaller; each submission and each node copies it
_SHOWN = 5


def working_dir(folder: Path, most_bytes: int = MOST_BYTES) -> Finding:
    """Compare what would be uploaded with what Ray takes; names the largest entries.

    Args:
        folder: Folder that is to be given as `--working-dir`; its `.gitignore` and `.rayignore` count.
        most_bytes: Size that Ray takes.

    Raises:
        FileNotFoundError: No such folder.
    """
    from ray._private.runtime_env import packaging

    if not folder.is_dir():
        raise FileNotFoundError(f"--working-dir {folder}: no such folder")
    sizes = Counter[str]()

    def add(path: Path) -> None:
        if path.is_file():
            parts = path.relative_to(folder.absolute()).parts
            sizes["/".join(parts[:2]) + ("/" if len(parts) > 2 else "")] += path.stat().st_size

    quiet = logging.getLogger(f"{__name__}.ray")
    quiet.setLevel(logging.ERROR)
    packaging._dir_travel(folder.absolute(), [], add, include_gitignore=True, logger=quiet)
    num_bytes = sum(sizes.values())
    largest = ", ".join(f"{name} {size(num)}" for name, num in sizes.most_common(_SHOWN))
    found = f"{size(num_bytes)} would be uploaded; largest: {largest}" if sizes else "nothing would be uploaded"
    advice = (
        f"Ray takes {size(most_bytes)}: put corpora, indexes and models into the store and name them by URI, and "
        "list here in .rayignore what is no code"
    )
    status = "failure" if num_bytes >= most_bytes else "warning" if num_bytes >= _MANY_BYTES else "ok"
    return Finding(f"working dir {folder}", status, found, advice if status != "ok" else "")  # type: ignore[arg-type]
