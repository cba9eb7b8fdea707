"""Whether `ctxner tag` stays as fast and as small as it began: sentences a second and the driver's memory, by tenths.

`python -m tests.benchmarks.tag_growth [DOCUMENTS]` (default 1,000,000: the sentences of WNUT-17 and BC5CDR, each a
document, again and again) tags in the plain view with a small untrained encoder (2 layers, width 64), prints a JSON
line and draws `docs/figures/tagging.svg`. Memory is the driver's resident memory, in MiB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow.parquet as pq

from tests.benchmarks.bench_tag import sentences

PLOT = Path(__file__).parents[2] / "docs" / "figures" / "tagging.svg"
_MIB = 2**20
_SAMPLE_SECONDS = 2.0


class _Sample(NamedTuple):
    time: float
    num_done: int
    mib: float


def main(number: int) -> None:
    """Measure, print, draw."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_small_model(folder / "model")
        with (folder / "in.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"words": own.words}) + "\n" for own in islice(cycle(sentences(20_000)), number))
        samples, result = _run(folder, number)
    tenths = _tenths(samples, number)
    joining = result["seconds"] - result["staging_seconds"] - result["tagging_seconds"]
    line = {
        "documents": number,
        "seconds": result["seconds"],
        "staging_seconds": result["staging_seconds"],
        "joining_seconds": round(joining, 1),
        "sentences_per_second_by_tenth": [round(rate) for rate, _ in tenths],
        "driver_mib_by_tenth": [round(mib) for _, mib in tenths],
        "driver_peak_mib": round(max(own.mib for own in samples)),
    }
    print(json.dumps(line))
    plot(tenths, PLOT)


def save_small_model(folder: Path) -> None:
    """An untrained tagger on the packaged tokenizer."""
    import torch
    from transformers import AutoModel, BertConfig

    from ctxner.encoders import load_encoder, load_tokenizer, packaged_encoder
    from ctxner.labels import LabelSet
    from ctxner.model.tagger import EncoderCRF
    from ctxner.predictor import Tagger

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
    AutoModel.from_config(BertConfig(**sizes)).save_pretrained(folder / "encoder")
    model = EncoderCRF.on_encoder(load_encoder(str(folder / "encoder")), LabelSet(("person", "place")))
    with torch.no_grad():
        model.head.bias[0] += 1.0
    Tagger(model, load_tokenizer(packaged_encoder())).save_pretrained(folder)


def _run(folder: Path, number: int) -> tuple[list[_Sample], dict[str, Any]]:
    command = [sys.executable, "-m", "jobs", "tag", str(folder / "in.jsonl"), str(folder / "out"), "--json"]
    command += ["--model", str(folder / "model")]
    started, samples = time.perf_counter(), list[_Sample]()
    process = subprocess.Popen(command, stdout=(folder / "result.json").open("w"), stderr=subprocess.DEVNULL)
    driver, sizes = psutil.Process(process.pid), dict[str, int]()
    while process.poll() is None:
        for path in (folder / "out" / ".tagging" / "checkpoint").glob("*.parquet"):
            if path.name not in sizes and ".pending" not in path.name:
                try:
                    sizes[path.name] = pq.read_metadata(path).num_rows
                except OSError:  # the job has ended
                    continue
        try:
            mib = driver.memory_info().rss / _MIB
        except psutil.Error:
            break
        samples.append(_Sample(time.perf_counter() - started, sum(sizes.values()), mib))
        time.sleep(_SAMPLE_SECONDS)
    if process.wait():
        sys.exit(f"ctxner tag failed: {' '.join(command)}")
    result = json.loads((folder / "result.json").read_text())
    assert (result["documents"], result["errors"]) == (number, 0)
    return samples, result


def _tenths(samples: Sequence[_Sample], number: int) -> list[tuple[float, float]]:
    """Sentences a second and the driver's largest memory in each tenth of the documents."""
    first = next(own for own in samples if own.num_done)
    marks = [first]
    for tenth in range(1, 11):
        wanted = first.num_done + (number - first.num_done) * tenth / 10
        marks.append(next((own for own in samples if own.num_done >= wanted), samples[-1]))
    found = []
    for before, after in pairwise(marks):
        within = [own.mib for own in samples if before.time <= own.time <= after.time]
        found.append(((after.num_done - before.num_done) / (after.time - before.time), max(within)))
    return found


def plot(tenths: Sequence[tuple[float, float]], path: Path) -> None:
    """Bars of throughput and a line of memory, in colours that read well on light and dark pages."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ink, blue, violet = "#7d8590", "#2f81f7", "#a371f7"
    style = {"svg.hashsalt": "tagging", "font.size": 9, "axes.edgecolor": ink, "axes.labelcolor": ink}
    style |= {"xtick.color": ink, "ytick.color": ink, "text.color": ink}
    with rc_context(style):
        figure = Figure((7.2, 3.0), layout="constrained")
        axes = figure.subplots()
        memory = axes.twinx()
        numbers = range(1, len(tenths) + 1)
        bars = axes.bar(numbers, [rate for rate, _ in tenths], color=blue, width=0.7, label="sentences a second")
        [line] = memory.plot(numbers, [mib for _, mib in tenths], color=violet, marker="o", label="driver, MiB")
        axes.set(xlabel="tenth of the documents", ylabel="sentences a second", xticks=list(numbers))
        memory.set(ylabel="MiB of the driver", ylim=(0, 1.5 * max(mib for _, mib in tenths)))
        memory.yaxis.label.set_color(violet)
        for own in (axes, memory):
            own.spines["top"].set_visible(False)
        labels = ["sentences a second", "the driver's memory"]
        axes.legend([bars, line], labels, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.18))
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        figure.savefig(aside, format="svg", transparent=True, metadata={"Date": None})
        aside.rename(path)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
