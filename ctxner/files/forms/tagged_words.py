"""Forms of words with tags or spans of words: Hugging Face's `tokens` and `ner_tags`, GLiNER's `tokenized_text`."""

from __future__ import annotations

import dataclasses
from typing import Any

from ctxner.files.forms.form import Fields, Form, Reading
from ctxner.files.gold import place_on_words
from ctxner.schema import Span

_TAG_KEYS = ("ner_tags", "tags", "ner", "labels", "label")


def _is_tokens(fields: Fields) -> bool:
    tokens = fields.get("tokens")
    if isinstance(tokens, list) and not any(isinstance(token, dict) for token in tokens):
        return True
    return isinstance(fields.get("words"), list) and ("ner_tags" in fields or _has_numbers(fields.get("tags")))


def _has_numbers(value: Any) -> bool:
    return isinstance(value, list) and any(type(item) is int for item in value)


def _word_key(fields: Fields) -> str:
    return "tokens" if "tokens" in fields else "words"


def _tag_key(fields: Fields) -> str | None:
    return next((key for key in _TAG_KEYS if key in fields), None)


def _tokens_keys(fields: Fields) -> list[str]:
    spans = fields.get("spans")  # WikiANN repeats its tags as "PER: Ann"
    repeated = ["spans"] if isinstance(spans, list) and all(isinstance(span, str) for span in spans) else []
    key = _tag_key(fields)
    return [_word_key(fields), *([] if key is None else [key, *repeated])]


def _tokens_gold(fields: Fields, where: str, reading: Reading) -> Fields:
    key = _tag_key(fields)
    if key is None:
        return {}
    tags = fields[key]
    if not isinstance(tags, list) or not all(type(tag) in (int, str) for tag in tags):
        raise ValueError(f"{where}: {key!r} is {tags!r:.80}; wanted a list of strings, or of numbers")
    if "spans" in _tokens_keys(fields):
        reading.counts.remark(f"'spans' beside {key!r} are not read", where)
    return {"tags": _named(tags, key, where, reading)}


def _named(tags: list[str | int], key: str, where: str, reading: Reading) -> list[str]:
    if not _has_numbers(tags):
        return [str(tag) for tag in tags]
    names = reading.labels or reading.names.get(key)
    if names is None:
        raise ValueError(
            f"{where}: {key!r} holds numbers, and nothing says which tags they are; give them in their order, e.g. "
            "--set 'data.labels=[O,B-PER,I-PER]', or put the data set's dataset_info.json beside the file"
        )
    if wrong := [tag for tag in tags if type(tag) is not int or not 0 <= tag < len(names)]:
        raise ValueError(f"{where}: {key!r} has {wrong[0]!r}; wanted 0 to {len(names) - 1}: {', '.join(names)}")
    return [names[tag] for tag in tags if isinstance(tag, int)]


def _gliner_gold(fields: Fields, where: str, reading: Reading) -> Fields:
    if "ner" not in fields:
        return {}
    words, mentions = fields["tokenized_text"], fields["ner"]
    if not isinstance(words, list) or not isinstance(mentions, list):
        raise ValueError(f"{where}: wanted 'tokenized_text' and 'ner' to be lists; 'ner' is {mentions!r:.80}")
    if not all(isinstance(word, str) and word.strip() for word in words):
        raise ValueError(f"{where}: wanted 'tokenized_text' to be a list of strings, none of them blank")
    spans = [_inclusive_span(mention, len(words), where) for mention in mentions]
    if not words:
        return {"tags": []}
    (tags, beyond), offsets, text = place_on_words(
        words, spans, where, overlaps=reading.overlaps, counts=reading.counts
    )
    gold: dict[str, Any] = {"tags": list(tags), "scheme": "BIOES"}
    if beyond:  # their places are in the words as one text
        rest = [dataclasses.asdict(mention) for mention in beyond]
        gold |= {"beyond_tags": rest, "offsets": list(map(list, offsets)), "text": text}
    return gold


def _inclusive_span(mention: Any, num_words: int, where: str) -> Span:
    start, end, type_ = mention if isinstance(mention, list) and len(mention) == 3 else (None, None, None)
    if not isinstance(type_, str) or not type_ or type(start) is not int or type(end) is not int:
        raise ValueError(f"{where}: mention {mention!r:.80} in 'ner'; wanted [first word, last word, type]")
    if not 0 <= start <= end < num_words:
        raise ValueError(
            f"{where}: mention {mention!r:.80} in 'ner'; wanted 0 <= first <= last < {num_words}, the words"
        )
    return Span(start, end + 1, type_)


WORDS = Form("words", lambda fields: "words" in fields and "tags" not in fields)
WORDS_WITH_TAGS = Form("words and tags", lambda fields: "words" in fields)
TOKENS = Form(
    "Hugging Face tokens and ner_tags",
    _is_tokens,
    _tokens_keys,
    lambda fields, where: {"words": fields[_word_key(fields)]},
    _tokens_gold,
)
GLINER = Form(
    "GLiNER",
    lambda fields: "tokenized_text" in fields,
    lambda fields: ("tokenized_text", "ner", "ner_labels"),
    lambda fields, where: {"words": fields["tokenized_text"]},
    _gliner_gold,
)
