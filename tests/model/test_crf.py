"""Every CRF quantity against the enumeration of all paths, and against pytorch-crf."""

import itertools
import math

import pytest
import torch
import torchcrf
from torch import Tensor

from ctxner.labels import LabelSet
from ctxner.model import forward_backward
from ctxner.model.crf import ILLEGAL_SCORE, LinearChainCRF
from ctxner.schemes import tags_to_spans

pytestmark = pytest.mark.numeric

# B batch, T words, L tags, Y paths

SHAPES = [(num_tags, constrained) for num_tags in (2, 3, 4) for constrained in (False, True)]
LENGTHS = (3, 1, 5, 2, 4)


def _legal(num_tags):
    """Tag 0 goes everywhere; another tag must begin with tag 1 before it, and no sentence ends in tag 1."""
    start = [tag < 2 for tag in range(num_tags)]
    matrix = [[after < 2 or before >= 1 for after in range(num_tags)] for before in range(num_tags)]
    matrix[1][0] = False
    return start, matrix, [tag != 1 for tag in range(num_tags)]


def _crf(num_tags, constrained=False, scale=1.0):
    torch.manual_seed(num_tags)
    crf = LinearChainCRF(num_tags, legal_transitions=_legal(num_tags) if constrained else None)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return crf


def _batch(num_tags, lengths=LENGTHS, scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    emissions_BTL = torch.randn(len(lengths), max(lengths), num_tags, generator=generator) * scale
    tags_BT = torch.randint(num_tags, emissions_BTL.shape[:2], generator=generator)
    return emissions_BTL, tags_BT, torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)


def _paths(crf, emissions_TL, temperature=1.0, illegal=ILLEGAL_SCORE) -> tuple[Tensor, Tensor]:
    """Every path [Y, T] and its score [Y], in float64, one plain sum at a time; differentiable."""
    start, step, end = (p.double() / temperature for p in (crf.start_transitions, crf.transitions, crf.end_transitions))
    if crf.legal_transitions is not None:
        legal_start, legal, legal_end = (torch.tensor(part) for part in crf.legal_transitions)
        start, end = start.where(legal_start, start + illegal), end.where(legal_end, end + illegal)
        step = step.where(legal, step + illegal)
    emissions_TL = emissions_TL.double() / temperature
    paths = list(itertools.product(range(crf.num_tags), repeat=len(emissions_TL)))
    scores = [
        start[path[0]]
        + sum(emissions_TL[t, tag] for t, tag in enumerate(path))
        + sum(step[a, b] for a, b in itertools.pairwise(path))
        + end[path[-1]]
        for path in paths
    ]
    return torch.tensor(paths), torch.stack(scores)


def _unary(paths_YT, p_Y, num_tags):
    return torch.stack([torch.stack([p_Y[column == tag].sum() for tag in range(num_tags)]) for column in paths_YT.T])


def _close(found, wanted):
    torch.testing.assert_close(found.double(), wanted.double(), atol=1e-5, rtol=1e-5)


def _sentences(crf, emissions_BTL, mask_BT, temperature=1.0, illegal=ILLEGAL_SCORE):
    for row, length in enumerate(mask_BT.sum(1).tolist()):
        yield row, length, *_paths(crf, emissions_BTL[row, :length], temperature, illegal)


@pytest.mark.parametrize(("num_tags", "constrained"), SHAPES)
def test_log_partition_entropy_and_path_score_equal_enumeration(num_tags, constrained):
    crf, (emissions_BTL, tags_BT, mask_BT) = _crf(num_tags, constrained), _batch(num_tags)
    log_z_B, entropy_B = crf.log_partition(emissions_BTL, mask_BT), crf.entropy(emissions_BTL, mask_BT)
    score_B, nll_B = crf.path_score(emissions_BTL, tags_BT, mask_BT), crf.nll(emissions_BTL, tags_BT, mask_BT)
    for row, length, paths_YT, scores_Y in _sentences(crf, emissions_BTL, mask_BT):
        log_p_Y = scores_Y.log_softmax(0)
        gold = (paths_YT == tags_BT[row, :length]).all(1)
        _close(log_z_B[row], scores_Y.logsumexp(0))
        _close(entropy_B[row], -(log_p_Y.exp() * log_p_Y).sum())
        _close(score_B[row], scores_Y[gold][0])
        _close(nll_B[row], -log_p_Y[gold][0])


