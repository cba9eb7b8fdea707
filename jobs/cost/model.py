"""Time and bytes of a stage on hosts of a kind: work / parallelism + serial part + start-up. Nothing is measured here.

    seconds = start + driver + scan + max(cpu, network, storage)

Work that all cores share is divided by them; what the driver does, or every worker does for every unit, is not. CPUs,
the network and the shared storage work at the same time, so the slowest of them counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobs.cost.files import Costs, HostKind, StageCost

GIB = 2**30
GPU_USED = 0.4  # share of a GPU's peak that an encoder reaches: assumed, nothing was measured on a GPU
MEMORY_USED = 0.9  # share of a host's memory that may be taken


@dataclass(frozen=True, slots=True)
class Fleet:
    """Hosts of one kind, with the workers that each of them runs.

    Attributes:
        kind: Kind of the hosts.
        hosts: Number of hosts.
        workers: Workers of one thread per host.
        storage_gbit: Of the shared storage, per second, to all hosts together.
        ray_cores: Cores of each host that Ray's own processes keep busy.
        shared_cores: Cores that all hosts have together, where hosts are logical nodes of one machine.
    """

    kind: HostKind
    hosts: int
    workers: int
    storage_gbit: float
    ray_cores: float = 0
    shared_cores: float | None = None

    @property
    def cores(self) -> float:
        """Cores of the measured machine that the workers are worth."""
        cores = self.hosts * min(self.workers, self.kind.cores - self.ray_cores)
        if self.shared_cores is not None:
            cores = min(cores, self.shared_cores - self.hosts * self.ray_cores)
        return cores * self.kind.speed


@dataclass(frozen=True, slots=True)
class Row:
    """A stage on paper.

    Attributes:
        stage: Name in the file of costs.
        units: Number of units, with the name of the unit.
        seconds: Duration.
        parts: Seconds of `start`, `driver`, `scan`, `cpu` (or `gpu`), `network` and `storage`.
        read_bytes, written_bytes, sent_bytes: In all.
        held_bytes: On each host's disk.
        worker_bytes: Memory of one worker.
        driver_bytes: Memory of the driver beside its own.
        cpu_seconds: Of all cores together.
    """

    stage: str
    units: float
    unit: str
    seconds: float
    parts: dict[str, float]
    read_bytes: float = 0
    written_bytes: float = 0
    sent_bytes: float = 0
    held_bytes: float = 0
    worker_bytes: float = 0
    driver_bytes: float = 0
    cpu_seconds: float = 0

    @property
    def bound(self) -> str:
        """What the stage spends most time on."""
        return max(self.parts, key=lambda name: self.parts[name]) if self.seconds else "nothing"


def row(
    name: str,
    cost: StageCost,
    units: float,
    fleet: Fleet,
    *,
    passages: float = 0,
    flops: float = 0,
    sent_bytes: float | None = None,
) -> Row:
    """A stage over so many units.

    Args:
        name: Name of the stage.
        cost: Measured costs.
        units: Number of units.
        fleet: Hosts.
        passages: Passages of the index.
        flops: Operations of the encoder per unit.
        sent_bytes: Bytes between hosts per unit; None: those of the file.
    """
    cpu_s = cost.cpu_seconds(passages)
    on_gpus = bool(flops and fleet.kind.gpus)
    encoder_s = flops / (cost.encoder_gflops * 1e9) if cost.encoder_gflops and not on_gpus else 0
    sent = units * (cost.sent_bytes if sent_bytes is None else sent_bytes)
    readers = fleet.hosts * fleet.workers if cost.scan_s else 1  # what every worker scans, every worker reads
    read, written = readers * units * cost.read_bytes, units * cost.written_bytes
    held = passages * cost.copied_bytes
    network, storage = fleet.kind.network_gbit / 8 * 1e9, fleet.storage_gbit / 8 * 1e9
    each = {
        "cpu": units * (cpu_s + encoder_s) / fleet.cores,
        "network": (read + written + sent) / (fleet.hosts * network) + held / network,
        "storage": (read + written + fleet.hosts * held) / storage,
    }
    if on_gpus:
        each["gpu"] = units * flops / (fleet.hosts * fleet.kind.gpus * fleet.kind.gpu_tflops * 1e12 * GPU_USED)  # type: ignore[operator]
    serial = {"start": cost.start_s, "driver": units * cost.driver_s, "scan": units * cost.scan_s / fleet.kind.speed}
    serial["driver"] /= fleet.kind.speed
    return Row(
        stage=name,
        units=units,
        unit=cost.unit,
        seconds=sum(serial.values()) + max(each.values()),
        parts={name: seconds for name, seconds in {**serial, **each}.items() if seconds},
        read_bytes=read + fleet.hosts * held,
        written_bytes=written,
        sent_bytes=sent,
        held_bytes=held,
        worker_bytes=cost.worker_bytes,
        driver_bytes=units * cost.driver_bytes,
        cpu_seconds=units * (cpu_s + encoder_s + cost.driver_s + cost.scan_s * fleet.hosts * fleet.workers),
    )


@dataclass(frozen=True, slots=True)
class Job:
    """The stages of a job on paper; they follow each other, or share the same cores.

    Attributes:
        name: Name of the job.
        rows: Its stages.
        notes: What the figures leave out, or rest on.
    """

    name: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def total_seconds(jobs: Iterable[Job], costs: Costs) -> float:
    """Duration of all jobs, one after the other, with one start of Ray each."""
    return sum(costs.ray_start_s + sum(row.seconds for row in job.rows) for job in jobs)


def host_bytes(job: Job, fleet: Fleet, costs: Costs) -> float:
    """Memory of the host that has the driver too: each stage has its own workers; a mapped index counts whole."""
    workers = fleet.workers * sum(row.worker_bytes for row in job.rows)
    mapped = max((row.held_bytes for row in job.rows), default=0)
    return costs.ray_bytes + workers + mapped + driver_bytes(job, costs)


def driver_bytes(job: Job, costs: Costs) -> float:
    """Memory of the driver: its stages follow each other."""
    return costs.driver_bytes + max((row.driver_bytes for row in job.rows), default=0)


def fits(jobs: Iterable[Job], fleet: Fleet, costs: Costs) -> bool:
    """Whether each job fits into the memory of a host."""
    return all(host_bytes(job, fleet, costs) <= MEMORY_USED * fleet.kind.memory_gib * GIB for job in jobs)


def bound(jobs: Sequence[Job], fleet: Fleet, costs: Costs) -> str:
    """What bounds the jobs: memory when they do not fit, else what they spend most time on."""
    if not fits(jobs, fleet, costs):
        return "memory"
    longest = max((row for job in jobs for row in job.rows), key=lambda row: row.seconds)
    return longest.bound
