"""Who may have how much work done: the room at a router, each key's share of it, and each key's rates.

Work is counted in pieces, estimated from the characters: the number of words says little, as one word may have
thousands of pieces.
"""

from __future__ import annotations

import hmac
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ctxner.schema import ScoredPassage
from serving.errors import RefusedError
from serving.policy import POLICY
from serving.settings import SHORTEST_KEY, ApiKey, Limits, hashed

# A digit, a sign, and a letter of East Asian scripts is a piece by itself. A piece of a word has about four letters;
# about two in words without sense, of which a hostile text may consist.
_LETTERS = r"[^\W\d_\u2e80-\U0010ffff]"
_PIECE, _SHORT_PIECE = (re.compile(rf"{_LETTERS}{{1,{num}}}|\S") for num in (POLICY.chars_per_piece, 2))


def most_pieces_of(words: Sequence[str]) -> int:
    """The number of pieces that a sentence may have, about; admission and rates count these."""
    return len(_SHORT_PIECE.findall(" ".join(words))) + 2


def pieces_of(words: Sequence[str]) -> int:
    """The number of pieces that a usual sentence has, about; batches count these."""
    return len(_PIECE.findall(" ".join(words))) + 2


def pieces_read(passages: Sequence[ScoredPassage]) -> int:
    """Approximate number of pieces of passages that are read beside a sentence, which the model's length bounds."""
    chars = sum(len(scored.passage.text) for scored in passages if scored.dropped is None)
    return min(chars // POLICY.chars_per_piece, POLICY.passage_pieces)


class Bucket:
    """What a caller may still use: at most that of one minute, refilled steadily."""

    def __init__(self, per_minute: int) -> None:
        self.most, self.left, self.since = float(per_minute), float(per_minute), time.monotonic()

    def take(self, num: int = 1) -> float:
        """Take so many and return 0, or return the seconds until they are available.

        More than that of one minute is taken from a full bucket, which is then empty for longer.
        """
        now = time.monotonic()
        self.left = min(self.most, self.left + (now - self.since) * self.most / 60)
        self.since = now
        if (lacking := min(num, self.most) - self.left) > 0:
            return lacking * 60 / self.most
        self.left -= num
        return 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who sends requests: a key's name and its rates; all None: there are no keys."""

    name: str | None = None
    requests: Bucket | None = None
    pieces: Bucket | None = None


class Callers:
    """The callers that have keys; without keys, everybody is one caller."""

    def __init__(self, keys: Sequence[ApiKey], limits: Limits) -> None:
        self.anyone = None if keys else Caller()
        self.num = max(1, len(keys))
        self._callers = [(key.sha256, _caller(key, limits)) for key in keys]

    def of(self, key: str) -> Caller | None:
        """The caller with this key; None: none has, or it is too short. All are compared, each in constant time."""
        digest = hashed(key)
        callers = [caller for sha256, caller in self._callers if hmac.compare_digest(sha256, digest)]
        return self.anyone or (next(iter(callers), None) if len(key) >= SHORTEST_KEY else None)


def _caller(key: ApiKey, limits: Limits) -> Caller:
    requests = key.requests_per_minute or limits.key_requests_per_minute
    pieces = key.pieces_per_minute or limits.key_pieces_per_minute
    return Caller(key.name, Bucket(requests) if requests else None, Bucket(pieces) if pieces else None)


class Room:
    """What may be in work or waiting at a router, in any unit, and each caller's share of it.

    With several callers, one may always have its part of one half of the room, and more while one half is free. So one
    caller never fills the room, whatever it sends.
    """

    def __init__(self, most: int, callers: int = 1) -> None:
        self.most, self.held = most, 0
        self._by_caller = Counter[str | None]()
        self._half = most if callers == 1 else most // 2
        self._part = most if callers == 1 else most // (2 * callers)

    def fits(self, caller: Caller, num: int) -> bool:
        """Whether the caller may have so much more."""
        return self._by_caller[caller.name] + num <= self._part or self.held + num <= self._half

    def is_too_much(self, num: int) -> bool:
        """Whether so much does not even fit into an empty room."""
        return num > self._half

    def enter(self, caller: Caller, num: int) -> None:
        """Take room; `leave` gives it back."""
        self.held += num
        self._by_caller[caller.name] += num

    def leave(self, caller: Caller, num: int) -> None:
        """Give room back."""
        self.held -= num
        self._by_caller[caller.name] -= num


def refuse_rate(seconds: float, what: str) -> None:
    """Refuse a request if its caller has to wait before it may have more.

    Raises:
        RefusedError: `seconds` is above 0.
    """
    if seconds > 0:
        raise RefusedError(429, "rate", f"this key's rate of {what} is exceeded", retry_after=seconds)
