"""The losses against their formulas written out, and where their gradients stop."""

import pytest
import torch

from ctxner.model.crf import LinearChainCRF
from ctxner.model.losses import PRESETS, LossWeights, cl_kl, cl_l2, nll

pytestmark = pytest.mark.numeric


@pytest.fixture
def mask_BT():
    return torch.arange(4) < torch.tensor([[4], [1], [3]])


@pytest.fixture
def views():
    torch.manual_seed(0)
    return torch.randn(3, 4, 5, requires_grad=True), torch.randn(3, 4, 5, requires_grad=True)


@pytest.fixture
def crf():
    torch.manual_seed(1)
    return LinearChainCRF(5)


@pytest.mark.parametrize("divide_by_width", [False, True])
def test_cl_l2_is_the_summed_squared_distance_of_words(views, mask_BT, divide_by_width):
    context_BTH, plain_BTH = views
    loss_B = cl_l2(context_BTH, plain_BTH, mask_BT, divide_by_width=divide_by_width).detach()
    for row, length in enumerate((4, 1, 3)):
        wanted = sum((context_BTH[row, t] - plain_BTH[row, t]).detach().norm().item() ** 2 for t in range(length))
        assert float(loss_B[row]) == pytest.approx(wanted / (5 if divide_by_width else 1), rel=1e-5)


def test_cl_l2_teaches_the_plain_view_only_and_ignores_padding(views, mask_BT):
    context_BTH, plain_BTH = views
    broken_BTH = context_BTH.masked_fill(~mask_BT.unsqueeze(2), float("nan"))
    cl_l2(broken_BTH, plain_BTH, mask_BT).sum().backward()
    assert context_BTH.grad is None
    wanted_BTH = 2 * (plain_BTH - context_BTH) * mask_BT.unsqueeze(2)
    torch.testing.assert_close(plain_BTH.grad, wanted_BTH.detach())


def test_cl_l2_of_bfloat16_vectors_is_summed_in_float32(mask_BT):
    context_BTH = torch.full((3, 4, 4096), 1.0, dtype=torch.bfloat16)
    loss_B = cl_l2(context_BTH, torch.zeros_like(context_BTH), mask_BT)
    assert loss_B.tolist() == [4096.0 * 4, 4096.0, 4096.0 * 3]


@pytest.mark.parametrize("kind", ["sequence", "marginal", "marginal_chain"])
def test_cl_kl_is_zero_on_equal_views_and_positive_otherwise(crf, views, mask_BT, kind):
    context_BTL, plain_BTL = views
    torch.testing.assert_close(cl_kl(crf, plain_BTL, plain_BTL, mask_BT, kind=kind), torch.zeros(3))
    assert (cl_kl(crf, context_BTL, plain_BTL, mask_BT, kind=kind) > 0.01).all()


def test_cl_kl_kinds_agree_on_one_word_and_order_on_more(crf, views, mask_BT):
    """On one word both are the same KL; on more, the sequence KL bounds each word's from above."""
    context_BTL, plain_BTL = views
    sequence_B = cl_kl(crf, context_BTL, plain_BTL, mask_BT, kind="sequence")
    marginal_B = cl_kl(crf, context_BTL, plain_BTL, mask_BT, kind="marginal")
    torch.testing.assert_close(sequence_B[1], marginal_B[1])
    assert (sequence_B[0] - marginal_B[0]).abs() > 1e-4
    assert sequence_B[0] > marginal_B[0] / 4


@pytest.mark.parametrize("kind", ["sequence", "marginal", "marginal_chain"])
def test_cl_kl_scales_by_the_squared_temperature_only_when_asked(crf, views, mask_BT, kind):
    plain_B = cl_kl(crf, *views, mask_BT, kind=kind, temperature=0.3)
    scaled_B = cl_kl(crf, *views, mask_BT, kind=kind, temperature=0.3, scale_by_temperature_squared=True)
    torch.testing.assert_close(scaled_B, plain_B * 0.09)


def test_cl_kl_with_a_temperature_is_the_kl_of_cooler_chains(crf, views, mask_BT):
    cooler = LinearChainCRF(5)
    cooler.load_state_dict({name: value / 2 for name, value in crf.state_dict().items()})
    context_BTL, plain_BTL = views
    found_B = cl_kl(crf, context_BTL, plain_BTL, mask_BT, temperature=2.0)
    torch.testing.assert_close(found_B, cl_kl(cooler, context_BTL / 2, plain_BTL / 2, mask_BT))


@pytest.mark.parametrize("kind", ["sequence", "marginal", "marginal_chain"])
def test_descending_on_cl_kl_moves_the_plain_view_to_the_context_view(crf, views, mask_BT, kind):
    context_BTL, plain_BTL = views
    optimizer = torch.optim.Adam([plain_BTL], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        cl_kl(crf, context_BTL, plain_BTL, mask_BT, kind=kind).sum().backward()
        optimizer.step()
    assert context_BTL.grad is None
    gap_BTL = crf.marginals(context_BTL, mask_BT) - crf.marginals(plain_BTL, mask_BT)
    assert gap_BTL.abs().max() < 0.02


def test_sums_of_losses_do_not_depend_on_how_sentences_are_batched(crf, views, mask_BT):
    context_BTL, plain_BTL = views
    tags_BT = torch.randint(5, (3, 4))
    for rows in ([0, 1, 2], [2, 0, 1]):
        for loss in (
            lambda i: nll(crf, plain_BTL[i], tags_BT[i], mask_BT[i]),
            lambda i: cl_kl(crf, context_BTL[i], plain_BTL[i], mask_BT[i]),
            lambda i: cl_l2(context_BTL[i], plain_BTL[i], mask_BT[i]),
        ):
            together_B = loss(torch.tensor(rows))
            alone_B = torch.cat([loss(torch.tensor([row])) for row in rows])
            torch.testing.assert_close(together_B, alone_B)


def test_presets_are_the_papers_and_its_released_codes():
    assert PRESETS["paper"] == LossWeights(1.0, 1.0, 1.0, "sequence", 1.0, False, False, 1.0)
    assert PRESETS["released_code"] == LossWeights(1.0, 0.5, 0.5, "marginal", 1.0, True, True, 1.0)


def test_bad_arguments_are_refused(crf, views, mask_BT):
    context_BTL, plain_BTL = views
    with pytest.raises(ValueError, match="'both'; wanted 'sequence', 'marginal', 'marginal_chain'"):
        cl_kl(crf, context_BTL, plain_BTL, mask_BT, kind="both")
    with pytest.raises(ValueError, match=r"\(2, 4, 5\), plain \(3, 4, 5\)"):
        cl_kl(crf, context_BTL[:2], plain_BTL, mask_BT)
    with pytest.raises(ValueError, match=r"wanted \[B, T, H\] twice"):
        cl_l2(context_BTL[:, :3], plain_BTL, mask_BT)
    with pytest.raises(ValueError, match="temperature is -1"):
        cl_kl(crf, context_BTL, plain_BTL, mask_BT, temperature=-1.0)
