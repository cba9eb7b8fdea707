"""Small random CRFs, batches for them, and every path of each sentence: the oracle of the CRF's tests."""

import itertools

import torch
from torch import Tensor

from ctxner.model.crf import ILLEGAL_SCORE, LinearChainCRF

# B batch, T words, L tags, Y paths

SHAPES = [(num_tags, constrained) for num_tags in (2, 3, 4) for constrained in (False, True)]
LENGTHS = (3, 1, 5, 2, 4)


def make_constraints(num_tags):
    """Tag 0 goes everywhere; another tag must begin with tag 1 before it, and no sentence ends in tag 1."""
    start = [tag < 2 for tag in range(num_tags)]
    matrix = [[after < 2 or before >= 1 for after in range(num_tags)] for before in range(num_tags)]
    matrix[1][0] = False
    return start, matrix, [tag != 1 for tag in range(num_tags)]


def make_crf(num_tags, constrained=False, scale=1.0):
    torch.manual_seed(num_tags)
    crf = LinearChainCRF(num_tags, legal_transitions=make_constraints(num_tags) if constrained else None)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return crf


def make_batch(num_tags, lengths=LENGTHS, scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    emissions_BTL = torch.randn(len(lengths), max(lengths), num_tags, generator=generator) * scale
    tags_BT = torch.randint(num_tags, emissions_BTL.shape[:2], generator=generator)
    return emissions_BTL, tags_BT, torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)


def every_path(crf, emissions_TL, temperature=1.0, illegal=ILLEGAL_SCORE) -> tuple[Tensor, Tensor]:
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


def word_marginals(paths_YT, p_Y, num_tags):
    return torch.stack([torch.stack([p_Y[column == tag].sum() for tag in range(num_tags)]) for column in paths_YT.T])


def assert_near(found, wanted):
    torch.testing.assert_close(found.double(), wanted.double(), atol=1e-5, rtol=1e-5)


def paths_by_sentence(crf, emissions_BTL, mask_BT, temperature=1.0, illegal=ILLEGAL_SCORE):
    for row, length in enumerate(mask_BT.sum(1).tolist()):
        yield row, length, *every_path(crf, emissions_BTL[row, :length], temperature, illegal)
