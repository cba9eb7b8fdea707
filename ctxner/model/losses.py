"""Losses of the paper, each as one sum per sentence: the caller weighs, adds up and divides by a global count.

A mean computed here would cover only one rank's batch, and the mean of the ranks' means is biased.

Source: Wang et al. (2021), "Improving Named Entity Recognition by External Context Retrieving and Cooperative
Learning".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ctxner.model.crf import LinearChainCRF

# B batch, T words, L tags, H hidden width

KLKind = Literal["sequence", "marginal", "marginal_chain"]


@dataclass(frozen=True)
class LossWeights:
    """How the losses enter the total: `plain * NLL + context * NLL-EXT + cl * CL`.

    Attributes:
        plain: Weight of the plain view's NLL.
        context: Weight of the context view's NLL.
        cl: Weight of the cooperative term, L2 or KL.
        kl: Kind of KL: over whole tag sequences, or summed over each word's tag marginals (see `cl_kl`).
        temperature: Temperature of both views inside the KL; `kl` decides what it divides.
        scale_by_temperature_squared: Whether to multiply the KL by temperature ** 2, which keeps its gradient's size.
        l2_divide_by_width: Whether to divide the L2 term by the hidden width H.
        cl_unlabelled: Weight of the cooperative term of sentences without gold tags, which have no NLL.
    """

    plain: float = 1.0
    context: float = 1.0
    cl: float = 1.0
    kl: KLKind = "sequence"
    temperature: float = 1.0
    scale_by_temperature_squared: bool = False
    l2_divide_by_width: bool = False
    cl_unlabelled: float = 1.0


PRESETS = {
    "paper": LossWeights(),
    # The right temperature depends on the data set (0.3 on WNUT-17, 2.0 on NCBI-disease), so replace it. Unlabelled
    # batches weigh CL by 1 there too.
    "released_code": LossWeights(
        context=0.5, cl=0.5, kl="marginal", scale_by_temperature_squared=True, l2_divide_by_width=True
    ),
}


def nll(crf: LinearChainCRF, emissions_BTL: Tensor, tags_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Negative log-likelihood of the gold tags: L_NLL on the plain view, L_NLL-EXT on the context view.

    Averages over nothing: [B], in nats per sentence; longer sentences weigh more. No gradient is stopped; no constant
    is dropped.
    """
    return crf.nll(emissions_BTL, tags_BT, mask_BT)


def cl_l2(context_BTH: Tensor, plain_BTH: Tensor, mask_BT: Tensor, *, divide_by_width: bool = False) -> Tensor:
    """CL-L2: squared distance between a word's vectors in both views, `sum_i || v'_i - v_i ||^2`.

    Averages over nothing: [B], summed over the sentence's words and the vectors' H entries, in float32. The context
    view is the teacher: no gradient flows into `context_BTH`. No constant is dropped.

    Args:
        context_BTH: Last-layer vectors of the sentence's words in the context view.
        plain_BTH: Last-layer vectors of the same words in the plain view.
        mask_BT: True on words.
        divide_by_width: Whether to divide by H, as the released code does.

    Raises:
        ValueError: The views differ in shape, or the mask does not fit.
    """
    if context_BTH.shape != plain_BTH.shape or mask_BT.shape != plain_BTH.shape[:2]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (context_BTH, plain_BTH, mask_BT))
        raise ValueError(f"context, plain and mask have shapes {shapes}; wanted [B, T, H] twice and [B, T]")
    gap_BTH = (context_BTH.detach().float() - plain_BTH.float()).masked_fill(~mask_BT.unsqueeze(2), 0.0)
    loss_B = gap_BTH.square().sum((1, 2))
    return loss_B / plain_BTH.shape[2] if divide_by_width else loss_B


def cl_kl(
    crf: LinearChainCRF,
    context_BTL: Tensor,
    plain_BTL: Tensor,
    mask_BT: Tensor,
    *,
    kind: KLKind = "sequence",
    temperature: float = 1.0,
    scale_by_temperature_squared: bool = False,
) -> Tensor:
    """CL-KL: KL(context view || plain view) between the two views' tag distributions.

    Averages over nothing: [B], in nats per sentence. The context view is the teacher: no gradient flows into
    `context_BTL` or into the teacher's use of the transitions; gradients flow into `plain_BTL` and the student's use of
    the transitions. No constant is dropped: the value includes the teacher's entropy, so 0 means that both views agree.

    Args:
        crf: CRF that both views share.
        context_BTL: Emissions of the sentence's words in the context view.
        plain_BTL: Emissions of the same words in the plain view.
        mask_BT: True on words.
        kind: Kind of KL, with p and q the distributions of the context and the plain view. `sequence`: KL of whole tag
            sequences, exactly (the paper's formula). `marginal`: sum over words t of
            `KL(softmax(log p_t / T) || softmax(log q_t / T))`, with the marginals p_t and q_t of the chains at
            temperature 1 (the released code's formula). `marginal_chain`: the same sum of `KL(p_t || q_t)`, with the
            marginals of the chains at temperature T.
        temperature: T. It divides emissions and transitions of both views; with `marginal` each word's log-marginals.
        scale_by_temperature_squared: Whether to multiply by temperature ** 2 (Hinton et al., 2015; the released code).

    Raises:
        ValueError: The kind is unknown, the temperature is not positive, or the shapes do not fit.
    """
    if context_BTL.shape != plain_BTL.shape:
        raise ValueError(f"context emissions have shape {tuple(context_BTL.shape)}, plain {tuple(plain_BTL.shape)}")
    divergences = {"sequence": crf.kl, "marginal": crf.marginal_kl, "marginal_chain": crf.marginal_chain_kl}
    if kind not in divergences:
        raise ValueError(f"kind of KL is {kind!r}; wanted {', '.join(map(repr, divergences))}")
    loss_B = divergences[kind](context_BTL, plain_BTL, mask_BT, temperature=temperature)
    return loss_B * temperature**2 if scale_by_temperature_squared else loss_B
