"""Settings of training: the model, its losses, the optimizer, and the run with its workers and checkpoints.

`ctxner.training` reads these sections. `ctxner.config` checks what depends on several sections.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ctxner.config.section import Place, Runtime, Section

Mode = Literal["plain", "context", "cl-l2", "cl-kl"]
MODES: tuple[str, ...] = get_args(Mode)
DEMO_MODES = ("plain", "cl-kl")  # other modes only on request, so that the demo is short
Probability = Annotated[float, Field(ge=0, lt=1)]


class ModelConfig(Section):
    """Encoder, head and views."""

    encoder: str | None = None  # folder or hub id; None: the packaged MiniLM
    warm_start: str | None = None  # ctxner model to start from instead; keeps the tags that the data has too
    dropout: Probability = 0.1
    encoder_dropout: Probability | None = None  # of its layers, attention included; None: its default
    # Of attention probabilities; None: as encoder_dropout; auto: 0 on CPUs, which then use fused attention, else None
    attention_dropout: Probability | Literal["auto"] | None = "auto"
    word_dropout: Probability = 0.0  # share of words whose vector is zeroed in training
    context_dropout: Probability = 0.0  # share of sentences that an epoch shows without passages in the context view
    random_passages: bool = False  # other sentences get their best n, n drawn again each epoch: fits any number
    freeze_embeddings: bool = False  # keep the pre-trained embeddings: half of MiniLM's parameters
    # Number of lowest layers kept frozen; with freeze_embeddings too, the backward pass ends there
    freeze_layers: NonNegativeInt = 0
    # Compute the activations of the encoder's layers twice instead of storing them
    gradient_checkpointing: Runtime[bool] = False
    legal_transitions: bool = True  # forbid tag sequences that BIOES forbids, in training and decoding
    max_pieces: PositiveInt = 512  # pieces per view, special pieces included; the encoder's limit is a further bound
    max_passages: NonNegativeInt = 6  # no text follows once so many passages are shown; entries are not bounded
    mark_entries: bool = True  # marks around the words that name an entry, in the context view
    word_shapes: bool = False  # a piece behind each word with capitals, for an encoder that does not see capitals

    @model_validator(mode="after")
    def _one_start(self) -> ModelConfig:
        if self.encoder is not None and self.warm_start is not None:
            raise ValueError("model.encoder and model.warm_start each say where to begin; set one of them")
        return self


class OptimConfig(Section):
    """AdamW with three parameter groups and a linear schedule."""

    encoder_lr: PositiveFloat = 1e-4
    head_lr: PositiveFloat = 2e-3
    crf_lr: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 0.01  # not on biases, norms and the CRF
    warmup: Probability = 0.1  # share of all steps
    clip: PositiveFloat = 5.0  # global gradient norm
    epochs: PositiveInt = 5
    batch_sentences: PositiveInt = 16  # largest number of sentences per step, over all workers
    # Largest number of pieces per micro-batch over all workers, padding and both views included. auto: as many as fit
    # into the starting machine's memory
    batch_pieces: PositiveInt | Literal["auto"] = 8192
    accumulate: PositiveInt = 1  # micro-batches per step


class LossConfig(Section):
    """Which losses are used, and their weights."""

    mode: Mode = "cl-kl"
    preset: Literal["paper", "released_code"] = "paper"
    # The temperature divides each word's log-marginals (marginal, as the released code) or, before them, the chain's
    # scores (marginal_chain). None: the preset's
    kl: Literal["sequence", "marginal", "marginal_chain"] | None = None
    temperature: PositiveFloat | None = None  # None: the preset's


class RunConfig(Section):
    """Where a run is stored, on how many workers it trains, and how it is saved."""

    storage: Runtime[Place] = Path("runs")
    name: Runtime[str | None] = None  # None: a new name; an existing name only with resume
    workers: Runtime[PositiveInt] = 1
    gpus: NonNegativeInt = 0  # GPUs per worker; 0 trains on CPUs with gloo
    threads: Runtime[PositiveInt | None] = None  # torch threads per CPU worker; None: this node's CPUs / its workers
    # Of the encoder's arithmetic; the CRF is always float32. auto: bfloat16 where the starting machine's processor, or
    # its GPU, multiplies it natively
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    # ZeRO divides among workers at stage 1: AdamW's state, 2: gradients too, 3: parameters too
    zero_stage: Runtime[Annotated[int, Field(ge=0, le=3)]] = 0
    offload: Runtime[bool] = False  # keep what ZeRO divides in main memory: slower, but fits larger models
    seed: int = 0
    keep_checkpoints: Runtime[PositiveInt] = 2  # number of best checkpoints; the last one is kept too
    # Steps between checkpoints within an epoch, beside the one at its end
    checkpoint_steps: Runtime[PositiveInt | None] = None
    checkpoint_minutes: Runtime[PositiveFloat | None] = None  # minutes without a checkpoint after which one is written
    # Number of times that the run continues by itself after losing a worker; after that, use run.resume
    max_failures: Runtime[NonNegativeInt] = 3
    resume: Runtime[bool] = False
    # Views that are scored on dev after each epoch. trained: a run of one view scores that view
    dev_views: Literal["trained", "both"] = "trained"
    log_steps: Runtime[PositiveInt] = 50  # optimizer steps between two points in TensorBoard
    mlflow: Runtime[str | None] = None  # tracking URI, such as http://host:5000; needs pip install 'ctxner[mlflow]'

    @model_validator(mode="after")
    def _offload_needs_zero(self) -> RunConfig:
        if self.offload and not self.zero_stage:
            raise ValueError(
                "run.offload=true moves what ZeRO shares, and run.zero_stage=0 shares nothing; --set run.zero_stage=1 "
                "(to 3)"
            )
        return self
