"""Texts -> pieces -> vectors: a tokenizer, and an encoder cut after one layer.

A text is padded by its own length alone, so its vectors depend on no other text of its batch, but for rounding: some
processors choose kernels by the number of texts too. So vectors may be kept and used again
(`ctxner.retrieval.rerank.embedding_cache`); what compares scores rounds them first.
"""

# B texts of a batch, P pieces, H hidden width

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor

from ctxner.control_pieces import as_text_between, control_ids
from ctxner.encoders import load_encoder, load_tokenizer, position_limit

logger = logging.getLogger(__name__)

WIDTH_STEP = 4  # pieces; texts are padded to the next multiple: finer, batches get small, and coarser, mostly padding
_TEXT_FORM = 2  # raised when the same text becomes other pieces, so that vectors kept by the embedding cache end
_MAX_TEXT_LENGTH = 20_000  # characters that reach the tokenizer, far beyond any encoder's limit


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text's pieces.

    Attributes:
        ids: [P] int32, piece ids.
        special: [P] bool, True on pieces that stand for no text ([CLS], [SEP]).
        vectors: [P, H], as the encoder gives them, on the CPU.
    """

    ids: np.ndarray
    special: np.ndarray
    vectors: Tensor


class PieceEncoder:
    """A tokenizer and an encoder, cut after the layer whose output is wanted."""

    def __init__(self, path: str, *, layer: int | None, dtype: torch.dtype, device: str, batch_pieces: int):
        """Load both; `batch_pieces` bounds texts times padded width of a batch.

        Raises:
            ValueError: They do not load, or the encoder has no such layer.
        """
        self._encoder = load_encoder(path, num_layers=layer, dtype=dtype).eval()
        self._encoder.to(device)  # type: ignore[arg-type]
        self._tokenizer = load_tokenizer(path, add_prefix_space=False)
        self._controls = control_ids(self._tokenizer)
        self._batch_pieces = batch_pieces
        self.piece_limit = min(self._tokenizer.model_max_length, position_limit(self._encoder))
        self.num_ids = max(len(self._tokenizer), int(self._encoder.config.vocab_size))
        self.width: int = self._encoder.config.hidden_size
        self.dtype = dtype
        self.device = self._encoder.device

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, max_pieces: int) -> list[EncodedText]:
        """Every text, cut to `max_pieces` or the encoder's limit, special pieces included."""
        if not texts:
            return []
        pieces = self._tokenizer(
            [text[:_MAX_TEXT_LENGTH] for text in texts],
            truncation=True,
            split_special_tokens=True,
            max_length=min(max_pieces, self.piece_limit),
            return_special_tokens_mask=True,
            return_attention_mask=False,
        )
        rows = [
            as_text_between(ids, special, self._controls, self._tokenizer.unk_token_id)
            for ids, special in zip(pieces["input_ids"], pieces["special_tokens_mask"], strict=True)
        ]
        vectors = {n: torch.empty(0, self.width, dtype=self.dtype) for n, ids in enumerate(rows) if not ids}
        for width, batch in self._batches(rows):
            hidden_BPH = self._hidden([rows[n] for n in batch], width).cpu()
            vectors.update({n: hidden_BPH[row, : len(rows[n])] for row, n in enumerate(batch)})
        return [
            EncodedText(np.array(ids, np.int32), np.array(special, np.bool_), vectors[n])
            for n, (ids, special) in enumerate(zip(rows, pieces["special_tokens_mask"], strict=True))
        ]

    def fingerprint(self) -> bytes:
        """32 bytes of all that vectors depend on: weights, tokenizer, layer, dtype, libraries, kind of processor."""
        digest = hashlib.blake2b(digest_size=32)
        config = {name: value for name, value in self._encoder.config.to_dict().items() if name != "_name_or_path"}
        processor = {name: has for name, has in torch.cpu.get_capabilities().items() if not name.startswith("num_")}
        versions = [torch.__version__, transformers.__version__, WIDTH_STEP, _TEXT_FORM, self.piece_limit]
        around = [config, processor, versions, str(self.dtype), self.device.type]
        digest.update(json.dumps(around, sort_keys=True, default=str).encode())
        for name, tensor in self._encoder.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
        with tempfile.TemporaryDirectory() as folder:
            self._tokenizer.save_pretrained(folder)
            for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
                digest.update(path.name.encode() + path.read_bytes())
        return digest.digest()

    def _batches(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[int]]]:
        """(padded width, indices of rows) of rows that have pieces, the widest first."""
        by_width: dict[int, list[int]] = {}
        for n, ids in enumerate(rows):
            if ids:
                by_width.setdefault(min(-(-len(ids) // WIDTH_STEP) * WIDTH_STEP, self.piece_limit), []).append(n)
        for width, group in sorted(by_width.items(), reverse=True):
            size = max(1, self._batch_pieces // width)
            for start in range(0, len(group), size):
                yield width, group[start : start + size]

    def _hidden(self, rows: Sequence[list[int]], width: int) -> Tensor:
        fill = self._tokenizer.pad_token_id or 0
        ids_BP = torch.tensor([[*ids, *[fill] * (width - len(ids))] for ids in rows], device=self.device)
        lengths_B = torch.tensor([len(ids) for ids in rows], device=self.device)
        mask_BP = torch.arange(width, device=self.device) < lengths_B[:, None]
        return self._encoder(input_ids=ids_BP, attention_mask=mask_BP.long()).last_hidden_state
