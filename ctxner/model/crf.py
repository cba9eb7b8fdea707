"""A linear-chain CRF: its parameters, its constraints, and every quantity that the losses and the predictor need.

Parameters have pytorch-crf's names and shapes, so both load the same state dicts, and NLL and best paths agree. That
package is the tests' oracle; it is too slow to be the base. Results are float32 for any input dtype and autocast state
(float64 for float64 input); sums over paths run in float64. The recursions are in `forward_backward` and `decoding`,
the losses in `losses`.

Source: Lafferty, McCallum and Pereira (2001).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ctxner.model import decoding, forward_backward
from ctxner.model.forward_backward import LegalTransitions, Scores

# B batch, T words, L tags, N paths or spans

# Least penalty added to the score of an illegal start, step or end. It is finite, so that a gold path that breaks the
# rules has a finite loss instead of NaN. With large scores it grows (see `_illegal_score`): no illegal path may win.
ILLEGAL_SCORE = -1e4


class LinearChainCRF(nn.Module):
    """CRF over right-padded batches of sentences.

    All methods take `emissions_BTL`, tag scores in nats, and `mask_BT`, True on words; its rows are right-padded and
    hold at least one word. Values on padding (even NaN) have no effect. The methods raise ValueError if a shape, the
    mask or a tag id is wrong.
    """

    def __init__(self, num_tags: int, *, legal_transitions: LegalTransitions | None = None) -> None:
        """Create a CRF with small random transitions.

        Args:
            num_tags: Number of tags L, at least 1.
            legal_transitions: Booleans of the tags that may begin a sentence [L], follow each other [from][to] and end
                a sentence [L]; None: all are legal. They are not part of the state dict.
        """
        super().__init__()
        if num_tags < 1:
            raise ValueError(f"a CRF over {num_tags} tags; give at least 1")
        self.num_tags = num_tags
        self.start_transitions = nn.Parameter(torch.empty(num_tags))
        self.end_transitions = nn.Parameter(torch.empty(num_tags))
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags))
        self.legal_transitions = legal_transitions
        self._mixing_steps: int | None = 1
        self.penalties: Tensor | None
        self.register_buffer("penalties", None, persistent=False)
        if legal_transitions is not None:
            self._constrain(legal_transitions)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every transition score uniformly from [-0.1, 0.1], as pytorch-crf does, and set the constraints.

        Hugging Face builds models without storage and then calls this; so tensors outside the state dict are set here.
        """
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)
        if self.legal_transitions is not None and self.penalties is not None:
            start, matrix, end = self.legal_transitions
            rows_KL = torch.tensor([start, *matrix, end], device=self.penalties.device)
            self.penalties.copy_(torch.where(rows_KL, 0.0, ILLEGAL_SCORE))

    def _constrain(self, legal_transitions: LegalTransitions) -> None:
        start, matrix, end = legal_transitions
        sizes = (len(start), len(matrix), {len(row) for row in matrix}, len(end))
        if sizes != (self.num_tags, self.num_tags, {self.num_tags}, self.num_tags):
            raise ValueError(
                f"legal_transitions have sizes {sizes}; wanted L, L, L and L with L = {self.num_tags} tags"
            )
        self._mixing_steps = forward_backward.mixing_steps(legal_transitions)
        self.register_buffer("penalties", torch.empty(self.num_tags + 2, self.num_tags), persistent=False)

    def log_partition(self, emissions_BTL: Tensor, mask_BT: Tensor) -> Tensor:
        """Log-sum of the scores of every tag path, [B], in nats (forward algorithm)."""
        log_z_B = forward_backward.log_partition(self._scores(emissions_BTL, mask_BT))
        return log_z_B.to(_result_dtype(emissions_BTL))

    def path_score(self, emissions_BTL: Tensor, tags_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Score of one tag path per sentence, [B], in nats; an illegal path scores about `ILLEGAL_SCORE` or less."""
        scores = self._scores(emissions_BTL, mask_BT)
        return decoding.path_score(scores, self._tags(tags_BT, mask_BT)).to(_result_dtype(emissions_BTL))

    def nll(self, emissions_BTL: Tensor, tags_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Negative log-probability of the tags, [B], in nats per sentence; not reduced."""
        scores, tags_TB = self._scores(emissions_BTL, mask_BT), self._tags(tags_BT, mask_BT)
        nll_B = forward_backward.log_partition(scores) - decoding.path_score(scores, tags_TB)
        return nll_B.to(_result_dtype(emissions_BTL))

    def marginals(self, emissions_BTL: Tensor, mask_BT: Tensor) -> Tensor:
        """Probability of each tag at each word, [B, T, L]; 0 on padding. No gradient."""
        posterior = forward_backward.posterior(self._scores(emissions_BTL, mask_BT))
        return posterior.unary_TBL.transpose(0, 1).to(_result_dtype(emissions_BTL))

    def pairwise_marginals(self, emissions_BTL: Tensor, mask_BT: Tensor) -> Tensor:
        """Probability of tags (i, j) at words (t, t + 1), [B, T - 1, L, L]; 0 where t + 1 is padding. No gradient."""
        pairs_TBLL = forward_backward.pairwise(self._scores(emissions_BTL, mask_BT))
        return pairs_TBLL.transpose(0, 1).to(_result_dtype(emissions_BTL))

    @torch.no_grad()
    def viterbi(self, emissions_BTL: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The best tags [B, T] (int64, 0 on padding; the lowest id wins a tie) and their score [B]."""
        # float32 finds pytorch-crf's paths; over long texts its rounding could pick a worse path, so these use float64.
        narrow = emissions_BTL.dtype != torch.float64 and mask_BT.shape[1] <= 512
        scores = self._scores(emissions_BTL, mask_BT, dtype=torch.float32 if narrow else torch.float64)
        tags_TB = decoding.best_path(scores)
        return tags_TB.T.contiguous(), decoding.path_score(scores, tags_TB).to(_result_dtype(emissions_BTL))

    @torch.no_grad()
    def n_best(self, emissions_BTL: Tensor, mask_BT: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """The `n` best distinct paths.

        Returns:
            Tags [B, N, T], best first, 0 on padding, and scores [B, N]. If a sentence has fewer than `n` paths, the
            other rows score -inf and their tags are meaningless; paths that break a constraint score about
            `ILLEGAL_SCORE` or less, and below all others.
        """
        if n < 1:
            raise ValueError(f"n_best wants at least 1 path, not {n}")
        tags_TBN, score_BN = decoding.best_paths(self._scores(emissions_BTL, mask_BT), n)
        return tags_TBN.permute(1, 2, 0).contiguous(), score_BN.to(_result_dtype(emissions_BTL))

    def margin(self, emissions_BTL: Tensor, mask_BT: Tensor) -> Tensor:
        """Score of the best path minus that of the second best, [B], in nats; inf if there is only one path."""
        _, score_B2 = self.n_best(emissions_BTL, mask_BT, 2)
        return score_B2[:, 0] - score_B2[:, 1]

    @torch.no_grad()
    def entropy(self, emissions_BTL: Tensor, mask_BT: Tensor) -> Tensor:
        """Entropy of the distribution over whole paths, [B], in nats: `log Z - E[score]`. No gradient."""
        scores = self._scores(emissions_BTL, mask_BT)
        posterior = forward_backward.posterior(scores)
        entropy_B = posterior.log_z_B - forward_backward.expected_score(posterior, scores)
        return entropy_B.clamp_min_(0.0).to(_result_dtype(emissions_BTL))

    @torch.no_grad()
    def segment_probability(
        self, emissions_BTL: Tensor, mask_BT: Tensor, tags_BT: Tensor, spans: Sequence[tuple[int, int, int]]
    ) -> Tensor:
        """Probability that words `start:end` of a sentence have exactly the tags in `tags_BT`, [N].

        The value is exact: the chain is Markov, so it is the first tag's marginal times the conditional of each next
        tag. With BIOES tags and constraints this is the probability of exactly that span and type.

        Args:
            emissions_BTL: Tag scores.
            mask_BT: True on words.
            tags_BT: One tag path per sentence, for example Viterbi's.
            spans: Row, start and end of each segment, end exclusive, within the sentence.
        """
        lengths = mask_BT.sum(1).tolist()
        for row, start, end in spans:
            if not (0 <= row < len(lengths) and 0 <= start < end <= lengths[row]):
                raise ValueError(f"segment (row {row}, words {start}:{end}) is not inside a batch of lengths {lengths}")
        scores, tags_TB = self._scores(emissions_BTL, mask_BT), self._tags(tags_BT, mask_BT)
        log_first_TB, log_next_TB = forward_backward.path_log_probabilities(scores, tags_TB)
        row_N, start_N, end_N = torch.tensor(spans, dtype=torch.long, device=mask_BT.device).reshape(-1, 3).unbind(1)
        log_p_N = log_first_TB[start_N, row_N] + log_next_TB[end_N - 1, row_N] - log_next_TB[start_N, row_N]
        return log_p_N.exp().to(_result_dtype(emissions_BTL))

    def kl(
        self, teacher_emissions_BTL: Tensor, student_emissions_BTL: Tensor, mask_BT: Tensor, *, temperature: float = 1.0
    ) -> Tensor:
        """KL(teacher || student) over whole paths, exactly, [B], in nats.

        With teacher p and student q it is `E_p[score_p - score_q] - log Z_p + log Z_q`; p's marginals give the mean.
        Both chains share the transitions. No gradient flows into the teacher's emissions or its use of the transitions.
        `temperature` divides every score of both chains; the result is not multiplied by its square here.
        """
        with torch.no_grad():
            teacher = self._scores(teacher_emissions_BTL, mask_BT, temperature)
            posterior = forward_backward.posterior(teacher)
            negative_entropy_B = forward_backward.expected_score(posterior, teacher) - posterior.log_z_B
        student = self._scores(student_emissions_BTL, mask_BT, temperature)
        cross_entropy_B = forward_backward.log_partition(student) - forward_backward.expected_score(posterior, student)
        return (negative_entropy_B + cross_entropy_B).to(_result_dtype(student_emissions_BTL))

    def marginal_kl(
        self, teacher_emissions_BTL: Tensor, student_emissions_BTL: Tensor, mask_BT: Tensor, *, temperature: float = 1.0
    ) -> Tensor:
        """Sum over words of KL(teacher's || student's tag marginals), [B], in nats; no gradient for the teacher.

        Unlike the sequence KL, it ignores how neighbouring tags depend on each other. The released code minimises it.
        With temperature T it compares `softmax(log p_t / T)`, where `p_t` are the marginals of word t in the chain at
        temperature 1: forward-backward comes first. The result is not multiplied by T squared here.
        """
        with torch.no_grad():
            teacher = self._scores(teacher_emissions_BTL, mask_BT)
            log_p_TBL = forward_backward.log_probability(forward_backward.posterior(teacher).unary_TBL)
        log_q_TBL = forward_backward.log_unary(self._scores(student_emissions_BTL, mask_BT))
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; wanted a positive number")
        if temperature != 1.0:
            log_p_TBL, log_q_TBL = (forward_backward.soften(x, temperature) for x in (log_p_TBL, log_q_TBL))
        return _summed_kl(log_p_TBL, log_q_TBL, teacher.mask_TB).to(_result_dtype(student_emissions_BTL))

    def marginal_chain_kl(
        self, teacher_emissions_BTL: Tensor, student_emissions_BTL: Tensor, mask_BT: Tensor, *, temperature: float = 1.0
    ) -> Tensor:
        """As `marginal_kl`, but the temperature divides every score of both chains before forward-backward.

        It compares the tag marginals of the chains at temperature T; at T = 1 both are the same.
        """
        with torch.no_grad():
            teacher = self._scores(teacher_emissions_BTL, mask_BT, temperature)
            log_p_TBL = forward_backward.log_probability(forward_backward.posterior(teacher).unary_TBL)
        log_q_TBL = forward_backward.log_unary(self._scores(student_emissions_BTL, mask_BT, temperature))
        return _summed_kl(log_p_TBL, log_q_TBL, teacher.mask_TB).to(_result_dtype(student_emissions_BTL))

    def _scores(
        self, emissions_BTL: Tensor, mask_BT: Tensor, temperature: float = 1.0, *, dtype: torch.dtype = torch.float64
    ) -> Scores:
        """Check the inputs and return the scores, time-major, with the constraints added."""
        self._check(emissions_BTL, mask_BT, temperature)
        mask_TB = mask_BT.T.contiguous()
        emissions_TBL = emissions_BTL.transpose(0, 1).to(dtype).masked_fill(~mask_TB.unsqueeze(2), 0.0)
        parameters = [self.start_transitions, self.transitions, self.end_transitions]
        start, steps, end = (x.to(dtype) for x in parameters)
        if temperature != 1.0:
            emissions_TBL, start, steps, end = (x / temperature for x in (emissions_TBL, start, steps, end))
        interval, illegal_score = self._bounds(mask_TB, emissions_TBL, steps, start, end)
        if self.penalties is not None:
            penalties = self.penalties.to(dtype)
            if illegal_score != ILLEGAL_SCORE:
                penalties = penalties * (illegal_score / ILLEGAL_SCORE)
            start, steps, end = start + penalties[0], steps + penalties[1:-1], end + penalties[-1]
        return Scores(emissions_TBL, start, steps, end, mask_TB, interval)

    def _check(self, emissions_BTL: Tensor, mask_BT: Tensor, temperature: float) -> None:
        shape, mask_shape = tuple(emissions_BTL.shape), tuple(mask_BT.shape)
        if len(shape) != 3 or shape[2] != self.num_tags:
            raise ValueError(f"emissions have shape {shape}; wanted [batch, words, {self.num_tags} tags]")
        if 0 in shape:
            raise ValueError(
                f"emissions have shape {shape}: no sentence, or sentences without words; wanted at least one"
            )
        if mask_shape != shape[:2] or mask_BT.dtype != torch.bool:
            raise ValueError(
                f"mask has shape {mask_shape}, {mask_BT.dtype}; wanted {shape[:2]}, bool, as the emissions"
            )
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; wanted a positive number")

    @torch.no_grad()
    def _bounds(self, mask_TB: Tensor, *parts: Tensor) -> tuple[int | None, float]:
        """Rescaling interval of the scaled recursion and penalty of illegal transitions, from the scores' ranges.

        The same host transfer also checks the mask's contents.
        """
        broken_TB = mask_TB.clone()  # True at word 0 of a sentence without words, and at words after padding
        broken_TB[0] = ~mask_TB[0]
        broken_TB[1:] &= ~mask_TB[:-1]
        has_broken, *extremes = torch.stack((broken_TB.any(), *(x for part in parts for x in part.aminmax()))).tolist()
        if has_broken:
            rows = broken_TB.any(0).nonzero().flatten().tolist()
            raise ValueError(
                f"mask rows {rows} hold no word, or padding before a word; wanted words first, at least one"
            )
        lowest, highest = extremes[::2], extremes[1::2]
        emission, step, *edges = (high - low for low, high in zip(lowest, highest, strict=True))
        interval = forward_backward.rescale_interval(
            emission_range=emission,
            transition_range=step,
            edge_range=max(edges),
            num_tags=self.num_tags,
            mixing_steps=self._mixing_steps,
        )
        return interval, _illegal_score(lowest, highest, len(mask_TB), parts[0].dtype)

    def _tags(self, tags_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Check the tags and return them as [T, B], 0 on padding."""
        if tags_BT.shape != mask_BT.shape:
            raise ValueError(f"tags have shape {tuple(tags_BT.shape)}; wanted {tuple(mask_BT.shape)}, as the mask")
        tags_TB = tags_BT.T.masked_fill(~mask_BT.T, 0)
        lowest, highest = torch.stack(tags_TB.aminmax()).tolist()
        if lowest < 0 or highest >= self.num_tags:
            outlier = lowest if lowest < 0 else highest
            raise ValueError(f"a word has tag id {outlier}; wanted 0..{self.num_tags - 1}")
        return tags_TB


def _summed_kl(log_p_TBL: Tensor, log_q_TBL: Tensor, mask_TB: Tensor) -> Tensor:
    """KL(p || q) of each word's tag distributions, summed over the words of each sentence, [B]."""
    p_TBL = log_p_TBL.exp().masked_fill(~mask_TB.unsqueeze(2), 0.0)
    return (p_TBL * (log_p_TBL - log_q_TBL)).sum((0, 2))


def _result_dtype(emissions_BTL: Tensor) -> torch.dtype:
    return torch.promote_types(emissions_BTL.dtype, torch.float32)


def _illegal_score(lowest: list[float], highest: list[float], num_words: int, dtype: torch.dtype) -> float:
    """The penalty of an illegal transition, in nats: below minus twice the largest difference of two path scores.

    One half is room for rounding and keeps the weight of illegal paths in sums at 0. Zero counts as a score, so that
    the bound also covers scores that are large and alike. NaN scores keep the least penalty.

    Args:
        lowest: Lowest score of emissions, transitions, starts and ends.
        highest: Highest score of each.
        num_words: Number of words of the longest sentence.
        dtype: Type of the scores; the penalty stays finite in it.
    """
    word, step, *edges = (max(high, 0.0) - min(low, 0.0) for low, high in zip(lowest, highest, strict=True))
    needed = 2 * (num_words * (word + step) + sum(edges))
    return -min(needed, torch.finfo(dtype).max / 4) if needed > -ILLEGAL_SCORE else ILLEGAL_SCORE
