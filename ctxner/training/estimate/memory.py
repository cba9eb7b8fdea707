"""Computes one training worker's memory by formula: model states per ZeRO stage, and a micro-batch's activations.

Only the bytes of tensors count: not memory lost to fragmentation, nor copies made after the backward pass, when the
activations are freed. The sizes of a run's model and batches come from `ctxner.training.estimate.report`.

Sources: Rajbhandari et al. (2020), "ZeRO", section 3 and figure 1, for the states; Korthikanti et al. (2022), "Reducing
Activation Recomputation in Large Transformer Models", section 4, for the activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

# float32: everything is float32; autocast: float32 parameters, bfloat16 matrix products (`run.precision=bfloat16`);
# bfloat16: parameters and gradients in bfloat16, float32 master weights in the optimizer (DeepSpeed's bf16 engine).
Precision = Literal["float32", "autocast", "bfloat16"]
STAGES = (0, 1, 2, 3)
BUCKET_ELEMENTS = 25_000_000  # DeepSpeed's reduce_bucket_size; its default is 500 million
LIVE_ELEMENTS = 50_000_000  # stage3_max_live_parameters, stage3_max_reuse_distance; at 10^9 XLM-R-large stays whole


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Sizes of a BERT-like encoder without its pooler."""

    layers: int
    width: int
    intermediate: int
    heads: int
    vocabulary: int
    positions: int
    token_types: int

    @classmethod
    def of(cls, config: Any) -> EncoderShape:
        """Read the sizes from an encoder's Hugging Face config; without `intermediate_size` that width is 4 H."""
        width = config.hidden_size
        return cls(
            config.num_hidden_layers,
            width,
            getattr(config, "intermediate_size", 4 * width),
            config.num_attention_heads,
            config.vocab_size,
            getattr(config, "max_position_embeddings", 0),
            getattr(config, "type_vocab_size", 0),
        )

    @property
    def layer_weights(self) -> int:
        """Number of weights in a layer's six matrices: query, key, value, output and two of the feed-forward part."""
        return 4 * self.width**2 + 2 * self.width * self.intermediate

    @property
    def largest_parameter(self) -> int:
        """Number of elements of the piece embeddings."""
        return self.vocabulary * self.width

    @property
    def num_parameters(self) -> int:
        """Number of parameters of embeddings and layers, with biases and norms."""
        embeddings = (self.vocabulary + self.positions + self.token_types + 2) * self.width
        return embeddings + self.layers * (self.layer_weights + 9 * self.width + self.intermediate)


XLM_R_LARGE = EncoderShape(24, 1024, 4096, 16, 250_002, 514, 1)  # Conneau et al. (2020), table 6; its config.json


@dataclass(frozen=True, slots=True)
class ViewSize:
    """A worker's part of a micro-batch in one view, padding included.

    Attributes:
        rows: Number of encoder rows.
        pieces: Number of pieces in the longest row.
        words: Number of sentences times number of words in the longest sentence.
    """

    rows: int
    pieces: int
    words: int

    @property
    def num_pieces(self) -> int:
        """Number of positions that the encoder computes."""
        return self.rows * self.pieces


@dataclass(frozen=True, slots=True)
class StateBytes:
    """A worker's model states, in bytes.

    Attributes:
        parameters: Parameters that the forward and backward passes read.
        gradients: Gradients of the trainable parameters.
        optimizer: AdamW's two moments, float32.
        master_weights: Float32 copy of the parameters that the optimizer keeps.
        buffers: DeepSpeed's reduction bucket (stages 1 to 3) and parameters gathered from other workers (stage 3).
    """

    parameters: int
    gradients: int
    optimizer: int
    master_weights: int
    buffers: int

    @property
    def total(self) -> int:
        """Sum of all model states."""
        return self.parameters + self.gradients + self.optimizer + self.master_weights + self.buffers