@pytest.mark.parametrize(("num_tags", "constrained"), SHAPES)
@pytest.mark.parametrize("log_space", [False, True])
def test_marginals_equal_enumeration(num_tags, constrained, log_space):
    crf, (emissions_BTL, _, mask_BT) = _crf(num_tags, constrained), _batch(num_tags)
    if log_space:
        crf._mixing_steps = None
    unary_BTL, pairs_BTLL = crf.marginals(emissions_BTL, mask_BT), crf.pairwise_marginals(emissions_BTL, mask_BT)
    assert unary_BTL[~mask_BT].abs().sum() == 0
    assert pairs_BTLL[~mask_BT[:, 1:]].abs().sum() == 0
    for row, length, paths_YT, scores_Y in _sentences(crf, emissions_BTL, mask_BT):
        p_Y = scores_Y.softmax(0)
        _close(unary_BTL[row, :length], _unary(paths_YT, p_Y, num_tags))
        for t, a, b in itertools.product(range(length - 1), range(num_tags), range(num_tags)):
            _close(pairs_BTLL[row, t, a, b], p_Y[(paths_YT[:, t] == a) & (paths_YT[:, t + 1] == b)].sum())


@pytest.mark.parametrize(("num_tags", "constrained"), SHAPES)
def test_viterbi_and_n_best_equal_sorted_enumeration(num_tags, constrained):
    crf, (emissions_BTL, _, mask_BT) = _crf(num_tags, constrained), _batch(num_tags)
    best_BT, best_B = crf.viterbi(emissions_BTL, mask_BT)
    tags_BNT, scores_BN = crf.n_best(emissions_BTL, mask_BT, 5)
    margin_B = crf.margin(emissions_BTL, mask_BT)
    assert best_BT[~mask_BT].sum() == 0
    for row, length, paths_YT, scores_Y in _sentences(crf, emissions_BTL, mask_BT):
        order = scores_Y.argsort(descending=True)[:5]
        assert best_BT[row, :length].equal(paths_YT[order[0]])
        assert tags_BNT[row, : len(order), :length].equal(paths_YT[order])
        assert (scores_BN[row, len(order) :] == -math.inf).all()
        _close(best_B[row], scores_Y[order[0]])
        _close(scores_BN[row, : len(order)], scores_Y[order])
        _close(margin_B[row], scores_Y[order[0]] - scores_Y[order[1]])


@pytest.mark.parametrize(("num_tags", "constrained"), SHAPES)
@pytest.mark.parametrize("log_space", [False, True])
def test_segment_probability_equals_enumeration(num_tags, constrained, log_space):
    crf, (emissions_BTL, tags_BT, mask_BT) = _crf(num_tags, constrained), _batch(num_tags)
    if log_space:
        crf._mixing_steps = None
    spans = [(b, i, j) for b, n in enumerate(LENGTHS) for i in range(n) for j in range(i + 1, n + 1)]
    found_N = crf.segment_probability(emissions_BTL, mask_BT, tags_BT, spans)
    enumerated = {row: (paths, scores) for row, _, paths, scores in _sentences(crf, emissions_BTL, mask_BT)}
    for (row, start, end), found in zip(spans, found_N, strict=True):
        paths_YT, scores_Y = enumerated[row]
        match_Y = (paths_YT[:, start:end] == tags_BT[row, start:end]).all(1)
        _close(found, scores_Y.softmax(0)[match_Y].sum())


@pytest.mark.parametrize(("num_tags", "constrained"), SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.0])
def test_both_kl_divergences_equal_enumeration(num_tags, constrained, temperature):
    crf, (teacher_BTL, _, mask_BT) = _crf(num_tags, constrained), _batch(num_tags)
    student_BTL = _batch(num_tags, seed=1)[0]
    kl_B = crf.kl(teacher_BTL, student_BTL, mask_BT, temperature=temperature)
    marginal_B = crf.marginal_chain_kl(teacher_BTL, student_BTL, mask_BT, temperature=temperature)
    students = _sentences(crf, student_BTL, mask_BT, temperature)
    for (row, _, paths_YT, p_Y), (*_, q_Y) in zip(
        _sentences(crf, teacher_BTL, mask_BT, temperature), students, strict=True
    ):
        log_p_Y, log_q_Y = p_Y.log_softmax(0), q_Y.log_softmax(0)
        _close(kl_B[row], (log_p_Y.exp() * (log_p_Y - log_q_Y)).sum())
        p_TL, q_TL = (_unary(paths_YT, x.exp(), num_tags) for x in (log_p_Y, log_q_Y))
        terms_TL = torch.where(p_TL > 1e-300, p_TL * (p_TL.clamp_min(1e-300).log() - q_TL.clamp_min(1e-300).log()), 0)
        _close(marginal_B[row], terms_TL.sum())


