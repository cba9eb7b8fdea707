"""An entry comes back as it was, or not at all."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.retrieval.rerank.embedding_cache import EmbeddingCache
from ctxner.retrieval.rerank.encoder import EncodedText

pytestmark = pytest.mark.numeric

WIDTH = 12


def open_cache(folder, *, fingerprint=b"one", dtype=torch.bfloat16, width=WIDTH):
    return EmbeddingCache(folder, max_bytes=1 << 20, fingerprint=fingerprint, width=width, dtype=dtype)


def made_up(num_pieces, *, dtype=torch.bfloat16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    special = np.zeros(num_pieces, np.bool_)
    special[:1] = True
    vectors_PH = torch.randn(num_pieces, WIDTH, generator=generator).to(dtype)
    return EncodedText(np.arange(num_pieces, dtype=np.int32) + 1000, special, vectors_PH)


def assert_equal(found, expected):
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.special.tolist() == expected.special.tolist()
    assert found.vectors.dtype == expected.vectors.dtype
    assert torch.equal(found.vectors, expected.vectors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec=None)), unique=True, max_size=8))
def test_entries_come_back_to_the_last_bit(tmp_path_factory, dtype, texts):
    cache = open_cache(tmp_path_factory.mktemp("cache"), dtype=dtype)
    encoded = [made_up(n, dtype=dtype, seed=n) for n in range(len(texts))]  # one of them has no pieces
    cache.put(texts, encoded, max_pieces=128)
    *found, absent = cache.get([*texts, "x" * 99], max_pieces=128)
    assert absent is None
    for own, expected in zip(found, encoded, strict=True):
        assert_equal(own, expected)


def test_no_entry_is_shared_by_encoders_or_limits(tmp_path):
    open_cache(tmp_path).put(["Oslo"], [made_up(3)], max_pieces=128)
    assert open_cache(tmp_path, fingerprint=b"two").get(["Oslo"], max_pieces=128) == [None]
    assert open_cache(tmp_path).get(["Oslo"], max_pieces=12) == [None]
    assert open_cache(tmp_path).get(["8 Oslo"], max_pieces=12) == [None]
    open_cache(tmp_path, fingerprint=b"two").put(["Oslo"], [made_up(5)], max_pieces=128)
    for fingerprint, num_pieces in ((b"one", 3), (b"two", 5)):
        (found,) = open_cache(tmp_path, fingerprint=fingerprint).get(["Oslo"], max_pieces=128)
        assert_equal(found, made_up(num_pieces))


def test_entries_of_another_width_or_dtype_are_not_believed(tmp_path):
    open_cache(tmp_path).put(["Oslo"], [made_up(3)], max_pieces=128)
    for unlike in ({"dtype": torch.float32}, {"width": WIDTH + 1}):
        assert open_cache(tmp_path, **unlike).get(["Oslo"], max_pieces=128) == [None]


def test_a_changed_or_swapped_value_is_not_believed_and_is_replaced(tmp_path):
    cache = open_cache(tmp_path)
    cache.put(["Oslo", "Rome"], [made_up(3), made_up(3, seed=1)], max_pieces=128)
    oslo, rome = (cache._key(text, 128) for text in ("Oslo", "Rome"))
    values = cache._store.get([oslo, rome])
    for position in range(0, len(values[oslo]), 5):
        changed = bytearray(values[oslo])
        changed[position] ^= 1
        cache._store.put({oslo: bytes(changed)})
        assert cache.get(["Oslo"], max_pieces=128) == [None]
    for wrong in (values[rome], values[oslo][:-1], values[oslo] + b"\0", b"", b"cte1"):
        cache._store.put({oslo: wrong})
        assert cache.get(["Oslo"], max_pieces=128) == [None]
    cache.put(["Oslo"], [made_up(3)], max_pieces=128)
    assert_equal(cache.get(["Oslo"], max_pieces=128)[0], made_up(3))