def state_bytes(
    num_parameters: int,
    num_trainable: int,
    *,
    stage: int,
    workers: int,
    precision: Precision,
    accumulates: bool = False,
    bucket_elements: int = BUCKET_ELEMENTS,
    live_elements: int = LIVE_ELEMENTS,
    largest_parameter: int = 0,
) -> StateBytes:
    """Model states of a worker: Psi parameters, of which Psi_t are trained, on N workers.

    In stage 0 every worker holds all states; stage 1 partitions the optimizer's, stage 2 also the gradients, stage 3
    also the parameters. With b bytes per parameter (4, or 2 in `bfloat16`) they are b Psi + b Psi_t + 8 Psi_t, plus
    4 Psi_t of master weights in `bfloat16`, each divided by N where partitioned; b = 2 gives the ZeRO paper's 16 Psi.
    Float32 parameters are their own master weights, unless they are offloaded. In DeepSpeed, stage 1 holds all
    gradients only if it `accumulates` micro-batches, and stages 1 to 3 have a bucket to reduce them. Stage 3 keeps
    gathered parameters that it expects to need again: `live_elements` at most, but at least the largest parameter.
    """
    width = 2 if precision == "bfloat16" else 4
    has_master = precision == "bfloat16"

    def shared(num_bytes: int, since: int) -> int:
        return -(-num_bytes // workers) if stage >= since else num_bytes

    bucket = bucket_elements * width if stage > 0 else 0
    live = min(num_parameters, max(live_elements, largest_parameter))
    gathered = live * width if stage == 3 and workers > 1 else 0
    return StateBytes(
        parameters=shared(num_parameters * width, 3),
        gradients=shared(num_trainable * width, 2 if accumulates else 1),
        optimizer=shared(num_trainable * 8, 1),
        master_weights=shared(num_trainable * 4, 1) if has_master else 0,
        buffers=bucket + gathered,
    )


def activation_bytes(
    shape: EncoderShape,
    views: Sequence[ViewSize],
    *,
    num_tags: int,
    precision: Precision,
    dropout: bool,
    on_gpu: bool,
    checkpointing: bool,
    frozen_layers: int | None = None,
    attention_dropout: bool | None = None,
) -> int:
    """Bytes that a cooperative step keeps from the forward pass for the backward pass, over all its views.

    For each piece in a row of P pieces, a layer of width H, feed-forward width F and A heads keeps the bytes below. An
    entry takes m bytes in a matrix product, n in a norm (4, but 2 in `bfloat16`) and d in a dropout mask.

    - inputs of its matrices and of the activation function: m (3 H + 2 F); autocast casts the layer's input once each
      for query, key and value: m (5 H + 2 F);
    - query, key and value: 3 m H; log-sums of fused attention: 4 A; the attention mask: m P;
    - inputs of its two norms: 2 n H; their statistics: 16;
    - with dropout, two masks: 2 d H (d is 1 on a GPU; on CPUs a mask has its tensor's type).

    In `bfloat16` on a GPU with F = 4 H the sum is 34 H + 4 A + 2 P + 16: Korthikanti's 34 s b h, with fused attention
    in place of their 5 A s. On CPUs PyTorch has no fused attention with its dropout: the probabilities, the mask and
    their product are kept, 3 n A P, and query, key and value as scaled copies of n bytes per entry.

    The last layer's feed-forward part, m (H + 2 F) + n H + d H + 8 of these bytes, runs on words only.

    With checkpointing each layer keeps its input, n H, and one layer at a time is computed again.

    Outside the layers the step keeps the embeddings' norm, the word vectors before the head, float64 messages of the
    CRF (words times tags, 4 times per view and 3 times for the KL), and autocast's bfloat16 copies of the weights, one
    per view. `loss.kl=marginal` and `marginal_chain` keep more than is counted here.

    Args:
        shape: Shape of the encoder.
        views: Worker's part of a micro-batch in each view; one view in the modes `plain` and `context`.
        num_tags: Number of the CRF's tags.
        precision: Precision of the encoder's arithmetic (see `Precision`).
        dropout: Whether the encoder's dropout is on.
        on_gpu: Whether the worker has a GPU, where attention is fused even with dropout.
        checkpointing: Whether only the layers' inputs are kept.
        frozen_layers: Number of lowest layers without a backward pass; None: the embeddings are trained too.
        attention_dropout: Whether attention probabilities have dropout; None: if the layers have.
    """
    unfused = not on_gpu and (dropout if attention_dropout is None else attention_dropout)
    norm, matrix = (2 if precision == "bfloat16" else 4), (4 if precision == "float32" else 2)
    layers = shape.layers - (frozen_layers or 0)
    mask = (1 if on_gpu else matrix) if dropout else 0
    kept, again = 0, 0
    for view in views:
        layer = view.num_pieces * _layer_bytes(shape, view.pieces, precision, mask=mask, unfused=unfused)
        kept += view.num_pieces * layers * norm * shape.width if checkpointing else layers * layer
        if layers and not checkpointing:
            forward = matrix * (shape.width + 2 * shape.intermediate) + (norm + mask) * shape.width + 8
            kept -= (view.num_pieces - view.words) * forward
        again = max(again, layer if checkpointing else 0)
        if frozen_layers is None:
            kept += view.num_pieces * ((norm + mask) * shape.width + 16)
        kept += view.words * (matrix * shape.width + 4 * 8 * num_tags)
    if len(views) > 1:
        kept += views[0].words * 3 * 8 * num_tags
    if precision == "autocast":
        again += matrix * shape.layer_weights if checkpointing else 0
        kept += 0 if checkpointing else len(views) * matrix * layers * shape.layer_weights
    return kept + again


def _layer_bytes(shape: EncoderShape, pieces: int, precision: Precision, *, mask: int, unfused: bool) -> int:
    """Bytes that a layer keeps per piece, in rows of `pieces` pieces (see `activation_bytes`)."""
    norm, matrix = (2 if precision == "bfloat16" else 4), (4 if precision == "float32" else 2)
    casts = 5 if precision == "autocast" else 3
    products = matrix * (casts * shape.width + 2 * shape.intermediate)
    norms = 2 * norm * shape.width + 16
    masks = 2 * mask * shape.width
    if unfused:
        attention = norm * (3 * shape.width + 3 * shape.heads * pieces)
    else:
        attention = matrix * (3 * shape.width + pieces) + 4 * shape.heads
    return products + norms + masks + attention
