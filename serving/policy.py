"""The tuned numbers of routing and batching, each with its unit and the reason of its value.

Whether a deadline is too short, a group slow or down, or a request refused is decided by these. How many replicas there
are is Serve's (`serving.deployments`, serve.yaml); what a request may hold is `serving.settings.Limits`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """All of them; tests give others.

    Attributes:
        margin_seconds: Time before the deadline at which an answer is put together.
        patience_seconds: Time without any answer of the plain group after which another group is asked as well.
        late_share: Share of the deadline that an admitted plain answer may be late before it is a 503. With all of it,
            p99 at 150% load was 870 to 1,015 ms for a deadline of 500 ms.
        waited_share: Share of its deadline that a request may have to wait by what is known; above it is refused.
        explore_seconds: Limit of a look-up that nobody waits for, which only updates the latency estimates.
        asleep_seconds: Time without an answer after which a group may have been scaled to zero.
        half_life_seconds: Seconds of work in which the measured speed is half forgotten.
        retry_seconds: Time that a call waits for another replica when one has died.
        look_seconds: How often a waiting call looks whether its group is down.
        alive_seconds: Time in which a replica that is only slow says that it lives.
        stall_seconds: Time without any answer after which a group is asked whether it lives. The plain group is never
            asked: nobody can stand in for it.
        stall_seconds_per_sentence: The same per sentence of a call, before anything is known of a group.
        probe_seconds: Time that one call per group is left running after its deadline, to notice a fast group.
        skips_per_try: Every so many times that re-ranking seems too slow it is tried all the same.
        chunks_per_request: Chunks of a request that are in work at once: one computed, one waiting, one on its way.
        lines_per_stream: Lines of a stream that are in work at once.
        described_seconds: Age at which what replicas say of themselves is asked again.
        batch_sentences: Sentences searched or re-ranked together.
        chars_per_piece: Characters per piece, about; what is really in a forward pass is the tagger's to bound.
    """

    margin_seconds: float = 0.005
    patience_seconds: float = 0.5
    late_share: float = 0.5
    waited_share: float = 0.75
    explore_seconds: float = 30.0
    asleep_seconds: float = 10.0
    half_life_seconds: float = 5.0
    retry_seconds: float = 0.5
    look_seconds: float = 0.1
    alive_seconds: float = 1.0
    stall_seconds: float = 2.0
    stall_seconds_per_sentence: float = 0.2
    probe_seconds: float = 120.0
    skips_per_try: int = 16
    chunks_per_request: int = 3
    lines_per_stream: int = 64
    described_seconds: float = 5.0
    batch_sentences: int = 64
    chars_per_piece: int = 4


POLICY = Policy()
