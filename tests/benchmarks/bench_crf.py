"""The CRF against pytorch-crf: NLL forward and backward, and best paths; 32 sentences, 64 words, 25 tags.

Both run in one process in alternating rounds, so that another load on the machine slows both; the ratio is the median
of the rounds' ratios. Results are compared before anything is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torchcrf

from ctxner.model.crf import LinearChainCRF

# B batch, T words, L tags

NAMES = ["crf_nll", "crf_viterbi", "crf_nll_full", "crf_viterbi_full"]
_FLOORS = {"nll": 1.5, "viterbi": 2.0}
_BATCH, _WORDS, _TAGS = 32, 64, 25
_ROUNDS, _REPEATS = 25, 4


def main(names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield the figures asked for; `_full` ones have no padding, the others lengths from 1 to 64."""
    torch.manual_seed(0)
    ours, reference = LinearChainCRF(_TAGS), torchcrf.CRF(_TAGS, batch_first=True)
    reference.load_state_dict(ours.state_dict())
    emissions_BTL = 3 * torch.randn(_BATCH, _WORDS, _TAGS)
    tags_BT = torch.randint(_TAGS, (_BATCH, _WORDS))
    for name in names:
        kind = name.split("_")[1]
        lengths_B = torch.randint(1, _WORDS + 1, (_BATCH,)) if not name.endswith("_full") else torch.tensor([_WORDS])
        lengths_B[0] = _WORDS
        mask_BT = (torch.arange(_WORDS) < lengths_B.unsqueeze(1)).expand(_BATCH, _WORDS).contiguous()
        if kind == "nll":
            pair = _nll_pair(ours, reference, emissions_BTL, tags_BT, mask_BT)
        else:
            pair = _viterbi_pair(ours, reference, emissions_BTL, mask_BT)
        yield {"benchmark": name, "floor": _FLOORS[kind], "unit": "x", **_compare(*pair)}


def _nll_pair(
    ours: LinearChainCRF,
    reference: torchcrf.CRF,
    emissions_BTL: torch.Tensor,
    tags_BT: torch.Tensor,
    mask_BT: torch.Tensor,
) -> tuple[Callable[[], object], Callable[[], object]]:
    a_BTL, b_BTL = (emissions_BTL.clone().requires_grad_() for _ in range(2))
    a_leaves = [a_BTL, ours.start_transitions, ours.end_transitions, ours.transitions]
    b_leaves = [b_BTL, reference.start_transitions, reference.end_transitions, reference.transitions]

    def run_ours() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(ours.nll(a_BTL, tags_BT, mask_BT).sum(), a_leaves)

    def run_reference() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(-reference(b_BTL, tags_BT, mask_BT), b_leaves)

    torch.testing.assert_close(run_ours(), run_reference(), atol=2e-3, rtol=1e-3)
    return run_ours, run_reference


def _viterbi_pair(
    ours: LinearChainCRF, reference: torchcrf.CRF, emissions_BTL: torch.Tensor, mask_BT: torch.Tensor
) -> tuple[Callable[[], object], Callable[[], object]]:
    def run_ours() -> list[list[int]]:
        tags_BT, _ = ours.viterbi(emissions_BTL, mask_BT)
        return [row[:length] for row, length in zip(tags_BT.tolist(), mask_BT.sum(1).tolist(), strict=True)]

    def run_reference() -> list[list[int]]:
        return reference.decode(emissions_BTL, mask_BT)

    assert run_ours() == run_reference()
    return run_ours, run_reference


def _compare(ours: Callable[[], object], reference: Callable[[], object]) -> dict[str, float]:
    """Median milliseconds of one call of each, and the median of reference / ours."""
    times = [(_milliseconds(ours), _milliseconds(reference)) for _ in range(_ROUNDS)][2:]
    return {
        "ratio": round(statistics.median(b / a for a, b in times), 2),
        "ours": round(statistics.median(a for a, _ in times), 3),
        "reference": round(statistics.median(b for _, b in times), 3),
    }


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(_REPEATS):
        call()
    return (time.perf_counter() - start) * 1e3 / _REPEATS
