"""Finds the best tag paths of a linear chain: batched Viterbi and n-best. Sums over paths are in `forward_backward`.

Source: Viterbi (1967); Forney (1973).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ctxner.model.forward_backward import Scores

# B batch, T words, L tags, N paths per sentence, M = L * N, K = L + 1 (every tag, and the end of the sentence)


@torch.no_grad()
def best_path(scores: Scores) -> Tensor:
    """The highest-scoring tags of each sentence, [T, B]; 0 on padding. The lowest tag id wins a tie, as in pytorch-crf.

    The forward pass keeps only scores, and the backward pass recomputes the one argmax it needs, so memory is T * B * K
    numbers without backpointers. Padding prefers the extra key "end" infinitely, so no backward step needs the mask.
    """
    end_key = scores.start_L.numel()
    blocked_TB1 = torch.where(scores.mask_TB, -torch.inf, torch.inf).unsqueeze(2).to(scores.start_L.dtype)
    history_TBK = torch.cat((_best_scores(scores), blocked_TB1), 2)
    into_KK = F.pad(torch.cat((scores.transitions_LL.T, scores.end_L.unsqueeze(0))), (0, 1))  # row: the next key
    next_B = scores.mask_TB.new_full(history_TBK.shape[1:2], end_key, dtype=torch.long)
    path = []
    for history_BK in reversed(history_TBK.unbind()):
        next_B = torch.argmax(history_BK + into_KK.index_select(0, next_B), dim=1)
        path.append(next_B)
    return torch.stack(path[::-1]).masked_fill_(~scores.mask_TB, 0)


def _best_scores(scores: Scores) -> Tensor:
    """Score of the best path that ends in each tag at each word, [T, B, L]; meaningless on padding.

    The batch is the innermost dimension, because a maximum over the outermost dimension vectorises in this layout.
    """
    emissions_TLB = scores.emissions_TBL.transpose(1, 2).contiguous()
    steps_LL1 = scores.transitions_LL.unsqueeze(2)
    best_TLB = torch.empty_like(emissions_TLB)
    paths_LLB = emissions_TLB.new_empty(*scores.transitions_LL.shape, emissions_TLB.shape[2])
    best_LB = torch.add(scores.start_L.unsqueeze(1), emissions_TLB[0], out=best_TLB[0])
    for emission_LB, next_LB in zip(emissions_TLB[1:].unbind(), best_TLB[1:].unbind(), strict=True):
        torch.add(best_LB.unsqueeze(1), steps_LL1, out=paths_LLB)
        best_LB = torch.amax(paths_LLB, 0, out=next_LB).add_(emission_LB)
    return best_TLB.transpose(1, 2)


@torch.no_grad()
def best_paths(scores: Scores, num_paths: int) -> tuple[Tensor, Tensor]:
    """The `num_paths` highest-scoring distinct paths, best first.

    Returns:
        Tags [T, B, N], 0 on padding, and scores [B, N]; if a sentence has fewer paths than N, the last scores are -inf.
    """
    emissions_TBL, start_L, transitions_LL, end_L, mask_TB, _ = scores
    _, batch, num_tags = emissions_TBL.shape
    top_BLN = emissions_TBL.new_full((batch, num_tags, num_paths), -torch.inf)
    top_BLN[:, :, 0] = start_L + emissions_TBL[0]
    stay_BM = torch.arange(num_tags * num_paths, device=mask_TB.device).expand(batch, -1)
    pointers: list[Tensor] = []
    for emission_BL, mask_B in zip(emissions_TBL[1:], mask_TB[1:], strict=True):
        paths_BLNL = top_BLN.unsqueeze(3) + transitions_LL.unsqueeze(1)
        next_BLN, from_BLN = paths_BLNL.flatten(1, 2).transpose(1, 2).topk(num_paths, dim=2)
        top_BLN = torch.where(mask_B[:, None, None], next_BLN + emission_BL.unsqueeze(2), top_BLN)
        from_BM = torch.where(mask_B.unsqueeze(1), from_BLN.flatten(1), stay_BM)
        pointers.append(from_BM.to(torch.int16 if num_tags * num_paths < 2**15 else torch.int32))
    score_BN, key_BN = (top_BLN + end_L.unsqueeze(1)).flatten(1).topk(num_paths, dim=1)
    keys = [key_BN]
    for from_BM in reversed(pointers):
        keys.append(from_BM.gather(1, keys[-1]).long())
    tags_TBN = torch.stack(keys[::-1]) // num_paths
    return tags_TBN.masked_fill_(~mask_TB.unsqueeze(2), 0), score_BN


def path_score(scores: Scores, tags_TB: Tensor) -> Tensor:
    """Score of one path per sentence, [B]; tags on padding are ignored but must be ids."""
    last_1B = scores.mask_TB.sum(0, keepdim=True) - 1
    step_N = (tags_TB[:-1] * scores.start_L.numel() + tags_TB[1:]).flatten()
    step_TB = scores.transitions_LL.flatten().gather(0, step_N).view(-1, tags_TB.shape[1])
    words_TB = scores.emissions_TBL.gather(2, tags_TB.unsqueeze(2)).squeeze(2)
    edges_B = scores.start_L.gather(0, tags_TB[0]) + scores.end_L.gather(0, tags_TB.gather(0, last_1B)[0])
    return edges_B + (words_TB * scores.mask_TB).sum(0) + (step_TB * scores.mask_TB[1:]).sum(0)
