"""How long answers take: of a group, estimated from its answers, and of the words in work at a router. No Ray here."""

from __future__ import annotations

import time

from serving.policy import POLICY

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


class Load:
    """Words in work at a router, and how fast they are done, to know what can be answered in time."""

    def __init__(self, half_life: float = POLICY.half_life_seconds) -> None:
        self.words, self._half_life = 0, half_life
        self._done = self._busy = 0.0
        self._since = 0.0

    def start(self, words: int) -> None:
        """They are handed to taggers."""
        self._account()
        self.words += words

    def end(self, words: int) -> None:
        """They are tagged, or given up."""
        self._account()
        self.words -= words
        self._done += words

    def seconds(self, words: int) -> float:
        """Until so many more words are done, behind those in work; 0 while nothing is known."""
        self._account()
        return (self.words + words) * self._busy / self._done if self._done else 0.0

    def _account(self) -> None:
        now = time.perf_counter()
        if self.words:
            passed = now - self._since
            keep = 0.5 ** (passed / self._half_life)
            self._busy = self._busy * keep + passed
            self._done *= keep
        self._since = now
