"""The tuned numbers of routing and batching, each with its unit and its effect.

They decide whether a deadline is too short, a group is slow or down, or a request is refused. The number of replicas is
in `serving.deployments` and serve.yaml; the limits of a request are `serving.settings.Limits`.
"""

from __future__ import annotations

from dataclasses import dataclass

# Sentences by which replicas, and a new model or index before it serves, are checked
CHECKS = ("Marta Ilves moved from Tartu to Bergen .", "It rained .")


@dataclass(frozen=True, slots=True)
class Policy:
    """All tuned numbers; tests use other values.

    Attributes:
        margin_seconds: Time before the deadline that is kept for putting the answer together.
        patience_seconds: Time without any answer of the plain group after which the context group is asked as well.
        late_share: Share of the remaining time by which a plain answer may be late before the request gets a 503. With
            1 here and for waited_share, p99 at 150% load was 870 to 1,015 ms for a deadline of 500 ms.
        waited_share: Share of its deadline that a request may take by the estimate; above it the request is refused.
        explore_seconds: Time limit of calls that no request waits for: they update latency estimates or start replicas.
        asleep_seconds: Time without an answer after which a group may have been scaled to zero.
        half_life_seconds: Seconds of work after which a measured speed has half of its weight.
        retry_seconds: Time that a call waits for another replica after one has died.
        look_seconds: Interval at which a waiting call checks whether its group is down.
        alive_seconds: Time within which a slow replica must answer that it is alive; otherwise its group is down.
        stall_seconds: Time without any answer after which a group is asked whether it is alive. The plain group is
            never asked: requests always wait for it.
        stall_seconds_per_sentence: Time per sentence of a call that replaces stall_seconds where it is longer.
        probe_seconds: Time that one late call per group may keep running, to notice that the group has recovered.
        skips_per_try: Interval, counted in re-rankings that seem too slow, at which one is tried nevertheless.
        lines_per_stream: Lines of a stream that are in work at once.
        lines_at_once: Lines of a stream that came together and are answered together, at most; one by one, a line costs
            the router as much as the tagger.
        bytes_per_stream: Bytes of lines in work above which no further line of a stream is read.
        described_seconds: Age after which the router asks the replicas for their descriptions again.
        batch_sentences: Largest number of sentences that are searched or re-ranked in one batch.
        chars_per_piece: Approximate letters per piece; the tagger bounds the exact size of a forward pass.
        passage_pieces: Pieces of passages that are read beside a sentence, at most.
        free_pieces: Pieces that an idle router takes even if it seems too slow for them, to measure its speed again.
        turn_seconds: Work at the replicas at once, in seconds by the measured speed; all other work waits at the
            router. A sentence waits about so long for others' work. With less than a call takes, replicas are idle
            between calls, the measured speed falls, and with it the work at the replicas.
        turn_pieces: The same in pieces, at least: smaller batches are slow.
        large_share: Share of turn_seconds that streams and requests of several chunks may fill while others come.
        quiet_seconds: Time since the last request of one chunk after which they may fill all of it.
        streams_weight: Part of a caller's turns that its streams get while requests wait, in proportion to these.
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
    lines_per_stream: int = 64
    lines_at_once: int = 32
    bytes_per_stream: int = 1 << 20
    described_seconds: float = 5.0
    batch_sentences: int = 64
    chars_per_piece: int = 4
    passage_pieces: int = 512
    free_pieces: int = 2048
    turn_seconds: float = 0.4
    turn_pieces: int = 512
    large_share: float = 0.25
    quiet_seconds: float = 5.0
    streams_weight: float = 0.0625


POLICY = Policy()
