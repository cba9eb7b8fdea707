"""Computes sums over every tag path of a linear chain: log Z, its gradient, and posterior marginals.

Two implementations compute log Z. The fast one multiplies probabilities (Rabiner's scaling), both directions in one
batched product per word; it is exact while every number that matters stays in float64's range, which `rescale_interval`
checks beforehand. Otherwise the recursion runs in log space under autograd. Everything here is float64: autocast does
not change it, and 10,000 words add up without drift. Best paths are in `decoding`, the parameters in `crf`.

Source: Lafferty, McCallum and Pereira (2001); Rabiner (1989), section V.A, for the scaling.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

# B batch, T words, L tags, D directions (0 forward, 1 backward)

# Each direction may shrink to exp(-340); the product of both then stays a normal float64 number (above exp(-708)).
_MAX_LOG_RANGE = 340.0
_MAX_INTERVAL = 16
_MAX_MIXING_STEPS = 32  # with more steps, usual scores leave the range of the scaled recursion
_TINY = 1e-300  # replaces probability 0 before a logarithm

LegalTransitions = tuple[list[bool], list[list[bool]], list[bool]]  # starts, steps [from][to], ends


class Scores(NamedTuple):
    """A batch of chains: float64 (or float32 for best paths), time-major, constraints added, emissions 0 on padding.

    `interval` is the number of words that the scaled recursion may run between two rescalings; None: log space only.
    """

    emissions_TBL: Tensor
    start_L: Tensor
    transitions_LL: Tensor
    end_L: Tensor
    mask_TB: Tensor
    interval: int | None


class Posterior(NamedTuple):
    """Posterior distribution of a chain, without gradients.

    Attributes:
        log_z_B: Log of the summed path weights, in nats.
        unary_TBL: Probability of each tag at each word; 0 on padding.
        counts_BLL: Expected number of steps from each tag to each tag in the sentence.
    """

    log_z_B: Tensor
    unary_TBL: Tensor
    counts_BLL: Tensor


class _Messages(NamedTuple):
    """The probability of tags i, j at words t, t + 1 is `left[t, i] * step[i, j] * right[t + 1, j]`."""

    log_z_B: Tensor
    unary_TBL: Tensor
    left_TBL: Tensor
    step_LL: Tensor
    right_TBL: Tensor


def rescale_interval(
    *, emission_range: float, transition_range: float, edge_range: float, num_tags: int, mixing_steps: int | None
) -> int | None:
    """Number of words that the scaled recursion may run between rescalings; None if only log space is exact.

    Per word, an entry of a message changes by a factor of at most `exp(emission_range + transition_range) * num_tags`;
    two entries differ by at most `mixing_steps` of these factors, as every tag reaches every tag in that many steps.
    Ranges are max - min, in nats; if one is NaN the result is None, so that log space returns NaN instead of an error.
    """
    if mixing_steps is None:
        return None
    per_word = emission_range + transition_range + math.log(num_tags) + 1e-3
    room = (_MAX_LOG_RANGE - edge_range) / per_word - mixing_steps
    return min(int(room), _MAX_INTERVAL) if room >= 1 else None


def log_partition(scores: Scores) -> Tensor:
    """Log-sum of the scores of every tag path, [B]; differentiable once on the scaled path, twice in log space."""
    if scores.interval is None:
        return log_partition_in_log_space(scores)
    return _ScaledLogPartition.apply(*scores)


def log_partition_in_log_space(scores: Scores) -> Tensor:
    """Log Z by the textbook recursion, [B]; `transitions_LL` may also have a matrix per step, [T - 1, B, L, L]."""
    emissions_TBL, start_L, transitions, end_L, mask_TB, _ = scores
    num_words, batch, num_tags = emissions_TBL.shape
    steps_TBLL = transitions.expand(num_words - 1, batch, num_tags, num_tags)
    alpha_BL = start_L + emissions_TBL[0]
    for step_BLL, emission_BL, mask_B in zip(steps_TBLL, emissions_TBL[1:], mask_TB[1:], strict=True):
        next_BL = torch.logsumexp(alpha_BL.unsqueeze(2) + step_BLL, dim=1) + emission_BL
        alpha_BL = torch.where(mask_B.unsqueeze(1), next_BL, alpha_BL)
    return torch.logsumexp(alpha_BL + end_L, dim=1)


@torch.no_grad()
def posterior(scores: Scores) -> Posterior:
    """Marginals of every word and expected step counts of every sentence; no gradient flows into or out of it."""
    if scores.interval is None:
        log_z_B, unary_TBL, counts_1BLL = _posterior_in_log_space(scores, time_steps=1)
        return Posterior(log_z_B, unary_TBL, counts_1BLL.squeeze(0))
    messages = _messages(scores)
    left_BLT, right_BTL = messages.left_TBL[:-1].permute(1, 2, 0), messages.right_TBL[1:].transpose(0, 1)
    return Posterior(messages.log_z_B, messages.unary_TBL, messages.step_LL * (left_BLT @ right_BTL))


@torch.no_grad()
def pairwise(scores: Scores) -> Tensor:
    """Probability of each pair of tags at words t and t + 1, [T - 1, B, L, L]; 0 where t + 1 is padding."""
    if scores.interval is None:
        return _posterior_in_log_space(scores, time_steps=len(scores.mask_TB) - 1)[2]
    messages = _messages(scores)
    return messages.left_TBL[:-1].unsqueeze(3) * messages.step_LL * messages.right_TBL[1:].unsqueeze(2)


def expected_score(posterior: Posterior, scores: Scores) -> Tensor:
    """Mean of the path scores of `scores` under the distribution `posterior`, [B]; linear in `scores`."""
    last_TB1 = last_words(scores.mask_TB).unsqueeze(2)
    words_B = (posterior.unary_TBL * scores.emissions_TBL).sum((0, 2))
    steps_B = (posterior.counts_BLL * scores.transitions_LL).sum((1, 2))
    return (
        words_B
        + steps_B
        + posterior.unary_TBL[0] @ scores.start_L
        + (posterior.unary_TBL * last_TB1).sum(0) @ scores.end_L
    )


def path_log_probabilities(scores: Scores, tags_TB: Tensor) -> tuple[Tensor, Tensor]:
    """Log P(tag) of each word, and the running sum of log P(tag | previous tag), 0 at word 0; both [T, B], in nats."""
    num_tags, tags_TB1 = len(scores.start_L), tags_TB.unsqueeze(2)
    if scores.interval is None:
        _, unary_TBL, pairs_TBLL = _posterior_in_log_space(scores, time_steps=len(tags_TB) - 1)
        pair_TB1 = pairs_TBLL.flatten(2).gather(2, tags_TB1[:-1] * num_tags + tags_TB1[1:])
    else:  # gathers only the pairs on the path: all pairs would take L times the messages' memory
        _, unary_TBL, left_TBL, step_LL, right_TBL = _messages(scores)
        left_TB1, right_TB1 = left_TBL[:-1].gather(2, tags_TB1[:-1]), right_TBL[1:].gather(2, tags_TB1[1:])
        pair_TB1 = left_TB1 * step_LL[tags_TB1[:-1], tags_TB1[1:]] * right_TB1
    unary_TB, pair_TB = (x.squeeze(2).clamp_min(_TINY) for x in (unary_TBL.gather(2, tags_TB1), pair_TB1))
    conditional_TB = torch.zeros_like(unary_TB)
    conditional_TB[1:] = pair_TB.log() - unary_TB[:-1].log()
    return unary_TB.log(), conditional_TB.cumsum(0)


def log_unary(scores: Scores) -> Tensor:
    """Log-probability of each tag at each word, [T, B, L], differentiable; about -700 where a tag is impossible."""
    with torch.enable_grad():
        emissions_TBL = scores.emissions_TBL
        if not emissions_TBL.requires_grad:
            emissions_TBL = emissions_TBL.detach().requires_grad_()
        log_z_B = log_partition_in_log_space(scores._replace(emissions_TBL=emissions_TBL))
        unary_TBL = torch.autograd.grad(log_z_B.sum(), emissions_TBL, create_graph=True)[0]
    return log_probability(unary_TBL)


def log_probability(unary_TBL: Tensor) -> Tensor:
    """Logarithm of probabilities; about -700 for a probability of 0, without gradient."""
    return unary_TBL.clamp_min(_TINY).log()


def soften(log_p_TBL: Tensor, temperature: float) -> Tensor:
    """Log of each word's tag distribution with its log-probabilities divided by the temperature, normalised again.

    What is impossible (see `log_probability`) stays so at any temperature.
    """
    possible_TBL = log_p_TBL > math.log(_TINY) + 1e-6
    return torch.where(possible_TBL, log_p_TBL / temperature, log_p_TBL).log_softmax(2)


@torch.enable_grad()
def _posterior_in_log_space(scores: Scores, *, time_steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log Z, word marginals and step marginals by autograd; `time_steps` 1 sums steps over time, T - 1 keeps each."""
    emissions_TBL = scores.emissions_TBL.detach().requires_grad_()
    steps_TBLL = scores.transitions_LL.detach().repeat(time_steps, emissions_TBL.shape[1], 1, 1).requires_grad_()
    log_z_B = log_partition_in_log_space(scores._replace(emissions_TBL=emissions_TBL, transitions_LL=steps_TBLL))
    unary_TBL, counts_TBLL = torch.autograd.grad(
        log_z_B.sum(), (emissions_TBL, steps_TBLL), allow_unused=True, materialize_grads=True
    )
    return log_z_B.detach(), unary_TBL, counts_TBLL