def _released_kl(teacher_Y, student_Y, paths_YT, num_tags, temperature):
    """The released code's KL from path scores: forward-backward at temperature 1, then each word alone is softened."""
    p_TL, q_TL = (_unary(paths_YT, scores_Y.softmax(0), num_tags) for scores_Y in (teacher_Y, student_Y))
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
    crf, (teacher_BTL, _, mask_BT) = _crf(num_tags, constrained).double(), _batch(num_tags)
    teacher_BTL, student_BTL = teacher_BTL.double(), _batch(num_tags, seed=1)[0].double().requires_grad_()
    kl_B = crf.marginal_kl(teacher_BTL, student_BTL, mask_BT, temperature=temperature)
    wanted_B = torch.stack(
        [
            _released_kl(teacher_Y.detach(), student_Y, paths_YT, num_tags, temperature)
            for (*_, paths_YT, teacher_Y), (*_, student_Y) in zip(
                _sentences(crf, teacher_BTL, mask_BT), _sentences(crf, student_BTL, mask_BT), strict=True
            )
        ]
    )
    _close(kl_B, wanted_B)
    leaves = [student_BTL, *crf.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(kl_B.sum(), leaves), torch.autograd.grad(wanted_B.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)
    chain_B = crf.marginal_chain_kl(teacher_BTL, student_BTL, mask_BT, temperature=temperature)
    has_one_path = (num_tags, constrained) == (2, True)
    assert torch.allclose(chain_B, kl_B) == (temperature == 1.0 or has_one_path)


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("quantity", ["log_partition", "nll", "kl", "marginal_kl"])
def test_gradients_equal_autograd_through_enumeration(quantity, constrained):
    num_tags = 3
    crf = _crf(num_tags, constrained).double()
    emissions_BTL, _, mask_BT = _batch(num_tags)
    tags_BT = torch.tensor([[1, 2, 2, 2, 2]] * 4 + [[0] * 5])[:, : mask_BT.shape[1]].where(mask_BT, -100)
    student_BTL = emissions_BTL.double().requires_grad_()
    teacher_BTL = _batch(num_tags, seed=1)[0].double().requires_grad_()
    weight_B = torch.arange(1.0, 6.0, dtype=torch.float64)
    found_B = {
        "log_partition": lambda: crf.log_partition(student_BTL, mask_BT),
        "nll": lambda: crf.nll(student_BTL, tags_BT, mask_BT),
        "kl": lambda: crf.kl(teacher_BTL, student_BTL, mask_BT),
        "marginal_kl": lambda: crf.marginal_kl(teacher_BTL, student_BTL, mask_BT),
    }[quantity]()
    wanted = torch.zeros((), dtype=torch.float64)
    for row, length, paths_YT, scores_Y in _sentences(crf, student_BTL, mask_BT):
        log_q_Y = scores_Y.log_softmax(0)
        p_Y = _paths(crf, teacher_BTL[row, :length])[1].softmax(0).detach()
        p_TL, q_TL = (_unary(paths_YT, x_Y, num_tags).clamp_min(1e-300) for x_Y in (p_Y, log_q_Y.exp()))
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


@pytest.mark.parametrize("kind", ["kl", "marginal_kl"])
def test_no_gradient_reaches_the_teacher(kind):
    crf, (emissions_BTL, _, mask_BT) = _crf(3), _batch(3)
    teacher_BTL, student_BTL = emissions_BTL.requires_grad_(), _batch(3, seed=1)[0].requires_grad_()
    getattr(crf, kind)(teacher_BTL, student_BTL, mask_BT).sum().backward()
    assert teacher_BTL.grad is None
    assert student_BTL.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["kl", "marginal_kl"])
