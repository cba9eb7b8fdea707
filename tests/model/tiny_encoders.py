"""Tiny encoders of all kinds, taggers around them, and a batch that each of them reads."""

from pathlib import Path

import torch
from transformers import AutoModel as AutoEncoder
from transformers import (
    BertConfig,
    DebertaV2Config,
    LukeConfig,
    MPNetConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from ctxner.encoders import load_encoder
from ctxner.labels import LabelSet
from ctxner.model.tagger import EncoderCRF
from ctxner.views.view import ViewBatch

# R rows, P pieces, B sentences, T words, H hidden width, L tags

LABELS = LabelSet(("person", "place"))
TINY = {
    "vocab_size": 300,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
# Each with the limit that its published checkpoints have: the position table less what padding takes.
ENCODERS: dict[str, tuple[PreTrainedConfig, int]] = {
    "bert": (BertConfig(**TINY, max_position_embeddings=512), 512),
    "xlm-r": (XLMRobertaConfig(**TINY, max_position_embeddings=514, type_vocab_size=1), 512),
    "roberta": (RobertaConfig(**TINY, max_position_embeddings=514, type_vocab_size=1), 512),
    "bertweet": (RobertaConfig(**TINY, max_position_embeddings=130, type_vocab_size=1), 128),
    "luke": (LukeConfig(**TINY, max_position_embeddings=514, entity_vocab_size=5, entity_emb_size=8), 512),
    "mpnet": (MPNetConfig(**TINY, max_position_embeddings=514), 512),
    "deberta-v2": (
        DebertaV2Config(
            **TINY, max_position_embeddings=512, relative_attention=True, pos_att_type=["p2c", "c2p"],
            position_biased_input=True, conv_kernel_size=3, type_vocab_size=0,
        ),
        512,
    ),
    "deberta-v3": (
        DebertaV2Config(
            **TINY, max_position_embeddings=512, relative_attention=True, pos_att_type=["p2c", "c2p"],
            position_biased_input=False, position_buckets=256, norm_rel_ebd="layer_norm", share_att_key=True,
            type_vocab_size=0,
        ),
        512,
    ),
}  # fmt: skip


def save_encoder(config: PreTrainedConfig, path: Path) -> str:
    torch.manual_seed(0)
    AutoEncoder.from_config(config).save_pretrained(path)
    return str(path)


def make_tagger(path: str, **settings) -> EncoderCRF:
    torch.manual_seed(1)
    return EncoderCRF.on_encoder(load_encoder(path), LABELS, **settings)


def make_batch(num_words: int = 6) -> ViewBatch:
    """Two rows of three-piece words, the second shorter."""
    torch.manual_seed(2)
    input_ids_RP = torch.randint(5, 300, (2, 3 * num_words + 2))
    attention_RP = torch.ones_like(input_ids_RP)
    attention_RP[1, -6:] = 0
    input_ids_RP[1, -6:] = 1
    places_T = 1 + 3 * torch.arange(num_words)
    mask_BT = torch.ones(2, num_words, dtype=torch.bool)
    mask_BT[1, -2:] = False
    return ViewBatch(
        input_ids_RP, attention_RP, torch.stack([places_T, places_T + 3 * num_words + 2]) * mask_BT, mask_BT
    )


def forward(model: EncoderCRF, batch: ViewBatch) -> tuple[torch.Tensor, torch.Tensor]:
    return model(batch.input_ids_RP, batch.attention_RP, batch.word_index_BT)
