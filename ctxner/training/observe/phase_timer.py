"""Measures a run's seconds per phase: data, forward, backward, communication, step, evaluation, checkpoint.

Communication is the averaging of gradients without ZeRO. ZeRO's communication counts in the phases that wait for it:
backward, step and, in stage 3, forward.
"""

from __future__ import annotations

import time
from collections import defaultdict

import torch

TRAINING_PHASES = ("data", "forward", "backward", "communication", "step")
PHASES = (*TRAINING_PHASES, "evaluation", "checkpoint")


class PhaseTimer:
    """A stopwatch with laps: `lap(phase)` adds the time since the previous lap to a phase.

    A GPU runs behind the Python code that feeds it, so a lap is exact only after a synchronize, which the steps with
    `exact` set do. `split` divides the time of all steps by the shares of those steps. On CPUs every step is exact.

    Args:
        device: Device of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.exact = device, device.type != "cuda"
        self._elapsed: defaultdict[str, float] = defaultdict(float)
        self._exact: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Add the time since the previous lap to `phase`."""
        if self.exact and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self._elapsed[phase] += now - self._last
        if self.exact:
            self._exact[phase] += now - self._last
        self._last = now

    def set_exact(self, exact: bool) -> None:
        """Choose whether the laps of the next step synchronize the GPU; on CPUs all laps are exact anyway."""
        if self.device.type != "cuda":
            return
        if exact:
            torch.cuda.synchronize(self.device)
        self.exact = exact

    def split(self) -> dict[str, float]:
        """Seconds of each phase since the previous split; their sum is the total time of all laps."""
        seconds_by_phase = dict(self._elapsed)
        exact = {phase: self._exact[phase] for phase in TRAINING_PHASES if phase in seconds_by_phase}
        if total := sum(exact.values()):
            elapsed = sum(seconds_by_phase[phase] for phase in exact)
            seconds_by_phase |= {phase: elapsed * seconds / total for phase, seconds in exact.items()}
        self._elapsed.clear()
        self._exact.clear()
        return {phase: seconds_by_phase[phase] for phase in PHASES if phase in seconds_by_phase}
