"""Keeps control pieces (start, end, padding, mask) out of the pieces of users' texts, whatever a text says.

`split_special_tokens` keeps a tokenizer from taking `[SEP]` in a text for the control piece where its model would split
these characters. It is not enough for Unigram models (XLM-R, DeBERTa-v3): their vocabulary itself has `</s>` or
`[SEP]`, with a better score than any piece of text. There the unknown piece stands in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def control_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that no text may have: all special pieces but the unknown one; none where there is no unknown piece."""
    unknown = tokenizer.unk_token_id
    return frozenset() if unknown is None else frozenset(map(int, tokenizer.all_special_ids)) - {int(unknown)}


def as_text(ids: list[int], controls: frozenset[int], unknown: int) -> list[int]:
    """The ids of a text without start and end, the unknown piece in place of each control piece."""
    return ids if controls.isdisjoint(ids) else [unknown if id in controls else id for id in ids]


def as_text_between(
    ids: Sequence[int], is_template: Iterable[int], controls: frozenset[int], unknown: int
) -> list[int]:
    """The same for ids with start and end; `is_template` is true on those, which stay."""
    return [id if own or id not in controls else unknown for id, own in zip(ids, is_template, strict=True)]
