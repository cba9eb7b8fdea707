"""The two files of `ctxner cost`: what was measured, and the hosts with prices that the user edits.

`jobs/cost/costs.yaml` is the only place of measured costs; `ctxner experiment plan` reads it too. `tests/benchmarks`
writes it anew (`make costs`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from jobs.yaml_files import Part, read_file

COSTS = Path(__file__).with_name("costs.yaml")
HOSTS = Path(__file__).with_name("hosts.yaml")


class Source(Part):
    """Where figures were measured."""

    machine: str
    isa: str
    date: str
    commit: str
    command: str
    note: str = ""


class StageCost(Part):
    """What a stage costs per unit; seconds are of one core of the machine of its source."""

    unit: str
    source: str
    cpu_s: NonNegativeFloat = 0  # CPU seconds that all workers share
    # The same by the number of passages in the index: between two of them and beyond the last by a power law
    cpu_s_at: dict[PositiveInt, PositiveFloat] = Field(default_factory=dict)
    encoder_gflops: PositiveFloat | None = None  # of one core in the encoder; its operations are counted beside cpu_s
    scan_s: NonNegativeFloat = 0  # seconds that every worker spends on every unit, however many workers there are
    driver_s: NonNegativeFloat = 0  # seconds of the driver, one thread: not shared
    start_s: NonNegativeFloat = 0  # seconds per job
    read_bytes: NonNegativeFloat = 0  # from shared storage
    written_bytes: NonNegativeFloat = 0  # to shared storage
    sent_bytes: NonNegativeFloat = 0  # between hosts
    copied_bytes: NonNegativeFloat = 0  # to each host, kept on its disk and read through its memory
    worker_bytes: NonNegativeFloat = 0  # memory of each worker
    driver_bytes: NonNegativeFloat = 0  # memory of the driver per unit

    def cpu_seconds(self, passages: float) -> float:
        """CPU seconds per unit with so many passages in the index; below the fewest that were measured as with them."""
        if not self.cpu_s_at:
            return self.cpu_s
        sizes = sorted(self.cpu_s_at)
        size = max(passages, sizes[0])
        high = bisect_left(sizes, size, lo=1, hi=len(sizes) - 1) if len(sizes) > 1 else 0
        low = max(0, high - 1)
        first, last = self.cpu_s_at[sizes[low]], self.cpu_s_at[sizes[high]]
        exponent = math.log(last / first) / math.log(sizes[high] / sizes[low]) if high else 0.0
        if size > sizes[high]:  # a larger index costs no less, whatever two measurements say
            return float(last * (size / sizes[high]) ** max(0.0, exponent))
        return float(first * (size / sizes[low]) ** exponent)


class Text(Part):
    """Sizes of the texts that were measured; `--pieces` and `--context-pieces` say others."""

    source: str
    sentence_bytes: PositiveFloat  # of a data file
    passage_bytes: PositiveFloat  # of an uncompressed corpus file
    corpus_file_bytes: PositiveFloat  # of a compressed one
    pieces: PositiveFloat  # of a sentence in the plain view
    context_pieces: PositiveFloat  # in the context view


class Costs(Part):
    """The file of measured costs."""

    sources: dict[str, Source]
    text: Text
    ray_start_s: NonNegativeFloat  # seconds until a Ray of this machine is up
    ray_cores: Annotated[float, Field(ge=0, lt=1)]  # cores of each host that Ray's own processes keep busy
    ray_bytes: NonNegativeFloat  # memory of Ray on each host, without its object store
    driver_bytes: NonNegativeFloat  # memory of a driver with nothing to do
    stages: dict[str, StageCost]

    @model_validator(mode="after")
    def _sources_exist(self) -> Costs:
        for name, each in {"text": self.text, **self.stages}.items():
            if each.source not in self.sources:  # type: ignore[attr-defined]
                known = ", ".join(self.sources)
                raise ValueError(f"{name}: source {each.source!r} is not among the sources ({known})")  # type: ignore[attr-defined]
        return self


class HostKind(Part):
    """A kind of host, and what an hour of it costs."""

    cores: PositiveInt  # physical ones: two hardware threads of a core count once
    speed: PositiveFloat = 1.0  # of a core, against that of the measured machine
    memory_gib: PositiveFloat
    network_gbit: PositiveFloat  # per second
    gpus: Annotated[int, Field(ge=0)] = 0
    gpu_tflops: PositiveFloat | None = None  # dense bfloat16 peak of one
    price: NonNegativeFloat  # per hour
    note: str = ""

    @model_validator(mode="after")
    def _gpus_have_a_speed(self) -> HostKind:
        if bool(self.gpus) != (self.gpu_tflops is not None):
            raise ValueError("gpus and gpu_tflops: give both or neither")
        return self


class Hosts(Part):
    """The file of hosts."""

    currency: str
    storage_gbit: PositiveFloat  # per second, of the shared storage, to all hosts together
    kinds: Annotated[dict[str, HostKind], Field(min_length=1)]

    def kind(self, name: str) -> HostKind:
        """A kind by its name; ValueError when there is none."""
        if name not in self.kinds:
            raise ValueError(f"--kind {name!r}: no such kind of host; there are {', '.join(self.kinds)}")
        return self.kinds[name]


def read_costs(path: Path = COSTS) -> Costs:
    """The measured costs; ValueError when the file is none of these."""
    return read_file(path, Costs)


def read_hosts(path: Path = HOSTS) -> Hosts:
    """The kinds of hosts; ValueError when the file is none of these."""
    return read_file(path, Hosts)
