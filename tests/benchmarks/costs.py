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

import dataclasses
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from ctxner.schema import Passage
from jobs.cost.files import COSTS
from tests.benchmarks import bench_tag, growth, staging_growth, texts

_PASSAGES = 100_000
_BUILT = (50_000, 200_000)
_SEARCHED = (100_000, growth.KNOWLEDGE, 5_000_000)
_STAGED = (200_000, 800_000)  # memory levels off at some 100,000 before it grows by the sentence
_TAGGED, _WARM_UP = 768, 256
_FOREIGN = 1000  # parts of which a reader reads one


def main(out: Path, parts: list[str]) -> None:
    """Measure the parts and write the file."""
    tree = yaml.safe_load((out if out.is_file() else COSTS).read_text())
    for part in parts:
        source = f"{part}-{datetime.date.today()}"
        load = os.getloadavg()[0]
        stages = _in_a_process(part)
        tree["sources"][source] = {
            "machine": f"{_model_name()}, {len(os.sched_getaffinity(0))} cores, {platform.system()}",
            "isa": _isa(),
            "date": str(datetime.date.today()),
            "commit": _commit(),
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


def index() -> dict[str, Any]:
    """Builds of two sizes, texts and entries in turn; per passage is the slope, without the start of Java."""
    small, large = (_build(size) for size in _BUILT)
    slope = {name: (large[name] - small[name]) / (_BUILT[1] - _BUILT[0]) for name in small}
    write = {
        "unit": "passage",
        "cpu_s": _rounded(slope["write"]),
        "scan_s": _rounded(slope["scan"]),
        "start_s": _rounded(max(0.0, small["write"] - slope["write"] * _BUILT[0])),
        "read_bytes": round(slope["read"]),
        "written_bytes": round(slope["written"]),
        "worker_bytes": round(small["memory"]),
    }
    check = {
        "unit": "passage",
        "driver_s": _rounded(slope["check"]),
        "driver_bytes": max(0, round(slope["memory"])),
    }
    return {"text": {"passage_bytes": round(slope["read"])}, "index.write": write, "index.check": check}


def _build(size: int) -> dict[str, float]:
    """CPU seconds, bytes and peak memory of one build, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.costs", "build", str(size)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return result


def build(size: int) -> dict[str, float]:
    """The figures of one build, in this process."""
    from ctxner.retrieval.corpus.reader import CorpusReader
    from ctxner.retrieval.index.build import build_index, write_shards_in_turn

    spent = dict[str, float]()

    def write(*arguments: Any) -> Any:
        started = time.process_time()
        written = write_shards_in_turn(*arguments)
        spent["write"] = time.process_time() - started
        return written

    with tempfile.TemporaryDirectory() as name:
        corpora = [Path(name, f"{kind}.jsonl") for kind in ("texts", "entries")]
        for path, kind in zip(corpora, (texts.CORPORA[0], texts.CORPORA[-1]), strict=True):
            texts.write_passages(_renamed(texts.passages(size // 2, [kind]), path.stem), path)
        started = time.process_time()
        for _ in CorpusReader(corpora, part=0, num_parts=_FOREIGN):
            pass
        scanned = time.process_time() - started
        started = time.process_time()
        build_index(corpora, Path(name, "index"), write_shards=write)
        built = time.process_time() - started
        written = sum(path.stat().st_size for path in Path(name, "index").rglob("*") if path.is_file())
        return {
            **spent,
            "scan": scanned,
            "check": built - spent["write"],
            "read": sum(path.stat().st_size for path in corpora),
            "written": written,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        }


def _renamed(passages: Iterable[Passage], name: str) -> Iterator[Passage]:
    return (dataclasses.replace(passage, id=f"{name}-{passage.id}") for passage in passages)


def search() -> dict[str, Any]:
    """CPU seconds per query by mode and size of the index."""
    lines = []
    for size in _SEARCHED:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(growth.measure_passages(size, Path(folder)))
    return of_growth(lines)


def of_growth(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Stages of lines that `tests.benchmarks.growth passages` made."""
    lines = sorted(lines, key=lambda line: int(line["passages"]))
    last, stages = lines[-1], {}
    for mode in ("entries", "mentions", "weighted", "bag"):
        stages[f"search.{mode}"] = {
            "unit": "sentence",
            "cpu_s_at": {line["passages"]: line[mode]["cpu_ms_a_query"] / 1000 for line in lines},
            "copied_bytes": round(last["build"]["index_mib"] * 2**20 / last["passages"]),
            "worker_bytes": max(line[mode]["anonymous_mib"] for line in lines) << 20,
        }
    return stages


def actors() -> dict[str, Any]:
    """Re-ranking and both views."""
    import torch

    from ctxner.config import parse_config
    from ctxner.predictor import Tagger
    from ctxner.retrieval.index.build import build_index
    from ctxner.retriever import Retriever, decided
    from ctxner.schema import Example
    from ctxner.training.estimate.memory import EncoderShape, ViewSize
    from ctxner.training.estimate.step_time import step_flops

    torch.set_num_threads(1)
    sentences = list(texts.sentences(_TAGGED + _WARM_UP))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts.write_passages(texts.passages(_PASSAGES, texts.CORPORA[:1]), folder / "corpus.jsonl")
        build_index([folder / "corpus.jsonl"], folder / "index")
        bench_tag.save_model(folder / "model")
        tagger = Tagger.from_pretrained(folder / "model")
        settings = parse_config({"retrieval": {"query": "mentions", "cache": None}}).retrieval
        retriever = Retriever(decided(settings), folder=folder / "index", num_threads=1)
        hits = [result.hits for result in retriever.search(sentences)]
        retriever.keep(sentences[:_WARM_UP], hits[:_WARM_UP])
        started = time.process_time()
        kept = retriever.keep(sentences[_WARM_UP:], hits[_WARM_UP:])
        reranked = (time.process_time() - started) / _TAGGED
    spent = _timed(tagger.model, "word_vectors")
    stages: dict[str, Any] = {"rerank": {"unit": "sentence", "cpu_s": _rounded(reranked)}}
    text: dict[str, Any] = {}
    examples = [Example(sentence, passages) for sentence, passages in zip(sentences[_WARM_UP:], kept, strict=True)]
    for view in ("plain", "context"):
        tagger.predict(examples[:_WARM_UP], view=view)
        spent[0], started = 0.0, time.process_time()
        tagger.predict(examples, view=view)
        total = time.process_time() - started
        of = {"plain": lambda example: tagger.views.plain(example.sentence), "context": tagger.views.context}[view]
        views = [of(example) for example in examples]
        shape = EncoderShape.of(tagger.model.encoder.config)
        flops = sum(
            step_flops(shape, [ViewSize(own.num_rows, own.longest_row, 0)], checkpointing=False) / 3 for own in views
        )
        text["pieces" if view == "plain" else "context_pieces"] = round(
            sum(own.num_rows * own.longest_row for own in views) / len(views), 1
        )
        stages[f"tag.{view}"] = {
            "unit": "sentence",
            "cpu_s": _rounded((total - spent[0]) / _TAGGED),
            "encoder_gflops": round(flops / spent[0] / 1e9, 1),
        }
    return {"text": text, **stages}


def driver() -> dict[str, Any]:
    """Staging and joining, by the slope between two sizes."""
    small, large = _STAGED
    figures: dict[str, list[tuple[float, float]]] = {}
    for size in _STAGED:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for part, work, arguments in _driver_parts(folder, size):
                seconds, _, peak = staging_growth.apart(staging_growth.with_memory, work, *arguments)
                figures.setdefault(part, []).append((seconds, peak))
    slopes = {
        part: [(after - before) / (large - small) for before, after in zip(*values, strict=True)]
        for part, values in figures.items()
    }
    return {
        name: {
            "unit": "sentence",
            "driver_s": _rounded(sum(slopes[part][0] for part in parts)),
            "driver_bytes": max(0, round(max(slopes[part][1] for part in parts) * 1e6)),
        }
        for name, parts in {
            "retrieve.stage": ("read", "stage"),
            "retrieve.join": ("publish",),
            "tag.stage": ("stage documents",),
            "tag.join": ("publish documents",),
        }.items()
    }


def _driver_parts(folder: Path, size: int) -> Iterator[tuple[str, Callable[..., float], tuple[Any, ...]]]:
    staging_growth.apart(staging_growth.write_file, folder, size)
    yield "read", staging_growth.read, (folder,)
    yield "stage", staging_growth.stage_synthetic, (folder, size)
    staging_growth.apart(staging_growth.write_rows, folder, size, "near")
    yield "publish", staging_growth.publish_rows, (folder, size)
    yield "stage documents", stage_documents, (folder,)
    staging_growth.apart(write_tagged, folder)
    yield "publish documents", publish_documents, (folder, size)


def stage_documents(folder: Path) -> float:
    """CPU seconds to stage the sentences of a file as documents."""
    from ctxner.batch import tagging_files
    from ctxner.files.documents import iter_documents

    started = time.process_time()
    tagging_files.stage_documents(iter_documents(folder / "some.jsonl"), folder / "tagged", {})
    return time.process_time() - started


def write_tagged(folder: Path) -> None:
    """Rows of all staged documents, each with one sentence and two entities."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ctxner.batch.tagging_files import job_path, tagged_schema

    job = job_path(folder / "tagged")
    entity = {"text": "word1 word2", "type": "person", "start": 0, "end": 11, "confidence": 0.9, "sentence": 0}
    sentence = {"start": 0, "end": 100, "view": "plain", "entropy": 0.5}
    for path in sorted((job / "inputs").glob("*.parquet")):
        rows = pq.read_table(path, columns=["position", "document", "start", "id", "text"]).to_pylist()
        made = [{**row, "entities": [entity, entity], "sentences": [sentence], "error": None} for row in rows]
        pq.write_table(pa.Table.from_pylist(made, schema=tagged_schema()), job / "rows" / path.name)


def publish_documents(folder: Path, size: int) -> float:
    """CPU seconds to join them."""
    from ctxner.batch import tagging_files
    from ctxner.batch.job_folder import JobFolder

    job = JobFolder(tagging_files.job_path(folder / "tagged"), size)
    started = time.process_time()
    tagging_files.publish_documents(job, folder / "tagged", ["parquet"])
    return time.process_time() - started


PARTS: dict[str, Callable[[], dict[str, Any]]] = {"index": index, "search": search, "actors": actors, "driver": driver}


def _timed(owner: Any, method: str) -> list[float]:
    """CPU seconds of a method, in a list of one."""
    inner, spent = getattr(owner, method), [0.0]

    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.process_time()
        made = inner(*arguments, **named)
        spent[0] += time.process_time() - started
        return made

    setattr(owner, method, timed)
    return spent


def _in_a_process(part: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.costs", "--part", part]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{part}:\n{done.stderr[-4000:]}")
    stages: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return stages


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _model_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _isa() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return " ".join(flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags) or "unknown"


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


_HEAD = """\
# Measured costs, for `ctxner cost` and `ctxner experiment plan`. Written by `make costs`; the keys are explained in
# jobs/cost/files.py. Seconds are of one core of the machine of the stage's source.
"""

if __name__ == "__main__":
    if sys.argv[1] == "build":
        print(json.dumps(build(int(sys.argv[2]))))
    elif sys.argv[1] == "--part":
        print(json.dumps(PARTS[sys.argv[2]]()))
    else:
        main(Path(sys.argv[1]), sys.argv[2:] or list(PARTS))
