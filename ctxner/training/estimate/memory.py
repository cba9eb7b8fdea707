"""Memory of one training worker by formula: model states by ZeRO stage, and the activations of a micro-batch.

Bytes are those of tensors; what an allocator loses to fragments, and copies made after the backward pass, when
activations are gone, are not counted. Who trains on what is `ctxner.training.estimate.report`'s.

Sources: Rajbhandari et al. (2020), "ZeRO", section 3 and figure 1, for the states; Korthikanti et al. (2022), "Reducing
Activation Recomputation in Large Transformer Models", section 4, for the activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

# float32: everything; autocast: float32 parameters, matrix products in bfloat16 (`run.precision=bfloat16`);
# bfloat16: parameters and gradients in bfloat16, float32 master weights in the optimizer (DeepSpeed's bf16 engine).
Precision = Literal["float32", "autocast", "bfloat16"]
STAGES = (0, 1, 2, 3)
BUCKET_ELEMENTS = 25_000_000  # DeepSpeed's reduce_bucket_size; its default is 500 million
LIVE_ELEMENTS = 50_000_000  # stage3_max_live_parameters and -_max_reuse_distance; at its 10^9 XLM-R-large stays whole


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Sizes of a BERT-like encoder without pooler."""

    layers: int
    width: int
    intermediate: int
    heads: int
    vocabulary: int
    positions: int
    token_types: int

    @classmethod
    def of(cls, config: Any) -> EncoderShape:
        """From an encoder's Hugging Face config; one that names its feed-forward width otherwise has 4 H."""
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
        """Weights of a layer's six matrices: query, key, value, output and the two of the feed-forward part."""
        return 4 * self.width**2 + 2 * self.width * self.intermediate

    @property
    def largest_parameter(self) -> int:
        """Elements of the piece embeddings."""
        return self.vocabulary * self.width

    @property
    def num_parameters(self) -> int:
        """Embeddings and layers, with biases and norms."""
        embeddings = (self.vocabulary + self.positions + self.token_types + 2) * self.width
        return embeddings + self.layers * (self.layer_weights + 9 * self.width + self.intermediate)


XLM_R_LARGE = EncoderShape(24, 1024, 4096, 16, 250_002, 514, 1)  # Conneau et al. (2020), table 6; its config.json


@dataclass(frozen=True, slots=True)
class ViewSize:
    """A worker's part of a micro-batch in one view, padding included.

    Attributes:
        rows: Encoder rows.
        pieces: Pieces of the longest row.
        words: Sentences times words of the longest sentence.
    """

    rows: int
    pieces: int
    words: int

    @property
    def num_pieces(self) -> int:
        """Positions that the encoder works on."""
        return self.rows * self.pieces


@dataclass(frozen=True, slots=True)
class StateBytes:
    """Bytes of a worker's model states.

    Attributes:
        parameters: What forward and backward read.
        gradients: Bytes of the trainable parameters' gradients.
        optimizer: AdamW's two moments, float32.
        master_weights: The optimizer's own float32 copy of the parameters.
        buffers: DeepSpeed's reduction bucket (stages 1 to 3) and parameters gathered from other workers (stage 3).
    """

    parameters: int
    gradients: int
    optimizer: int
    master_weights: int
    buffers: int

    @property
    def total(self) -> int:
        """All of them."""
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

    Stage 0 holds all of them; stage 1 shares the optimizer's out, stage 2 the gradients too, stage 3 the parameters
    too. With b bytes a parameter (4, or 2 in `bfloat16`): b Psi + b Psi_t + 8 Psi_t and 4 Psi_t of master weights, each
    divided by N where it is shared; with b = 2 that is the ZeRO paper's 16 Psi. Float32 parameters are their own master
    weights, unless they are offloaded. In DeepSpeed, stage 1 holds all gradients only when it `accumulates`
    micro-batches, and there is a bucket for their reduction; in stage 3 whole parameters live as long as they are
    expected to be needed again: up to `live_elements`, but at least the largest of them, gathered.
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
) -> int:
    """What a cooperative step keeps of its forward pass for the backward pass, of all its views at once.

    A layer keeps, for each piece of a row of P, with width H, feed-forward width F, A heads, m bytes an entry of a
    matrix product, n of a norm (4, but 2 in `bfloat16`) and d of a dropout mask:

    - what goes into its matrices and the activation function: m (3 H + 2 F); autocast casts the layer's input once for
      each of query, key and value: m (5 H + 2 F);
    - query, key and value: 3 m H, log-sums of fused attention 4 A, its mask m P;
    - what goes into its two norms: 2 n H, and their statistics 16;
    - with dropout, two masks: 2 d H (d is 1 on a GPU; on CPUs a mask has its tensor's type).

    In `bfloat16` on a GPU with F = 4 H that is 34 H + 4 A + 2 P + 16: Korthikanti's 34 s b h, with fused attention in
    place of their 5 A s. PyTorch has no fused attention with dropout for CPUs: there probabilities, mask and their
    product are kept, 3 n A P, and query, key and value as scaled copies of n bytes.

    The last layer's feed-forward part, m (H + 2 F) + n H + d H + 8 of that, sees words only.

    With checkpointing each layer keeps its input, n H, and one layer at a time is computed again.

    Beside the layers: the embeddings' norm, the words' vectors before the head, the CRF's messages in float64 (4 a view
    and 3 of the KL, times words times tags), and autocast's bfloat16 copies of the weights, one per view.
    `loss.kl=marginal` keeps more than is counted here.

    Args:
        shape: Shape of the encoder.
        views: Both views' parts of a micro-batch; one in the modes `plain` and `context`.
        num_tags: Number of the CRF's tags.
        precision: See `Precision`.
        dropout: Whether the encoder's dropout is on.
        on_gpu: Attention is fused there even with dropout.
        checkpointing: Keep the layers' inputs only.
        frozen_layers: Lowest layers that nothing goes backward through; None: the embeddings are trained too.
    """
    norm, matrix = (2 if precision == "bfloat16" else 4), (4 if precision == "float32" else 2)
    layers = shape.layers - (frozen_layers or 0)
    mask = (1 if on_gpu else matrix) if dropout else 0
    kept, again = 0, 0
    for view in views:
        layer = view.num_pieces * _layer_bytes(shape, view.pieces, precision, dropout=dropout, on_gpu=on_gpu)
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


def _layer_bytes(shape: EncoderShape, pieces: int, precision: Precision, *, dropout: bool, on_gpu: bool) -> int:
    """Kept of a layer for each piece of rows of so many pieces; see `activation_bytes`."""
    norm, matrix = (2 if precision == "bfloat16" else 4), (4 if precision == "float32" else 2)
    casts = 5 if precision == "autocast" else 3
    products = matrix * (casts * shape.width + 2 * shape.intermediate)
    norms = 2 * norm * shape.width + 16
    masks = 2 * (1 if on_gpu else matrix) * shape.width if dropout else 0
    if dropout and not on_gpu:
        attention = norm * (3 * shape.width + 3 * shape.heads * pieces)
    else:
        attention = matrix * (3 * shape.width + pieces) + 4 * shape.heads
    return products + norms + masks + attention
