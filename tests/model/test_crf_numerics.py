"""The CRF on padding, large scores, long sentences, half precision and NaN: exact, finite, and each sentence alone."""

import math

import pytest
import torch

from ctxner.labels import LabelSet
from ctxner.model import forward_backward
from ctxner.model.crf import LinearChainCRF
from ctxner.schemes import tags_to_spans
from tests.model.enumeration import LENGTHS, assert_near, make_batch, make_crf, paths_by_sentence, word_marginals

pytestmark = pytest.mark.numeric

# B batch, T words, L tags, Y paths


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_padding_and_neighbours_change_nothing(garbage):
    crf, (emissions_BTL, tags_BT, mask_BT) = make_crf(4, constrained=True), make_batch(4)
    padded_BTL = torch.nn.functional.pad(emissions_BTL, (0, 0, 0, 3)).masked_fill(
        ~torch.nn.functional.pad(mask_BT, (0, 3)).unsqueeze(2), garbage
    )
    padded_BTL.requires_grad_()
    wide_BT = torch.nn.functional.pad(mask_BT, (0, 3))
    wide_tags_BT = torch.nn.functional.pad(tags_BT, (0, 3)).where(wide_BT, -100)
    nll_B = crf.nll(padded_BTL, wide_tags_BT, wide_BT)
    nll_B.sum().backward()
    assert padded_BTL.grad[~wide_BT].abs().sum() == 0
    best_BT, _ = crf.viterbi(padded_BTL.detach(), wide_BT)
    for row, length in enumerate(LENGTHS):
        alone = emissions_BTL[row : row + 1, :length], mask_BT[row : row + 1, :length]
        assert_near(nll_B[row : row + 1], crf.nll(alone[0], tags_BT[row : row + 1, :length], alone[1]))
        assert best_BT[row, :length].equal(crf.viterbi(*alone)[0][0])
        assert_near(crf.entropy(padded_BTL.detach(), wide_BT)[row : row + 1], crf.entropy(*alone))
        assert_near(crf.kl(padded_BTL.detach(), padded_BTL.detach() + 1, wide_BT)[row], torch.zeros(()))


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("scale", [30.0, 100.0, 1000.0])
def test_large_scores_equal_enumeration(scale, constrained):
    crf, (emissions_BTL, _, mask_BT) = make_crf(4, constrained, scale=20.0), make_batch(4, scale=scale)
    log_z_B, unary_BTL = crf.log_partition(emissions_BTL, mask_BT), crf.marginals(emissions_BTL, mask_BT)
    for row, length, paths_YT, scores_Y in paths_by_sentence(crf, emissions_BTL, mask_BT, illegal=-math.inf):
        assert_near(log_z_B[row], scores_Y.logsumexp(0))
        assert_near(unary_BTL[row, :length], word_marginals(paths_YT, scores_Y.softmax(0), 4))


@pytest.mark.parametrize("scale", [1e4, 1e6, 1e30])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_forbidden_transitions_stay_forbidden_at_any_scale_of_scores(scale, offset):
    """Emissions and the CRF's scores all pull to illegal paths; the oracle gives these no weight at all."""
    labels = LabelSet(("x",))
    crf = LinearChainCRF(len(labels), legal_transitions=labels.legal_transitions())
    torch.manual_seed(0)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    emissions_BTL = ((torch.randn(60, 4, len(labels)) + offset) * scale).requires_grad_()
    emissions_BTL.data[0, :2] = scale * torch.tensor(
        [[tag == wanted for tag in labels.tags] for wanted in ("I-x", "E-x")]
    )
    mask_BT = torch.arange(4) < torch.randint(1, 5, (60, 1))
    mask_BT[0] = torch.tensor([True, True, False, False])
    best_BT, best_B = crf.viterbi(emissions_BTL, mask_BT)
    ranked_BNT, _ = crf.n_best(emissions_BTL, mask_BT, 1)
    log_z_B, unary_BTL = crf.log_partition(emissions_BTL, mask_BT), crf.marginals(emissions_BTL, mask_BT)
    assert ranked_BNT[:, 0].equal(best_BT)
    for row, length, paths_YT, scores_Y in paths_by_sentence(crf, emissions_BTL.detach(), mask_BT, illegal=-math.inf):
        tags_to_spans(labels.decode(best_BT[row, :length].tolist()))  # raises on an illegal sequence
        assert best_BT[row, :length].equal(paths_YT[scores_Y.argmax()])
        assert_near(best_B[row], scores_Y.max())
        assert_near(log_z_B[row], scores_Y.logsumexp(0))
        assert_near(unary_BTL[row, :length], word_marginals(paths_YT, scores_Y.softmax(0), len(labels)))
    gold_BT, teacher_BTL = best_BT.clone(), emissions_BTL.detach().flip(0, 1)
    gold_BT[1] = labels.encode(["I-x"])[0]  # illegal: its loss is finite all the same
    losses = crf.nll(emissions_BTL, gold_BT, mask_BT), crf.kl(teacher_BTL, emissions_BTL, mask_BT)
    for loss_B in losses:
        assert loss_B.isfinite().all()
        gradients = torch.autograd.grad(loss_B.sum(), [emissions_BTL, *crf.parameters()], retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0, 60.0])
