"""Time estimates: how long a group takes for a call, and a router for the pieces in work. Nothing here needs Ray."""

from __future__ import annotations

import time

from serving.policy import POLICY

_GAIN, _DEVIATION_GAIN, _DEVIATIONS = 1 / 8, 1 / 4, 4.0  # Jacobson's constants
_FAR_FASTER = 1 / 8  # share of the estimate; a faster answer shows that a queue has emptied


class Latency:
    """Estimates the seconds within which most calls end, by the number of sentences in the call.

    The estimate is the mean plus four mean deviations, as in TCP's retransmission timer, per power of two of the number
    of sentences. An answer that is far faster shows that a queue has emptied, and about halves the estimate.

    Source: Jacobson, "Congestion avoidance and control" (1988).
    """

    def __init__(self) -> None:
        self._by_size: dict[int, tuple[float, float]] = {}

    def add(self, num: int, seconds: float) -> None:
        """Add the duration of a call with `num` sentences."""
        size = num.bit_length()
        if size not in self._by_size:
            self._by_size[size] = seconds, seconds / 2
            return
        mean, deviation = self._by_size[size]
        if seconds < _FAR_FASTER * (mean + _DEVIATIONS * deviation):
            self._by_size[size] = (mean + seconds) / 2, deviation / 2
            return
        error = seconds - mean
        self._by_size[size] = mean + _GAIN * error, deviation + _DEVIATION_GAIN * (abs(error) - deviation)

    def expected(self, num: int) -> float:
        """Estimated seconds for `num` sentences, from the nearest size with measurements; 0 while there are none."""
        if not self._by_size:
            return 0.0
        size = num.bit_length()
        nearest = min(self._by_size, key=lambda known_size: abs(known_size - size))
        mean, deviation = self._by_size[nearest]
        return (mean + _DEVIATIONS * deviation) * 2.0 ** max(0, size - nearest)


class Load:
    """Pieces in work at a router and the speed of tagging, to estimate what can be answered in time."""

    def __init__(self, half_life: float = POLICY.half_life_seconds) -> None:
        self.pieces, self._half_life = 0, half_life
        self._done = self._busy = 0.0
        self._since = 0.0

    def start(self, pieces: int) -> None:
        """Add pieces whose tagging starts."""
        self._account()
        self.pieces += pieces

    def end(self, pieces: int) -> None:
        """Remove pieces that are tagged or given up."""
        self._account()
        self.pieces -= pieces
        self._done += pieces

    def seconds(self, pieces: int) -> float:
        """Seconds until `pieces` more pieces are done, after those in work; 0 while the speed is unknown."""
        self._account()
        return (self.pieces + pieces) * self._busy / self._done if self._done else 0.0

    @property
    def speed(self) -> float:
        """Pieces per second; 0 while it is unknown."""
        self._account()
        return self._done / self._busy if self._busy else 0.0

    def _account(self) -> None:
        now = time.perf_counter()
        if self.pieces:
            passed = now - self._since
            keep = 0.5 ** (passed / self._half_life)
            self._busy = self._busy * keep + passed
            self._done *= keep
        self._since = now
