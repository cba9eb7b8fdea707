"""How long a group takes to answer, estimated from its answers; it knows neither Ray nor what is asked."""

from __future__ import annotations

_GAIN, _DEVIATION_GAIN, _DEVIATIONS = 1 / 8, 1 / 4, 4.0  # Jacobson's
_FAR_FASTER = 1 / 8  # of the estimate; a faster answer says that a queue has gone


class Latency:
    """How long a call of so many sentences takes at most, most of the time, in seconds.

    Mean plus four mean deviations, as TCP's retransmission time, by powers of two of the sentences. An answer that is
    far faster than that says that a queue has gone, and takes half of the estimate with it.

    Source: Jacobson, "Congestion avoidance and control" (1988).
    """

    def __init__(self) -> None:
        self._by_size: dict[int, tuple[float, float]] = {}

    def add(self, num: int, seconds: float) -> None:
        """A call took so long."""
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
        """0 while nothing is known; from the nearest size otherwise."""
        if not self._by_size:
            return 0.0
        size = num.bit_length()
        nearest = min(self._by_size, key=lambda known_size: abs(known_size - size))
        mean, deviation = self._by_size[nearest]
        return (mean + _DEVIATIONS * deviation) * 2.0 ** max(0, size - nearest)
