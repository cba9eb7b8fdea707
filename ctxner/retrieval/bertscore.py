"""BERTScore's two halves: encode texts piece by piece, and match passages with sentences.

Scores equal those of the package bert-score without its rescaling (Zhang et al., "BERTScore", ICLR 2020); the order in
which passages are encoded, and what follows from the scores, is `ctxner.retrieval.rerank`.
"""

# N sentence-passage pairs, B texts of a batch, P a text's pieces, S a sentence's pieces, H hidden width

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

_MAX_PAIR_PIECES = 16_384  # sentence and passage pieces gathered at once; 25 MB each at 384 floats a piece
_MAX_TEXT_LENGTH = 20_000  # characters that reach the tokenizer, far beyond any encoder's limit

Idf = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Pieces:
    """A tokenized text: piece ids, and which of them are special ([CLS], [SEP])."""

    ids: list[int]
    special: list[int]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Unit vectors of texts, right-padded, with each piece's share of its text's mean (0 on special and padding)."""

    vectors_BPH: Tensor
    weights_BP: Tensor
    mask_BP: Tensor


class PieceEncoder:
    """A tokenizer and an encoder, cut after the layer whose output is compared."""

    def __init__(self, path: str, *, layer: int | None, dtype: torch.dtype, device: str):
        """Load both.

        Raises:
            ValueError: They do not load, or the encoder has no such layer.
        """
        self._tokenizer, self._encoder = _load_encoder(path, layer, dtype)
        self._encoder.to(device)  # type: ignore[arg-type]
        self.piece_limit = _piece_limit(self._tokenizer, self._encoder)

    def tokenize(self, texts: Sequence[str], *, max_pieces: int) -> list[Pieces]:
        """Pieces of every text, cut to `max_pieces` or the encoder's limit, special ones included."""
        if not texts:
            return []
        output = self._tokenizer(
            [text[:_MAX_TEXT_LENGTH] for text in texts],
            truncation=True,
            max_length=min(max_pieces, self.piece_limit),
            return_special_tokens_mask=True,
            return_attention_mask=False,
        )
        return [Pieces(*fields) for fields in zip(output["input_ids"], output["special_tokens_mask"], strict=True)]

    def encode(self, texts: Sequence[Pieces], idf: Idf | None) -> Encoded:
        """Vectors of one batch."""
        device = self._encoder.device
        mask_BP = _padded([[1] * len(text.ids) for text in texts], 0).to(device)
        ids_BP = _padded([text.ids for text in texts], self._tokenizer.pad_token_id or 0).to(device)
        hidden_BPH = self._encoder(input_ids=ids_BP, attention_mask=mask_BP).last_hidden_state.float()
        weights_BP = _padded([_weights(text, idf) for text in texts], 0.0).to(device)
        return Encoded(torch.nn.functional.normalize(hidden_BPH, dim=-1), weights_BP, mask_BP.bool())


