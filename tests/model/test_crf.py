"""Every CRF quantity against the enumeration of all paths; its constraints, and what it refuses."""

import itertools
import math

import pytest
import torch

from ctxner.labels import LabelSet
from ctxner.model.crf import LinearChainCRF
from tests.model.enumeration import (
    LENGTHS,
    SHAPES,
    assert_near,
    every_path,
    make_batch,
    make_constraints,
    make_crf,
    paths_by_sentence,
    word_marginals,
)

pytestmark = pytest.mark.numeric

# B batch, T words, L tags, Y paths


@pytest.mark.parametrize(("num_tags", "constrained"), SHAPES)
def test_log_partition_entropy_and_path_score_equal_enumeration(num_tags, constrained):
    crf, (emissions_BTL, tags_BT, mask_BT) = make_crf(num_tags, constrained), make_batch(num_tags)
    log_z_B, entropy_B = crf.log_partition(emissions_BTL, mask_BT), crf.entropy(emissions_BTL, mask_BT)
    score_B, nll_B = crf.path_score(emissions_BTL, tags_BT, mask_BT), crf.nll(emissions_BTL, tags_BT, mask_BT)
    for row, length, paths_YT, scores_Y in paths_by_sentence(crf, emissions_BTL, mask_BT):
        log_p_Y = scores_Y.log_softmax(0)
        gold = (paths_YT == tags_BT[row, :length]).all(1)
        assert_near(log_z_B[row], scores_Y.logsumexp(0))
        assert_near(entropy_B[row], -(log_p_Y.exp() * log_p_Y).sum())
        assert_near(score_B[row], scores_Y[gold][0])
        assert_near(nll_B[row], -log_p_Y[gold][0])


@pytest.mark.parametrize(("num_tags", "constrained"), SHAPES)
@pytest.mark.parametrize("log_space", [False, True])
def test_marginals_equal_enumeration(num_tags, constrained, log_space):
    crf, (emissions_BTL, _, mask_BT) = make_crf(num_tags, constrained), make_batch(num_tags)
    if log_space:
        crf._mixing_steps = None
    unary_BTL, pairs_BTLL = crf.marginals(emissions_BTL, mask_BT), crf.pairwise_marginals(emissions_BTL, mask_BT)
    assert unary_BTL[~mask_BT].abs().sum() == 0
    assert pairs_BTLL[~mask_BT[:, 1:]].abs().sum() == 0
    for row, length, paths_YT, scores_Y in paths_by_sentence(crf, emissions_BTL, mask_BT):
        p_Y = scores_Y.softmax(0)
        assert_near(unary_BTL[row, :length], word_marginals(paths_YT, p_Y, num_tags))
        for t, a, b in itertools.product(range(length - 1), range(num_tags), range(num_tags)):
            assert_near(pairs_BTLL[row, t, a, b], p_Y[(paths_YT[:, t] == a) & (paths_YT[:, t + 1] == b)].sum())


@pytest.mark.parametrize(("num_tags", "constrained"), SHAPES)
def test_viterbi_and_n_best_equal_sorted_enumeration(num_tags, constrained):
    crf, (emissions_BTL, _, mask_BT) = make_crf(num_tags, constrained), make_batch(num_tags)
    best_BT, best_B = crf.viterbi(emissions_BTL, mask_BT)
    tags_BNT, scores_BN = crf.n_best(emissions_BTL, mask_BT, 5)
    margin_B = crf.margin(emissions_BTL, mask_BT)
    assert best_BT[~mask_BT].sum() == 0
    for row, length, paths_YT, scores_Y in paths_by_sentence(crf, emissions_BTL, mask_BT):
        order = scores_Y.argsort(descending=True)[:5]
        assert best_BT[row, :length].equal(paths_YT[order[0]])
        assert tags_BNT[row, : len(order), :length].equal(paths_YT[order])
        assert (scores_BN[row, len(order) :] == -math.inf).all()
        assert_near(best_B[row], scores_Y[order[0]])
        assert_near(scores_BN[row, : len(order)], scores_Y[order])
        assert_near(margin_B[row], scores_Y[order[0]] - scores_Y[order[1]])