def test_divergence_of_equal_chains_is_zero_with_zero_gradient(kind):
    """The transitions' gradient vanishes only if the teacher's expectation is subtracted from the student's."""
    crf, (emissions_BTL, _, mask_BT) = _crf(4, constrained=True), _batch(4)
    student_BTL = emissions_BTL.clone().requires_grad_()
    kl_B = getattr(crf, kind)(emissions_BTL, student_BTL, mask_BT)
    _close(kl_B, torch.zeros(5))
    kl_B.sum().backward()
    for leaf in (student_BTL, *crf.parameters()):
        _close(leaf.grad, torch.zeros_like(leaf))


def _pair(num_tags=7, lengths=(9, 1, 30, 17), scale=3.0):
    ours, theirs = _crf(num_tags), torchcrf.CRF(num_tags, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, _batch(num_tags, lengths, scale)


def test_nll_and_gradients_equal_torchcrf():
    ours, theirs, (emissions_BTL, tags_BT, mask_BT) = _pair()
    theirs.double()
    a_BTL, b_BTL = emissions_BTL.clone().requires_grad_(), emissions_BTL.double().requires_grad_()
    nll_B, other_B = ours.nll(a_BTL, tags_BT, mask_BT), -theirs(b_BTL, tags_BT, mask_BT, reduction="none")
    _close(nll_B, other_B)
    nll_B.sum().backward()
    other_B.sum().backward()
    _close(a_BTL.grad, b_BTL.grad)
    for name, parameter in ours.named_parameters():
        _close(parameter.grad, theirs.get_parameter(name).grad)


@pytest.mark.parametrize("seed", range(5))
def test_viterbi_equals_torchcrf_decode(seed):
    ours, theirs, _ = _pair()
    emissions_BTL, _, mask_BT = _batch(7, (9, 1, 30, 17), seed=seed)
    tags_BT, _ = ours.viterbi(emissions_BTL, mask_BT)
    found = [row[:length] for row, length in zip(tags_BT.tolist(), mask_BT.sum(1).tolist(), strict=True)]
    assert found == theirs.decode(emissions_BTL, mask_BT)


def test_viterbi_breaks_ties_as_torchcrf():
    ours, theirs, (emissions_BTL, _, mask_BT) = _pair()
    for parameter in (*ours.parameters(), *theirs.parameters()):
        torch.nn.init.zeros_(parameter)
    tags_BT, _ = ours.viterbi(emissions_BTL * 0, mask_BT)
    found = [row[:length] for row, length in zip(tags_BT.tolist(), mask_BT.sum(1).tolist(), strict=True)]
    assert found == theirs.decode(emissions_BTL * 0, mask_BT)


def test_state_dict_has_torchcrf_keys_even_when_constrained():
    assert _crf(3, constrained=True).state_dict().keys() == torchcrf.CRF(3).state_dict().keys()


def test_constraints_survive_being_built_without_storage():
    """Hugging Face's from_pretrained builds on the meta device, then resets what no checkpoint holds."""
    wanted, (emissions_BTL, _, mask_BT) = _crf(4, constrained=True), _batch(4)
    with torch.device("meta"):
        crf = LinearChainCRF(4, legal_transitions=_legal(4))
    crf.to_empty(device="cpu").reset_parameters()
    crf.load_state_dict(wanted.state_dict())
    assert crf.log_partition(emissions_BTL, mask_BT).equal(wanted.log_partition(emissions_BTL, mask_BT))


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_padding_and_neighbours_change_nothing(garbage):
    crf, (emissions_BTL, tags_BT, mask_BT) = _crf(4, constrained=True), _batch(4)
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
        _close(nll_B[row : row + 1], crf.nll(alone[0], tags_BT[row : row + 1, :length], alone[1]))
        assert best_BT[row, :length].equal(crf.viterbi(*alone)[0][0])
        _close(crf.entropy(padded_BTL.detach(), wide_BT)[row : row + 1], crf.entropy(*alone))
        _close(crf.kl(padded_BTL.detach(), padded_BTL.detach() + 1, wide_BT)[row], torch.zeros(()))


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("scale", [30.0, 100.0, 1000.0])
def test_large_scores_equal_enumeration(scale, constrained):
    crf, (emissions_BTL, _, mask_BT) = _crf(4, constrained, scale=20.0), _batch(4, scale=scale)
    log_z_B, unary_BTL = crf.log_partition(emissions_BTL, mask_BT), crf.marginals(emissions_BTL, mask_BT)
    for row, length, paths_YT, scores_Y in _sentences(crf, emissions_BTL, mask_BT, illegal=-math.inf):
        _close(log_z_B[row], scores_Y.logsumexp(0))
        _close(unary_BTL[row, :length], _unary(paths_YT, scores_Y.softmax(0), 4))


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
    for row, length, paths_YT, scores_Y in _sentences(crf, emissions_BTL.detach(), mask_BT, illegal=-math.inf):
        tags_to_spans(labels.decode(best_BT[row, :length].tolist()))  # raises on an illegal sequence
        assert best_BT[row, :length].equal(paths_YT[scores_Y.argmax()])
        _close(best_B[row], scores_Y.max())
        _close(log_z_B[row], scores_Y.logsumexp(0))
        _close(unary_BTL[row, :length], _unary(paths_YT, scores_Y.softmax(0), len(labels)))
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
    emissions_BTL, _, mask_BT = _batch(num_tags, (40, 97, 1, 2))
    emissions_BTL = (torch.rand(emissions_BTL.shape) - 0.5) * 2 * scale
    fast = crf._scores(emissions_BTL, mask_BT)
    assert (fast.interval is None) == (scale == 60.0 and types is not None)
    slow = forward_backward.posterior(fast._replace(interval=None))
    for found, wanted in zip(forward_backward.posterior(fast), slow, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-10)


def test_ten_thousand_words_are_exact_and_bounded():
    crf = _crf(9)
    emissions_BTL, tags_BT, mask_BT = _batch(9, (10_000, 3))
    emissions_BTL.requires_grad_()
    crf.nll(emissions_BTL, tags_BT, mask_BT).sum().backward()
    _close(emissions_BTL.grad.sum(2), torch.zeros(2, 10_000))
    alone_B = crf.log_partition(emissions_BTL[1:, :3], mask_BT[1:, :3])
    _close(crf.log_partition(emissions_BTL, mask_BT)[1:], alone_B)
    tags_BT, score_B = crf.viterbi(emissions_BTL, mask_BT)
    _close(crf.path_score(emissions_BTL, tags_BT, mask_BT), score_B)
    assert (score_B < crf.log_partition(emissions_BTL, mask_BT)).all()
    assert score_B[0] >= crf.n_best(emissions_BTL[:1], mask_BT[:1], 2)[1][0, 0] - 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_as_its_float32_value(dtype):
    crf, (emissions_BTL, tags_BT, mask_BT) = _crf(4), _batch(4)
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
    crf, (emissions_BTL, tags_BT, mask_BT) = _crf(4), _batch(4)
    emissions_BTL[0, 0, 0] = math.nan
    assert crf.nll(emissions_BTL, tags_BT, mask_BT).isnan().tolist() == [True] + [False] * 4


def test_constraints_that_no_sentence_can_meet_still_give_finite_losses():
    never = ([True, False], [[True, False], [False, True]], [False, True])
    crf, (emissions_BTL, _, mask_BT) = LinearChainCRF(2, legal_transitions=never), _batch(2)
    log_z_B = crf.log_partition(emissions_BTL, mask_BT)
    for row, _, _, scores_Y in _sentences(crf, emissions_BTL, mask_BT):
        _close(log_z_B[row], scores_Y.logsumexp(0))


def test_bioes_constraints_forbid_illegal_paths():
    labels = LabelSet(("person", "place"))
    crf = LinearChainCRF(len(labels), legal_transitions=labels.legal_transitions())
    emissions_BTL, _, mask_BT = _batch(len(labels), (8,) * 50)
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
    crf, batch = _crf(3), _batch(3)
    with pytest.raises(ValueError, match=message):
        crf.nll(*change(*batch))


def test_bad_arguments_are_refused():
    crf, (emissions_BTL, tags_BT, mask_BT) = _crf(3), _batch(3)
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
        LinearChainCRF(4, legal_transitions=_legal(3))
