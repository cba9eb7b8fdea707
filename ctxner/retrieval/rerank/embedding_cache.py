"""Encoded texts kept on disk between calls, jobs and processes of a node; see `ctxner.retrieval.rerank.bounded_store`.

An entry's key is made of the encoder's fingerprint, the most pieces of a text, and the text, so that no two encoders
share one. An entry is believed only when its length, its checksum and its key fit together; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ctxner.retrieval.rerank.bounded_store import BoundedStore
from ctxner.retrieval.rerank.encoder import EncodedText

_HEADER = struct.Struct("<4sII")  # format, checksum, number of pieces
_FORMAT = b"cte1"


class EmbeddingCache:
    """The encoded texts of one encoder."""

    def __init__(self, folder: Path, *, max_bytes: int, fingerprint: bytes, width: int, dtype: torch.dtype):
        """Use a folder, together with any other process and encoder.

        Args:
            folder: On a local disk; made when first written to.
            max_bytes: Largest size of all that is kept there, for all encoders.
            fingerprint: Fingerprint of the encoder (`PieceEncoder.fingerprint`).
            width: Width of a piece's vector.
            dtype: Type of a piece's vector.

        Raises:
            ValueError: The bound is below 1 MiB.
        """
        self._store = BoundedStore(folder, max_bytes=max_bytes)
        self._fingerprint = fingerprint
        self._width = width
        self._dtype = dtype

    def get(self, texts: Sequence[str], *, max_pieces: int) -> list[EncodedText | None]:
        """What is kept of each text, cut to `max_pieces`; None where nothing is, or nothing that can be believed."""
        keys = [self._key(text, max_pieces) for text in texts]
        values = self._store.get(keys)
        return [self._decoded(key, values[key]) if key in values else None for key in keys]

    def put(self, texts: Sequence[str], encoded: Sequence[EncodedText], *, max_pieces: int) -> None:
        """Keep texts encoded with `max_pieces`."""
        keys = [self._key(text, max_pieces) for text in texts]
        self._store.put({key: self._value(key, text) for key, text in zip(keys, encoded, strict=True)})

    def _key(self, text: str, max_pieces: int) -> bytes:
        content = f"{max_pieces} {text}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(content, key=self._fingerprint, digest_size=20).digest()

    def _value(self, key: bytes, text: EncodedText) -> bytes:
        vectors = text.vectors.contiguous().view(torch.uint8).numpy().tobytes()
        body = text.ids.astype("<i4").tobytes() + text.special.astype(np.uint8).tobytes() + vectors
        return _HEADER.pack(_FORMAT, zlib.crc32(body, zlib.crc32(key)), len(text.ids)) + body

    def _decoded(self, key: bytes, value: bytes) -> EncodedText | None:
        if len(value) < _HEADER.size:
            return None
        written_format, checksum, num_pieces = _HEADER.unpack_from(value)
        body = memoryview(value)[_HEADER.size :]
        num_bytes = num_pieces * (4 + 1 + self._width * self._dtype.itemsize)
        if written_format != _FORMAT or len(body) != num_bytes or zlib.crc32(body, zlib.crc32(key)) != checksum:
            return None
        vectors = torch.frombuffer(bytearray(body[5 * num_pieces :] or b"\0"), dtype=torch.uint8)
        return EncodedText(
            np.frombuffer(body[: 4 * num_pieces], "<i4"),
            np.frombuffer(body[4 * num_pieces : 5 * num_pieces], np.bool_),
            vectors[: num_pieces * self._width * self._dtype.itemsize].view(self._dtype).view(num_pieces, self._width),
        )
