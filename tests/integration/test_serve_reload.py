"""30 damaged folders, each with a signal to reload, while a client asks: 30 times the old version goes on."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray")

from ctxner.demo import make_world  # noqa: E402
from ctxner.predictor import Tagger  # noqa: E402
from tests.benchmarks.serving import served  # noqa: E402
from tests.integration.built import write_served_folder  # noqa: E402
from tests.integration.reloading import REFUSED, Client, drills, reload  # noqa: E402

WORLD = make_world(num_train=8, num_dev=4, num_test=0)


@pytest.fixture(scope="module")
def folder(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and an index."""
    path = tmp_path_factory.mktemp("reloads")
    write_served_folder(path, WORLD, tagger)
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[tuple[int, int]]:
    options = ["--model", str(folder / "model"), "--index", str(folder / "index"), "--set", "retrieval.rerank=false"]
    with served(*options, log=folder / "serve.log") as port_and_pid:
        yield port_and_pid


def test_the_old_version_goes_on_30_times(server: tuple[int, int], folder: Path) -> None:
    """Before: about 20 kinds of damage ended the server; with them, every request was lost."""
    port, pid = server
    rows, all_drills = list[str](), drills(folder)
    reload(pid, folder / "serve.log", "\nrelease ")
    client = Client(port, (" ".join(sentence.words) for sentence in WORLD.train))
    client.start()
    for name, damage in all_drills:
        path, kept, before = folder / name, folder / "kept", client.counts.copy()
        shutil.copy(path, kept)
        damage(path)
        started = time.monotonic()
        try:
            said = reload(pid, folder / "serve.log").partition(REFUSED)[2].strip().replace(str(folder), "")
        finally:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.move(kept, path)
        counts = Counter(client.counts)
        counts.subtract(before)
        seconds = time.monotonic() - started
        rows.append(
            f"| {name}: {damage.__name__} | {' '.join(said.split())[:160]} | {seconds:.1f} | {counts['right']} "
            f"| {counts['wrong']} | {counts['lost']} |"
        )
        print(f"\n{rows[-1]}", end="", flush=True)
        assert path.name in said or path.parent.name in said, (name, said)
        assert psutil.pid_exists(pid)
    release = reload(pid, folder / "serve.log", "\nrelease ")
    client.end()
    print(f"\n{release.strip()}; {dict(client.counts)}")
    assert len(rows) == 30
    assert client.counts["right"] > 30
    assert not client.counts["wrong"] + client.counts["lost"], client.counts