@torch.no_grad()
def _messages(scores: Scores) -> _Messages:
    """Forward and backward messages by scaled products of probabilities.

    Each sentence is mirrored within its length, so that both messages start at word 0. Padding has weight 0, so a
    message becomes 0 after its sentence, and no step needs the mask.
    """
    emissions_TBL, start_L, transitions_LL, end_L, mask_TB, interval = scores
    assert interval is not None
    mask_TB1, lengths_B = mask_TB.unsqueeze(2).to(emissions_TBL.dtype), mask_TB.sum(0)
    highest, steepest = emissions_TBL.max(), transitions_LL.max()
    weight_TBL = (emissions_TBL - highest).exp_().mul_(mask_TB1)
    step_LL = (transitions_LL - steepest).exp_()
    mirror_N = _mirror(mask_TB, lengths_B)
    mirrored_TBL = weight_TBL.flatten(0, 1).index_select(0, mirror_N).view_as(weight_TBL)
    before_TDBL, scale_TDB1 = _propagate(
        torch.stack((weight_TBL, mirrored_TBL), 1),
        torch.stack(((start_L - start_L.max()).exp_(), (end_L - end_L.max()).exp_())),
        torch.stack((step_LL, step_LL.T)),
        interval,
    )
    beta_TBL = before_TDBL[:, 1].flatten(0, 1).index_select(0, mirror_N).view_as(weight_TBL)
    alpha_TBL = before_TDBL[:, 0] * weight_TBL
    joint_TBL = alpha_TBL * beta_TBL
    total_TB1 = joint_TBL.sum(2, keepdim=True).add_(1.0 - mask_TB1)
    log_scale_B = (scale_TDB1[:-1, 1, :, 0].log() * mask_TB[1:]).sum(0)
    offset_B = lengths_B * highest + (lengths_B - 1) * steepest + start_L.max() + end_L.max()
    return _Messages(
        total_TB1[0, :, 0].log() + log_scale_B + offset_B,
        joint_TBL.div_(total_TB1),
        alpha_TBL.div_(scale_TDB1[:, 0]),
        step_LL,
        beta_TBL.mul_(weight_TBL).div_(total_TB1),
    )


