"""The CRF against pytorch-crf: losses, gradients, best paths, and the names of the parameters."""

import pytest
import torch
import torchcrf

from tests.model.enumeration import assert_near, make_batch, make_crf

pytestmark = pytest.mark.numeric

# B batch, T words, L tags, Y paths


def _pair(num_tags=7, lengths=(9, 1, 30, 17), scale=3.0):
    ours, theirs = make_crf(num_tags), torchcrf.CRF(num_tags, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, make_batch(num_tags, lengths, scale)


def test_nll_and_gradients_equal_torchcrf():
    ours, theirs, (emissions_BTL, tags_BT, mask_BT) = _pair()
    theirs.double()
    a_BTL, b_BTL = emissions_BTL.clone().requires_grad_(), emissions_BTL.double().requires_grad_()
    nll_B, other_B = ours.nll(a_BTL, tags_BT, mask_BT), -theirs(b_BTL, tags_BT, mask_BT, reduction="none")
    assert_near(nll_B, other_B)
    nll_B.sum().backward()
    other_B.sum().backward()
    assert_near(a_BTL.grad, b_BTL.grad)
    for name, parameter in ours.named_parameters():
        assert_near(parameter.grad, theirs.get_parameter(name).grad)


@pytest.mark.parametrize("seed", range(5))
def test_viterbi_equals_torchcrf_decode(seed):
    ours, theirs, _ = _pair()
    emissions_BTL, _, mask_BT = make_batch(7, (9, 1, 30, 17), seed=seed)
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
    assert make_crf(3, constrained=True).state_dict().keys() == torchcrf.CRF(3).state_dict().keys()
