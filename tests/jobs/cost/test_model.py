"""Time on paper: work / parallelism + serial part + start-up, checked by hand and by what must hold for any figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cost.files import HostKind, StageCost
from jobs.cost.model import Fleet, row

KIND = HostKind(cores=8, memory_gib=32, network_gbit=8, price=1)
FLEET = Fleet(KIND, hosts=2, workers=4, storage_gbit=8)
COST = StageCost(unit="sentence", source="x", cpu_s=0.008, driver_s=0.0001, start_s=30, read_bytes=1000)
COUNTS = st.integers(0, 10**9)


def test_a_stage_by_hand():
    """A million sentences of 8 ms on 8 cores: 1,000 s; 100 s of the driver; 30 s of start; 1 GB of reading hides."""
    made = row("search", COST, 10**6, FLEET)
    assert made.parts == pytest.approx({"start": 30, "driver": 100, "cpu": 1000, "network": 0.5, "storage": 1})
    assert made.seconds == pytest.approx(1130)
    assert (made.bound, made.read_bytes, made.cpu_seconds) == ("cpu", 10**9, pytest.approx(8100))


def test_an_encoder_by_hand():
    """2 GFLOP per sentence at 50 GFLOPS of a core are 40 ms; on two hosts with a GPU of 100 TFLOPS 25 microseconds."""
    cost = StageCost(unit="sentence", source="x", cpu_s=0.002, encoder_gflops=50)
    on_cpus = row("tag", cost, 1000, FLEET, flops=2e9)
    assert on_cpus.parts == pytest.approx({"cpu": 1000 * 0.042 / 8})
    on_gpus = row("tag", cost, 1000, replace(FLEET, kind=replace_kind(gpus=1, gpu_tflops=100)), flops=2e9)
    assert on_gpus.parts == pytest.approx({"cpu": 1000 * 0.002 / 8, "gpu": 1000 * 2e9 / (2 * 100e12 * 0.4)})


def test_a_copied_index_by_hand():
    """100 GB to each of two hosts at 1 GB/s: 100 s by their own network, 200 s by the storage that they share."""
    cost = StageCost(unit="sentence", source="x", cpu_s=1e-9, copied_bytes=100)
    made = row("search", cost, 1, FLEET, passages=10**9)
    assert (made.parts["network"], made.parts["storage"]) == (pytest.approx(100), pytest.approx(200))
    assert (made.held_bytes, made.read_bytes, made.bound) == (1e11, 2e11, "storage")


@pytest.mark.parametrize(
    ("passages", "seconds"),
    [(1, 1), (10**4, 1), (10**5, 3), (10**6, 9), (10**7, 18), (10**8, 36), (10**9, 72)],
)
def test_a_search_grows_with_the_index(passages, seconds):
    """Measured: 1 ms at 10,000, 9 at a million, 18 at ten million; twice as much for each ten times more from there."""
    cost = StageCost(unit="sentence", source="x", cpu_s_at={10**4: 0.001, 10**6: 0.009, 10**7: 0.018})
    assert row("search", cost, 8000, FLEET, passages=passages).parts["cpu"] == pytest.approx(seconds)


def test_a_search_beyond_what_was_measured_costs_no_less():
    cost = StageCost(unit="sentence", source="x", cpu_s_at={10**4: 0.002, 10**6: 0.001})
    assert [cost.cpu_seconds(size) for size in (10**4, 10**6, 10**9)] == [0.002, pytest.approx(0.001), 0.001]


def test_each_worker_reads_what_it_scans():
    cost = StageCost(unit="passage", source="x", scan_s=1e-6, read_bytes=100)
    made = row("index.write", cost, 10**6, FLEET)
    assert (made.read_bytes, made.parts["scan"]) == (8 * 10**8, pytest.approx(1))


@given(COUNTS, COUNTS)
def test_more_units_take_no_less_time(first, second):
    small, large = sorted((first, second))
    assert row("s", COST, small, FLEET).seconds <= row("s", COST, large, FLEET).seconds


@given(st.integers(1, 10**8), st.integers(1, 64), st.integers(1, 64))
def test_more_hosts_take_no_more_time_without_a_copied_index(units, first, second):
    few, many = sorted((first, second))
    slow, fast = (row("s", COST, units, replace(FLEET, hosts=hosts)).seconds for hosts in (few, many))
    assert fast <= slow


@given(COUNTS, COUNTS)
def test_units_add_up_but_for_the_start(first, second):
    whole = row("s", COST, first + second, FLEET).seconds
    halves = sum(row("s", COST, units, FLEET).seconds for units in (first, second))
    assert whole == pytest.approx(halves - COST.start_s)


def test_the_driver_bounds_when_hosts_are_many():
    """8 ms over 4 workers per host against 0.1 ms of the driver: equal with 20 hosts."""
    bounds = [row("s", COST, 10**7, replace(FLEET, hosts=hosts)).bound for hosts in (1, 19, 21, 64)]
    assert bounds == ["cpu", "cpu", "driver", "driver"]


def test_logical_nodes_share_the_machine():
    """Four nodes of one worker on two cores, each with a tenth of a core for Ray: 1.6 cores are left."""
    nodes = Fleet(replace_kind(cores=1), hosts=4, workers=1, storage_gbit=8, ray_cores=0.1, shared_cores=2)
    assert nodes.cores == pytest.approx(1.6)
    assert replace(nodes, hosts=1, kind=KIND).cores == 1


def test_idle_workers_are_no_cores():
    assert (FLEET.cores, replace(FLEET, workers=99).cores, replace(FLEET, kind=replace_kind(speed=2)).cores) == (
        8,
        16,
        16,
    )


def replace_kind(**values: float) -> HostKind:
    return HostKind(**{**KIND.model_dump(), **values})