def _mirror(mask_TB: Tensor, lengths_B: Tensor) -> Tensor:
    """For each row of [T * B], the row of the word at the mirrored place in its sentence; padding stays in place."""
    num_words, batch = mask_TB.shape
    word_T1 = torch.arange(num_words, device=mask_TB.device).unsqueeze(1)
    other_TB = torch.where(mask_TB, lengths_B - 1 - word_T1, word_T1)
    return (other_TB * batch + torch.arange(batch, device=mask_TB.device)).flatten()


def _propagate(weight_TDBL: Tensor, enter_DL: Tensor, step_DLL: Tensor, interval: int) -> tuple[Tensor, Tensor]:
    """Both messages before each word's weight is applied, [T, D, B, L], and the divisors after it, [T, D, B, 1]."""
    before_TDBL = torch.empty_like(weight_TDBL)
    scale_TDB1 = torch.ones_like(weight_TDBL[..., :1])
    before_TDBL[0] = enter_DL.unsqueeze(1)
    message_DBL = before_TDBL[0] * weight_TDBL[0]
    rows = zip(before_TDBL[1:].unbind(), weight_TDBL[1:].unbind(), strict=True)
    for word, (before_DBL, weight_DBL) in enumerate(rows):
        if word % interval == interval - 1:
            top_DB1 = message_DBL.amax(2, keepdim=True)
            message_DBL /= scale_TDB1[word].copy_(top_DB1 + (top_DB1 == 0))
        torch.bmm(message_DBL, step_DLL, out=before_DBL)
        message_DBL = before_DBL * weight_DBL
    return before_TDBL, scale_TDB1


