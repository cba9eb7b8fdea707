"""Gold in a record that has a text: the keys and the forms that annotation tools write, as spans of characters.

Gold under a key that is not read would silently leave its sentence unlabelled, so such a record is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctxner.files.lines import SURROGATE
from ctxner.schema import Span

SPAN_KEYS = ("entities", "label", "labels")  # gold beside `text`; doccano writes each of them
_ANNOTATION_KEYS = {
    *("annotation", "annotations", "ent", "entities", "entity", "entity_mentions", "ents", "gold", "gold_tags"),
    *("label", "labels", "mention", "mentions", "named_entities", "span", "spans", "tag", "tags"),
    *("bilou", "bio", "bioes", "bmewo", "iob", "iob1", "iob2"),
    *("token_labels", "token_tags", "word_labels", "word_tags"),
    *("ner", "ner_label", "ner_labels", "ner_spans", "ner_tag", "ner_tags"),
}
_SPAN_FIELDS = (("start", "end", "type"), ("start_offset", "end_offset", "label"))
_SPAN_FORMS = (
    "{'start': int, 'end': int, 'type': str}, {'start_offset': int, 'end_offset': int, 'label': str} or "
    "[start, end, type]"
)


def is_annotation(key: str) -> bool:
    """Whether a key names gold, in this package or in another; other keys are metadata."""
    return key.lower().replace("-", "_") in _ANNOTATION_KEYS


def refuse_unread(record: Mapping[str, Any], where: str, read: str | None) -> None:
    """ValueError where the record has annotations under another key than `read`."""
    unread = [repr(key) for key in record if is_annotation(key) and key != read]
    if unread:
        keys = f"one of {', '.join(map(repr, SPAN_KEYS))} beside 'text', or 'tags' beside 'words'"
        raise ValueError(
            f"{where}: {', '.join(unread)}: looks like annotations and is not read; read are {keys}; "
            "rename the key, or remove it if it is not gold"
        )


def mentions_of(record: Mapping[str, Any], text: str, where: str) -> list[Span] | None:
    """The mentions as spans of characters; None if the record has no gold."""
    key = next((key for key in SPAN_KEYS if key in record), None)
    refuse_unread(record, where, key)
    if key is None:
        return None
    if not isinstance(record[key], list):
        raise ValueError(f"{where}: {key!r} is {record[key]!r:.80}; wanted a list of {_SPAN_FORMS}")
    return [_character_span(entity, text, where) for entity in record[key]]


def _character_span(entity: Any, text: str, where: str) -> Span:
    if isinstance(entity, dict):
        start, end, type_ = next(
            (values for names in _SPAN_FIELDS if (values := [entity.get(name) for name in names])[2] is not None),
            (None, None, None),
        )
    else:
        start, end, type_ = entity if isinstance(entity, list) and len(entity) == 3 else (None, None, None)
    if not isinstance(type_, str) or not type_:
        raise ValueError(f"{where}: entity {entity!r}; wanted {_SPAN_FORMS}")
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise ValueError(f"{where}: entity {entity!r}; wanted 0 <= start < end <= {len(text)}, the length of the text")
    return Span(start, end, SURROGATE.sub("\ufffd", type_))
