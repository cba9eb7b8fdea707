"""Divergences of two chains against the enumeration of all paths, and whom their gradients reach."""

import math

import pytest
import torch

from tests.model.enumeration import SHAPES, assert_near, make_batch, make_crf, paths_by_sentence, word_marginals

pytestmark = pytest.mark.numeric

# B batch, T words, L tags, Y paths


@pytest.mark.parametrize(("num_tags", "constrained"), SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.0])
def test_both_kl_divergences_equal_enumeration(num_tags, constrained, temperature):
    crf, (teacher_BTL, _, mask_BT) = make_crf(num_tags, constrained), make_batch(num_tags)
    student_BTL = make_batch(num_tags, seed=1)[0]
    kl_B = crf.kl(teacher_BTL, student_BTL, mask_BT, temperature=temperature)
    marginal_B = crf.marginal_chain_kl(teacher_BTL, student_BTL, mask_BT, temperature=temperature)
    students = paths_by_sentence(crf, student_BTL, mask_BT, temperature)
    for (row, _, paths_YT, p_Y), (*_, q_Y) in zip(
        paths_by_sentence(crf, teacher_BTL, mask_BT, temperature), students, strict=True
    ):
        log_p_Y, log_q_Y = p_Y.log_softmax(0), q_Y.log_softmax(0)
        assert_near(kl_B[row], (log_p_Y.exp() * (log_p_Y - log_q_Y)).sum())
        p_TL, q_TL = (word_marginals(paths_YT, x.exp(), num_tags) for x in (log_p_Y, log_q_Y))
        terms_TL = torch.where(p_TL > 1e-300, p_TL * (p_TL.clamp_min(1e-300).log() - q_TL.clamp_min(1e-300).log()), 0)
        assert_near(marginal_B[row], terms_TL.sum())


def _released_kl(teacher_Y, student_Y, paths_YT, num_tags, temperature):
    """The released code's KL from path scores: forward-backward at temperature 1, then each word alone is softened."""
    p_TL, q_TL = (word_marginals(paths_YT, scores_Y.softmax(0), num_tags) for scores_Y in (teacher_Y, student_Y))
    possible_TL = (p_TL > 0) & (q_TL > 0)
    log_p_TL, log_q_TL = (
        torch.where(possible_TL, x_TL.where(possible_TL, 1.0).log() / temperature, -math.inf).log_softmax(1)
        for x_TL in (p_TL, q_TL)
    )
    terms_TL = log_p_TL.exp() * (log_p_TL.where(possible_TL, 0.0) - log_q_TL.where(possible_TL, 0.0))
    return terms_TL.sum()


@pytest.mark.parametrize(("num_tags", "constrained"), SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.0, 50.0])
def test_marginal_kl_softens_each_words_marginals_after_forward_backward(num_tags, constrained, temperature):
    crf, (teacher_BTL, _, mask_BT) = make_crf(num_tags, constrained).double(), make_batch(num_tags)
    teacher_BTL, student_BTL = teacher_BTL.double(), make_batch(num_tags, seed=1)[0].double().requires_grad_()
    kl_B = crf.marginal_kl(teacher_BTL, student_BTL, mask_BT, temperature=temperature)
    wanted_B = torch.stack(
        [
            _released_kl(teacher_Y.detach(), student_Y, paths_YT, num_tags, temperature)
            for (*_, paths_YT, teacher_Y), (*_, student_Y) in zip(
                paths_by_sentence(crf, teacher_BTL, mask_BT), paths_by_sentence(crf, student_BTL, mask_BT), strict=True
            )
        ]
    )
    assert_near(kl_B, wanted_B)
    leaves = [student_BTL, *crf.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(kl_B.sum(), leaves), torch.autograd.grad(wanted_B.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)
    chain_B = crf.marginal_chain_kl(teacher_BTL, student_BTL, mask_BT, temperature=temperature)
    has_one_path = (num_tags, constrained) == (2, True)
    assert torch.allclose(chain_B, kl_B) == (temperature == 1.0 or has_one_path)


@pytest.mark.parametrize("kind", ["kl", "marginal_kl"])
def test_no_gradient_reaches_the_teacher(kind):
    crf, (emissions_BTL, _, mask_BT) = make_crf(3), make_batch(3)
    teacher_BTL, student_BTL = emissions_BTL.requires_grad_(), make_batch(3, seed=1)[0].requires_grad_()
    getattr(crf, kind)(teacher_BTL, student_BTL, mask_BT).sum().backward()
    assert teacher_BTL.grad is None
    assert student_BTL.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["kl", "marginal_kl"])
def test_divergence_of_equal_chains_is_zero_with_zero_gradient(kind):
    """The transitions' gradient vanishes only if the teacher's expectation is subtracted from the student's."""
    crf, (emissions_BTL, _, mask_BT) = make_crf(4, constrained=True), make_batch(4)
    student_BTL = emissions_BTL.clone().requires_grad_()
    kl_B = getattr(crf, kind)(emissions_BTL, student_BTL, mask_BT)
    assert_near(kl_B, torch.zeros(5))
    kl_B.sum().backward()
    for leaf in (student_BTL, *crf.parameters()):
        assert_near(leaf.grad, torch.zeros_like(leaf))