class _ScaledLogPartition(torch.autograd.Function):
    """Log Z with a gradient computed from the marginals, so that no autograd graph over the words is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        emissions_TBL: Tensor,
        start_L: Tensor,
        transitions_LL: Tensor,
        end_L: Tensor,
        mask_TB: Tensor,
        interval: int,
    ) -> Tensor:
        messages = _messages(Scores(emissions_TBL, start_L, transitions_LL, end_L, mask_TB, interval))
        ctx.save_for_backward(messages.unary_TBL, messages.left_TBL, messages.step_LL, messages.right_TBL, mask_TB)
        return messages.log_z_B

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_B: Tensor) -> tuple[Tensor | None, ...]:
        unary_TBL, left_TBL, step_LL, right_TBL, mask_TB = ctx.saved_tensors
        grad_TBL = unary_TBL * grad_B.unsqueeze(1)
        right_TBL = right_TBL[1:] * grad_B.unsqueeze(1)
        grad_LL = step_LL * (left_TBL[:-1].flatten(0, 1).T @ right_TBL.flatten(0, 1))
        last_TB1 = last_words(mask_TB).unsqueeze(2)
        return grad_TBL, grad_TBL[0].sum(0), grad_LL, (grad_TBL * last_TB1).sum((0, 1)), None, None


def last_words(mask_TB: Tensor) -> Tensor:
    """True at the last word of each sentence."""
    following_TB = torch.zeros_like(mask_TB)
    following_TB[:-1] = mask_TB[1:]
    return mask_TB & ~following_TB


def mixing_steps(legal_transitions: LegalTransitions) -> int | None:
    """Smallest number of legal steps that leads from any tag to any tag; None if there is none up to the maximum.

    Also None if sentences of some length have no legal path, because only log space can rank illegal paths.
    """
    start, matrix, end = (torch.tensor(part, dtype=torch.float32, device="cpu") for part in legal_transitions)
    reached, reach = start, torch.eye(len(start), device="cpu")
    for steps in range(_MAX_MIXING_STEPS + 1):
        if not (reached * end).any():
            return None
        if steps and reach.all():
            return steps
        reached, reach = (reached @ matrix).clamp(max=1), (reach @ matrix).clamp(max=1)
    return None