@pytest.mark.parametrize(("num_tags", "constrained"), SHAPES)
@pytest.mark.parametrize("log_space", [False, True])
def test_segment_probability_equals_enumeration(num_tags, constrained, log_space):
    crf, (emissions_BTL, tags_BT, mask_BT) = make_crf(num_tags, constrained), make_batch(num_tags)
    if log_space:
        crf._mixing_steps = None
    spans = [(b, i, j) for b, n in enumerate(LENGTHS) for i in range(n) for j in range(i + 1, n + 1)]
    found_N = crf.segment_probability(emissions_BTL, mask_BT, tags_BT, spans)
    enumerated = {row: (paths, scores) for row, _, paths, scores in paths_by_sentence(crf, emissions_BTL, mask_BT)}
    for (row, start, end), found in zip(spans, found_N, strict=True):
        paths_YT, scores_Y = enumerated[row]
        match_Y = (paths_YT[:, start:end] == tags_BT[row, start:end]).all(1)
        assert_near(found, scores_Y.softmax(0)[match_Y].sum())


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("quantity", ["log_partition", "nll", "kl", "marginal_kl"])
def test_gradients_equal_autograd_through_enumeration(quantity, constrained):
    num_tags = 3
    crf = make_crf(num_tags, constrained).double()
    emissions_BTL, _, mask_BT = make_batch(num_tags)
    tags_BT = torch.tensor([[1, 2, 2, 2, 2]] * 4 + [[0] * 5])[:, : mask_BT.shape[1]].where(mask_BT, -100)
    student_BTL = emissions_BTL.double().requires_grad_()
    teacher_BTL = make_batch(num_tags, seed=1)[0].double().requires_grad_()
    weight_B = torch.arange(1.0, 6.0, dtype=torch.float64)
    found_B = {
        "log_partition": lambda: crf.log_partition(student_BTL, mask_BT),
        "nll": lambda: crf.nll(student_BTL, tags_BT, mask_BT),
        "kl": lambda: crf.kl(teacher_BTL, student_BTL, mask_BT),
        "marginal_kl": lambda: crf.marginal_kl(teacher_BTL, student_BTL, mask_BT),
    }[quantity]()
    wanted = torch.zeros((), dtype=torch.float64)
    for row, length, paths_YT, scores_Y in paths_by_sentence(crf, student_BTL, mask_BT):
        log_q_Y = scores_Y.log_softmax(0)
        p_Y = every_path(crf, teacher_BTL[row, :length])[1].softmax(0).detach()
        p_TL, q_TL = (word_marginals(paths_YT, x_Y, num_tags).clamp_min(1e-300) for x_Y in (p_Y, log_q_Y.exp()))
        term = {
            "log_partition": scores_Y.logsumexp(0),
            "nll": -log_q_Y[(paths_YT == tags_BT[row, :length]).all(1)][0],
            "kl": -(p_Y * log_q_Y).sum(),
            "marginal_kl": -(p_TL * q_TL.log()).sum(),
        }[quantity]
        wanted = wanted + weight_B[row] * term
    leaves = [student_BTL, *crf.parameters()]
    found = torch.autograd.grad((found_B * weight_B).sum(), leaves)
    for ours, theirs in zip(found, torch.autograd.grad(wanted, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)


def test_constraints_survive_being_built_without_storage():
    """Hugging Face's from_pretrained builds on the meta device, then resets what no checkpoint holds."""
    wanted, (emissions_BTL, _, mask_BT) = make_crf(4, constrained=True), make_batch(4)
    with torch.device("meta"):
        crf = LinearChainCRF(4, legal_transitions=make_constraints(4))
    crf.to_empty(device="cpu").reset_parameters()
    crf.load_state_dict(wanted.state_dict())
    assert crf.log_partition(emissions_BTL, mask_BT).equal(wanted.log_partition(emissions_BTL, mask_BT))


def test_constraints_that_no_sentence_can_meet_still_give_finite_losses():
    never = ([True, False], [[True, False], [False, True]], [False, True])
    crf, (emissions_BTL, _, mask_BT) = LinearChainCRF(2, legal_transitions=never), make_batch(2)
    log_z_B = crf.log_partition(emissions_BTL, mask_BT)
    for row, _, _, scores_Y in paths_by_sentence(crf, emissions_BTL, mask_BT):
        assert_near(log_z_B[row], scores_Y.logsumexp(0))


def test_bioes_constraints_forbid_illegal_paths():
    labels = LabelSet(("person", "place"))
    crf = LinearChainCRF(len(labels), legal_transitions=labels.legal_transitions())
    emissions_BTL, _, mask_BT = make_batch(len(labels), (8,) * 50)
    start, matrix, end = labels.legal_transitions()
    for path in crf.viterbi(emissions_BTL, mask_BT)[0].tolist():
        assert start[path[0]]
        assert end[path[-1]]
        assert all(matrix[a][b] for a, b in itertools.pairwise(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, y, m: (e[..., :2], y, m), r"\(5, 5, 2\); wanted \[batch, words, 3 tags\]"),
        (lambda e, y, m: (e[0], y, m), r"\(5, 3\); wanted \[batch"),
        (lambda e, y, m: (e[:0], y[:0], m[:0]), "no sentence"),
        (lambda e, y, m: (e, y, m[:, :4]), r"\(5, 4\).*wanted \(5, 5\)"),
        (lambda e, y, m: (e, y, m.float()), "float32; wanted .* bool"),
        (lambda e, y, m: (e, y[:, :4], m), r"tags have shape \(5, 4\); wanted \(5, 5\)"),
        (lambda e, y, m: (e, y, m & (torch.arange(5) != 1)), r"rows \[0, 2, 4\] .*padding before a word"),
        (
            lambda e, y, m: (e, y, m & torch.tensor([[True], [True], [False], [True], [True]])),
            r"rows \[2\] hold no word",
        ),
        (lambda e, y, m: (e, y - 100, m), r"tag id -100; wanted 0..2"),
        (lambda e, y, m: (e, y + 3, m), r"tag id 5; wanted 0..2"),
    ],
)
def test_bad_input_is_refused_with_what_was_wanted(change, message):
    crf, batch = make_crf(3), make_batch(3)
    with pytest.raises(ValueError, match=message):
        crf.nll(*change(*batch))


def test_bad_arguments_are_refused():
    crf, (emissions_BTL, tags_BT, mask_BT) = make_crf(3), make_batch(3)
    with pytest.raises(ValueError, match="temperature is 0"):
        crf.kl(emissions_BTL, emissions_BTL, mask_BT, temperature=0)
    with pytest.raises(ValueError, match="temperature is 0"):
        crf.marginal_kl(emissions_BTL, emissions_BTL, mask_BT, temperature=0)
    with pytest.raises(ValueError, match="at least 1 path"):
        crf.n_best(emissions_BTL, mask_BT, 0)
    with pytest.raises(ValueError, match="row 1, words 0:2"):
        crf.segment_probability(emissions_BTL, mask_BT, tags_BT, [(0, 0, 1), (1, 0, 2)])
    with pytest.raises(ValueError, match="over 0 tags"):
        LinearChainCRF(0)
    with pytest.raises(ValueError, match="L = 4 tags"):
        LinearChainCRF(4, legal_transitions=make_constraints(3))