class SentenceBank:
    """Sentences' vectors, end to end, from which those of any sentences are gathered as one padded tensor."""

    def __init__(self, encoder: PieceEncoder, sentences: Sequence[Pieces], idf: Idf | None, *, batch_pieces: int):
        """Encode at least one sentence."""
        rows: dict[int, tuple[Tensor, Tensor]] = {}
        for batch in length_batches(sentences, batch_pieces):
            encoded = encoder.encode([sentences[n] for n in batch], idf)
            for row, n in enumerate(batch):
                length = len(sentences[n].ids)
                rows[n] = encoded.vectors_BPH[row, :length].clone(), encoded.weights_BP[row, :length]
        self._lengths = [len(sentence.ids) for sentence in sentences]
        self._starts = [0, *itertools.accumulate(self._lengths)]
        self._vectors = torch.cat([rows[n][0] for n in range(len(rows))])
        self._weights = torch.cat([rows[n][1] for n in range(len(rows))])

    def f1(self, passages: Encoded, passage_rows: Sequence[int], sentences: Sequence[int]) -> list[float]:
        """F1 of passage `passage_rows[n]` against sentence `sentences[n]`, for every n."""
        order = sorted(range(len(sentences)), key=lambda n: self._lengths[sentences[n]])
        num_pieces = passages.mask_BP.shape[1]
        values = [0.0] * len(order)
        for chunk in _budgeted(order, lambda n: max(num_pieces, self._lengths[sentences[n]]), _MAX_PAIR_PIECES):
            f1_N = self._f1_chunk(passages, [passage_rows[n] for n in chunk], [sentences[n] for n in chunk])
            for n, value in zip(chunk, f1_N.tolist(), strict=True):
                values[n] = value
        return values

    def _f1_chunk(self, passages: Encoded, passage_rows: list[int], sentences: list[int]) -> Tensor:
        device = self._vectors.device
        lengths_N = torch.tensor([self._lengths[n] for n in sentences], device=device)
        starts_N = torch.tensor([self._starts[n] for n in sentences], device=device)
        positions_S = torch.arange(int(lengths_N.max()), device=device)
        mask_NS = positions_S < lengths_N[:, None]
        index_NS = torch.where(mask_NS, starts_N[:, None] + positions_S, 0)
        rows_N = torch.tensor(passage_rows, device=device)
        similarity_NPS = passages.vectors_BPH[rows_N] @ self._vectors[index_NS].transpose(1, 2)
        passage_mask_NP = passages.mask_BP[rows_N]
        similarity_NPS = similarity_NPS.masked_fill(~(passage_mask_NP[:, :, None] & mask_NS[:, None, :]), -1.0)
        precision_N = (similarity_NPS.amax(2) * passages.weights_BP[rows_N]).sum(1)
        recall_N = (similarity_NPS.amax(1) * self._weights[index_NS] * mask_NS).sum(1)
        return torch.nan_to_num(2 * precision_N * recall_N / (precision_N + recall_N), nan=0.0)


def inverse_document_frequency(texts: Sequence[Pieces]) -> Idf:
    """bert-score's: log((N + 1) / (texts with the piece + 1)); 0 for the special pieces, which all texts have."""
    counts = Counter(piece for text in texts for piece in set(text.ids))
    return lambda piece: math.log((len(texts) + 1) / (counts[piece] + 1))


def _weights(text: Pieces, idf: Idf | None) -> list[float]:
    """Each piece's share; special pieces have none (they may be matched, and need no match)."""
    weights = [
        0.0 if special else (idf(piece) if idf else 1.0) for piece, special in zip(text.ids, text.special, strict=True)
    ]
    total = sum(weights)
    return [weight / total for weight in weights] if total else weights


def length_batches(texts: Sequence[Pieces], max_pieces: int) -> Iterator[list[int]]:
    """Indices of texts of like length, the longest first; texts times longest text is at most `max_pieces`."""
    order = sorted(range(len(texts)), key=lambda n: -len(texts[n].ids))
    return _budgeted(order, lambda n: len(texts[n].ids), max_pieces)


def _budgeted(items: Iterable[int], cost: Callable[[int], int], budget: int) -> Iterator[list[int]]:
    """Consecutive groups whose size times highest cost is at most `budget`; an item beyond it goes alone."""
    group: list[int] = []
    highest = 0
    for item in items:
        highest = max(highest, cost(item))
        if group and highest * (len(group) + 1) > budget:
            yield group
            group, highest = [], cost(item)
        group.append(item)
    if group:
        yield group


def _padded(rows: Sequence[Sequence[float]], fill: float) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def _load_encoder(path: str, layer: int | None, dtype: torch.dtype) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and encoder, cut after `layer`."""
    with _loading(path):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        num_layers: int = config.num_hidden_layers
    if layer is not None and not 1 <= layer <= num_layers:
        raise ValueError(f"layer is {layer}; encoder {path!r} has layers 1 to {num_layers}")
    config.num_hidden_layers = layer or num_layers
    with _loading(path):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        encoder, report = AutoModel.from_pretrained(
            path, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
        if missing:
            raise ValueError(f"no weights for {', '.join(missing[:3])}")
    return tokenizer, encoder.eval()


@contextmanager
def _loading(path: str) -> Iterator[None]:
    """Keep transformers from reporting the layers left out (and bars), and name the encoder in its errors."""
    verbosity, shows_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"encoder {path!r} does not load ({reason}); wanted a hub id, or a folder with config.json, "
            "model.safetensors and tokenizer files"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shows_bars:
            transformers_logging.enable_progress_bar()


def _piece_limit(tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel) -> int:
    """Most pieces the encoder takes; a tokenizer that knows no limit names a huge one."""
    positions = getattr(encoder.config, "max_position_embeddings", None) or 512
    return min(tokenizer.model_max_length, positions)