@pytest.mark.parametrize("types", [None, ("person", "place", "work")])
def test_scaled_recursion_equals_log_space_on_long_sentences(scale, types):
    """The bound that admits the fast path holds: sentences many rescalings long, with BIOES constraints and without."""
    num_tags = 13
    crf = LinearChainCRF(num_tags, legal_transitions=LabelSet(types).legal_transitions() if types else None)
    torch.nn.init.uniform_(crf.transitions, -5, 5)
    emissions_BTL, _, mask_BT = make_batch(num_tags, (40, 97, 1, 2))
    emissions_BTL = (torch.rand(emissions_BTL.shape) - 0.5) * 2 * scale
    fast = crf._scores(emissions_BTL, mask_BT)
    assert (fast.interval is None) == (scale == 60.0 and types is not None)
    slow = forward_backward.posterior(fast._replace(interval=None))
    for found, wanted in zip(forward_backward.posterior(fast), slow, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-10)


def test_ten_thousand_words_are_exact_and_bounded():
    crf = make_crf(9)
    emissions_BTL, tags_BT, mask_BT = make_batch(9, (10_000, 3))
    emissions_BTL.requires_grad_()
    crf.nll(emissions_BTL, tags_BT, mask_BT).sum().backward()
    assert_near(emissions_BTL.grad.sum(2), torch.zeros(2, 10_000))
    alone_B = crf.log_partition(emissions_BTL[1:, :3], mask_BT[1:, :3])
    assert_near(crf.log_partition(emissions_BTL, mask_BT)[1:], alone_B)
    tags_BT, score_B = crf.viterbi(emissions_BTL, mask_BT)
    assert_near(crf.path_score(emissions_BTL, tags_BT, mask_BT), score_B)
    assert (score_B < crf.log_partition(emissions_BTL, mask_BT)).all()
    assert score_B[0] >= crf.n_best(emissions_BTL[:1], mask_BT[:1], 2)[1][0, 0] - 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_as_its_float32_value(dtype):
    crf, (emissions_BTL, tags_BT, mask_BT) = make_crf(4), make_batch(4)
    half_BTL = emissions_BTL.to(dtype)
    wanted_B = crf.nll(half_BTL.float(), tags_BT, mask_BT)
    with torch.autocast("cpu", torch.bfloat16):
        nll_B = crf.nll(half_BTL, tags_BT, mask_BT)
        best_BT, _ = crf.viterbi(half_BTL, mask_BT)
        kl_B = crf.kl(half_BTL, half_BTL * 2, mask_BT)
    assert nll_B.dtype == kl_B.dtype == torch.float32
    assert nll_B.equal(wanted_B)
    assert kl_B.equal(crf.kl(half_BTL.float(), half_BTL.float() * 2, mask_BT))
    assert best_BT.equal(crf.viterbi(half_BTL.float(), mask_BT)[0])


def test_nan_emission_shows_in_its_own_sentence_only():
    crf, (emissions_BTL, tags_BT, mask_BT) = make_crf(4), make_batch(4)
    emissions_BTL[0, 0, 0] = math.nan
    assert crf.nll(emissions_BTL, tags_BT, mask_BT).isnan().tolist() == [True] + [False] * 4
