"""Running commands in processes of their own, and listing what a folder holds before and after."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

Called = tuple[int, str, str]  # exit code, stdout, stderr


def call_apart(*arguments: object, stdin: str | None = None) -> Called:
    """Run a command in a process of its own, as what starts a JVM has to."""
    ended = subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout, ended.stderr


def listing(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}
