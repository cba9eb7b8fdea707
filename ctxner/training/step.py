"""The cooperative step in plain torch: forward passes of both views, their losses, and the sum to differentiate.

Distribution, checkpoints and files are in `ctxner.training.worker`; the loss functions are in `ctxner.model.losses`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ctxner.model.crf import LinearChainCRF
from ctxner.model.losses import LossWeights, cl_kl, cl_l2, nll
from ctxner.model.tagger import EncoderCRF
from ctxner.views.view import ViewBatch

UNLABELLED = -1  # replaces the label ids of a sentence without gold tags


class CooperativeStep(nn.Module):
    """Losses of one batch in both views, in one forward call, so that any data-parallel wrapper works around it.

    Args:
        model: Tagger that both views share.
        mode: Name of the mode: `plain`, `context`, `cl-l2` or `cl-kl`.
        weights: Weights of the losses.
        bfloat16: Whether the encoder and the head run in bfloat16; the CRF does not.
    """

    def __init__(self, model: EncoderCRF, *, mode: str, weights: LossWeights, bfloat16: bool = False) -> None:
        super().__init__()
        self.model, self.mode, self.weights, self.narrow = model, mode, weights, bfloat16

    def forward(self, plain: ViewBatch | None, context: ViewBatch | None, weight_B: Tensor) -> dict[str, Tensor]:
        """Weighted loss sums over the batch's sentences; the caller divides by the global number of sentences.

        A sentence without gold tags (`UNLABELLED`) has no negative log-likelihood, only the cooperative loss.

        Args:
            plain: The plain view; None in mode `context`.
            context: The context view of the same sentences in the same order; None in mode `plain`.
            weight_B: Weight of each sentence: 1.0, or 0.0 for one that only fills an otherwise empty batch of a rank.

        Returns:
            `loss`, the scalar to call backward on, and each of its terms, detached.
        """
        losses, crf = {}, self.model.crf
        views = [view for view in (plain, context) if view is not None]
        pieces = iter(self.model.piece_vectors(*(view.input_ids_RP for view in views)))
        if plain is not None:
            plain_BTH, plain_BTL = self._forward(plain, next(pieces))
            losses["nll"] = self.weights.plain * _nll(crf, plain_BTL, plain)
        if context is not None:
            context_BTH, context_BTL = self._forward(context, next(pieces))
            losses["nll_ext"] = self.weights.context * _nll(crf, context_BTL, context)
        if plain is not None and context is not None:
            losses[self.mode] = self._cl_weight(plain) * (
                cl_l2(context_BTH, plain_BTH, plain.mask_BT, divide_by_width=self.weights.l2_divide_by_width)
                if self.mode == "cl-l2"
                else self._kl(context_BTL, plain_BTL, plain.mask_BT)
            )
        sums = {name: (loss_B * weight_B).sum() for name, loss_B in losses.items()}
        return {
            "loss": torch.stack(list(sums.values())).sum(),
            **{name: value.detach() for name, value in sums.items()},
        }

    def _cl_weight(self, view: ViewBatch) -> Tensor:
        """Weight [B] of the cooperative term: sentences without gold tags may have another."""
        assert view.tags_BT is not None, "training batches carry tags"
        has_gold_B = view.tags_BT[:, 0] != UNLABELLED
        return torch.where(has_gold_B, self.weights.cl, self.weights.cl_unlabelled)

    def _kl(self, context_BTL: Tensor, plain_BTL: Tensor, mask_BT: Tensor) -> Tensor:
        weights = self.weights
        return cl_kl(
            self.model.crf,
            context_BTL,
            plain_BTL,
            mask_BT,
            kind=weights.kl,
            temperature=weights.temperature,
            scale_by_temperature_squared=weights.scale_by_temperature_squared,
        )

    def _forward(self, view: ViewBatch, pieces_RPH: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(view.mask_BT.device.type, torch.bfloat16, enabled=self.narrow):
            return self.model(view.input_ids_RP, view.attention_RP, view.word_index_BT, pieces_RPH)


def _nll(crf: LinearChainCRF, emissions_BTL: Tensor, view: ViewBatch) -> Tensor:
    """Negative log-likelihood [B], zero for sentences without gold tags."""
    assert view.tags_BT is not None, "training batches carry tags"
    has_gold_B = view.tags_BT[:, 0] != UNLABELLED
    # clamp gives sentences without gold the placeholder tag O everywhere: their loss is multiplied by 0.
    return nll(crf, emissions_BTL, view.tags_BT.clamp(min=0), view.mask_BT) * has_gold_B


def parameter_groups(
    model: EncoderCRF, *, encoder_lr: float, head_lr: float, crf_lr: float, weight_decay: float
) -> list[dict]:
    """AdamW's parameter groups: encoder, head and CRF at their rates; no decay of vectors (biases, norms) and CRF."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    rates = {"encoder": encoder_lr, "head": head_lr, "crf": crf_lr}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = name.split(".", 1)[0]
        groups.setdefault((part, parameter.ndim > 1 and part != "crf"), []).append(parameter)
    return [
        {"name": part, "params": parameters, "lr": rates[part], "weight_decay": weight_decay if decays else 0.0}
        for (part, decays), parameters in groups.items()
    ]


def linear_schedule(num_steps: int, *, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rates at a step (from 0): rises over the `warmup` share of steps, then falls to zero."""
    num_warmup = int(num_steps * warmup)

    def factor(step: int) -> float:
        if step < num_warmup:
            return (step + 1) / (num_warmup + 1)
        return max(0.0, (num_steps - step) / max(1, num_steps - num_warmup))

    return factor
