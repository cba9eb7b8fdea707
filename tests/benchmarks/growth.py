"""How speed and memory change with the number of passages searched and of sentences retrieved for.

`python -m tests.benchmarks.growth passages|sentences [SIZE ...] --out runs/growth.jsonl` measures; sizes that the file
has already are left out. `... plot --out runs/growth.jsonl` draws `docs/figures/growth.svg` from it.

    passages   An index of so many passages: build time, size on disk; queries a second of each query mode on one
               thread, memory of the searching process. 690,652 is the corpus `knowledge` as it is; other sizes take
               all corpora in turn, and then again with other names and numbers.
    sentences  `ctxner retrieve` on a Ray of this machine, `weighted` queries, no re-ranking: time, CPU time of all of
               Ray's processes, the driver's peak memory.

Memory is resident memory, in MiB. A searching process has the index mapped: what it has read counts as resident, but
the system may drop it; `anonymous` is what it needs itself, Java's heap included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import psutil

from ctxner.retrieval.search.query import QueryMode
from tests.benchmarks import texts

PASSAGES = (100_000, 690_652, 5_000_000)
SENTENCES = (10_000, 100_000, 1_000_000)
KNOWLEDGE = 690_652  # passages of that corpus
PLOT = Path(__file__).parents[2] / "docs" / "figures" / "growth.svg"
_MIB = 2**20
_WARM_UP = 4096  # sentences
_SEARCHED = 8192
_BATCH = 512
_SAMPLE_SECONDS = 0.5


def main() -> None:
    """Measure what is not in the file yet, or plot it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("passages", "sentences", "plot"))
    parser.add_argument("sizes", nargs="*", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/growth.jsonl"), help="file of JSON lines")
    given = parser.parse_args()
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.is_file() else []
    if given.what == "plot":
        from tests.benchmarks.growth_plot import plot

        plot(lines, PLOT)
        return
    measure = {"passages": measure_passages, "sentences": _measure_sentences}[given.what]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for size in given.sizes or {"passages": PASSAGES, "sentences": SENTENCES}[given.what]:
        if not any(line.get(given.what) == size for line in lines):
            with tempfile.TemporaryDirectory() as folder, given.out.open("a") as file:
                line = json.dumps(measure(size, Path(folder)))
                print(line, flush=True)
                file.write(line + "\n")


def measure_passages(size: int, folder: Path) -> dict[str, Any]:
    corpora = texts.CORPORA[-1:] if size == KNOWLEDGE else texts.CORPORA
    texts.write_passages(texts.passages(size, corpora), folder / "corpus.jsonl")
    line = {"passages": size, "build": _in_a_process(build, folder)}
    for mode in get_args(QueryMode):
        line[mode] = _in_a_process(search, folder, mode)
    return line


def build(folder: Path) -> dict[str, float]:
    """Build the index of `corpus.jsonl`."""
    from ctxner.retrieval.index.build import build_index

    manifest = build_index([folder / "corpus.jsonl"], folder / "index")
    size = sum(path.stat().st_size for path in (folder / "index").rglob("*") if path.is_file())
    return {"seconds": manifest.seconds, "index_mib": round(size / _MIB), **_memory()}


def search(folder: Path, mode: QueryMode) -> dict[str, float]:
    """Search for sentences on one thread."""
    from ctxner.config import RetrievalConfig
    from ctxner.retrieval.search.bm25 import BM25Searcher

    searcher, depth = BM25Searcher(folder / "index", query_mode=mode, num_threads=1), RetrievalConfig().depth
    sentences = list(texts.sentences(_WARM_UP + _SEARCHED))
    for start in range(0, len(sentences), _BATCH):
        if start == _WARM_UP:
            started, cpu_before = time.perf_counter(), time.process_time()
        searcher.search(sentences[start : start + _BATCH], depth=depth)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_before
    return {
        "queries_per_second": round(_SEARCHED / seconds, 1),
        "cpu_ms_a_query": round(1000 * cpu_seconds / _SEARCHED, 3),
        **_memory(),
        "heap_mib": _heap(),
    }


def _memory() -> dict[str, float]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kib = {name: int(status[name].split()[0]) for name in ("VmHWM", "RssAnon")}
    return {"peak_mib": round(kib["VmHWM"] / 1024), "anonymous_mib": round(kib["RssAnon"] / 1024)}


def _heap() -> float:
    """What lives in Java's heap."""
    from ctxner.retrieval.lucene.jvm import java_class

    java_class("java.lang.System").gc()
    own = java_class("java.lang.Runtime").getRuntime()
    return round((own.totalMemory() - own.freeMemory()) / _MIB)


def _measure_sentences(size: int, folder: Path) -> dict[str, Any]:
    texts.write_passages(texts.passages(119_209, texts.CORPORA[:1]), folder / "corpus.jsonl")
    _in_a_process(build, folder)
    texts.write_sentences(texts.sentences(size), folder / "sentences.jsonl")
    command = [sys.executable, "-m", "jobs", "retrieve", str(folder / "sentences.jsonl"), "--json"]
    command += ["--index", str(folder / "index"), "--out", str(folder / "contexts")]
    command += ["--set", "retrieval.rerank=false", "--set", "retrieval.query=weighted"]
    started, cpu_seconds, peak = time.perf_counter(), dict[int, float](), 0
    process = subprocess.Popen(command, stdout=(folder / "result.json").open("w"), stderr=subprocess.DEVNULL)
    driver = psutil.Process(process.pid)
    while process.poll() is None:
        cpu_seconds.update(_cpu_seconds([driver, *driver.children(recursive=True)]))
        peak = max(peak, _resident(driver))
        time.sleep(_SAMPLE_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"ctxner retrieve failed: {' '.join(command)}")
    result = json.loads((folder / "result.json").read_text())
    assert (result["sentences"], result["errors"]) == (size, 0)
    return {
        "sentences": size,
        "seconds": round(seconds, 1),
        "sentences_per_second": round(size / seconds, 1),
        "cpu_seconds": round(sum(cpu_seconds.values()), 1),
        "driver_peak_mib": round(peak / _MIB),
    }


def _cpu_seconds(processes: Iterable[psutil.Process]) -> Mapping[int, float]:
    found = {}
    for process in processes:
        try:
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
        except psutil.Error:  # gone meanwhile
            continue
    return found


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _in_a_process(function: Any, folder: Path, *arguments: str) -> dict[str, float]:
    call = f"print(json.dumps({function.__name__}(Path({str(folder)!r}), *{arguments!r})))"
    code = f"import json; from pathlib import Path; from {__spec__.name} import {function.__name__}; {call}"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
