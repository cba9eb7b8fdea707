"""The encoder of most tests: two narrow layers, no dropout."""

from __future__ import annotations

from typing import Any

from transformers import BertConfig

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def tiny_bert(**changed: Any) -> BertConfig:
    """Its config, with what is given instead."""
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertConfig(**{**SIZES, **dropout, **changed})
