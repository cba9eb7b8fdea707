"""Whether work takes time in proportion to its size, on machines that do much else meanwhile."""

import gc
import time
from collections.abc import Callable

__all__ = ["assert_linear"]


def assert_linear(work: Callable[[int], object], size: int, runs: int = 3) -> None:
    """Fails where work(10 * size) takes far more than ten times the CPU time of work(size): quadratic work takes 100.

    The least of several runs counts, and the garbage collector rests: one full collection in a process that
    holds a test suite's objects takes half a second, which once made a linear parser look quadratic.
    """
    small, large = (min(_cpu_seconds(work, size) for _ in range(runs)) for size in (size, 10 * size))
    assert large < 35 * small + 0.05, f"{small:.3f} s of CPU for size {size:,}, {large:.3f} s for ten times as much"


def _cpu_seconds(work: Callable[[int], object], size: int) -> float:
    was_on = gc.isenabled()
    gc.disable()
    try:
        started = time.process_time()
        work(size)
        return time.process_time() - started
    finally:
        if was_on:
            gc.enable()
