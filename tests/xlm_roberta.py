"""An XLM-R of the tests' own: its architecture and tokenizer class, small, with a SentencePiece model trained here."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import sentencepiece
import torch
from transformers import XLMRobertaConfig, XLMRobertaModel

from tests.tiny_bert import SIZES

LARGE = {
    "vocab_size": 250_002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}  # of xlm-roberta-large's config.json


def save_xlm_roberta(
    folder: Path, texts: Iterable[str], *, num_pieces: int = 400, sizes: Mapping[str, int] = SIZES
) -> str:
    """Write an encoder's folder as `xlm-roberta-base` has it, but for the sizes; returns its path.

    Args:
        folder: To be made.
        texts: What the SentencePiece model is trained on.
        num_pieces: Of that model, at most.
        sizes: Of the encoder, whose weights are random; the vocabulary's is the SentencePiece model's unless given.
    """
    folder.mkdir(parents=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=num_pieces,
        hard_vocab_limit=False,
        character_coverage=1.0,
        model_type="unigram",
        minloglevel=2,
    )
    num_pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512})
    )
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        **{"vocab_size": num_pieces + 2, **sizes},  # beside the model's pieces <pad> and <mask>
        max_position_embeddings=514,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)
