"""What tests of jobs and servers start from: a model and an index of an invented world."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ctxner.demo import World, write_world
from ctxner.predictor import Tagger


def build_index(folder: Path) -> None:
    """Index `corpus.jsonl` as `index`, in another process: no JVM starts in the test's."""
    build = [sys.executable, "-m", "jobs", "index", "--corpus", folder / "corpus.jsonl", "--out", folder / "index"]
    subprocess.run(build, check=True, capture_output=True)


def write_served_folder(folder: Path, world: World, tagger: Tagger) -> None:
    """Write the world, `model` and `index`."""
    write_world(world, folder)
    tagger.save_pretrained(folder / "model")
    build_index(folder)
