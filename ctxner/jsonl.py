"""JSON lines with sentences: texts with character spans, or words with tags.

Tags become BIOES on reading. Errors carry `file:line`; what had to be changed is counted in the result.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ctxner.labels import SCHEMES, spans_to_tags
from ctxner.schema import Sentence, Span
from ctxner.textfiles import (
    EMPTY_TOKEN,
    SURROGATE,
    ReadResult,
    bare_name,
    checked,
    file_tags,
    lines_of,
    visible_words,
    write_lines,
)
from ctxner.words import split_words


def read_jsonl(
    path: str | Path, *, scheme: str = "BIOES", repair_tags: bool = False, id_prefix: str | None = None
) -> ReadResult:
    """Read JSON lines, one sentence a line.

    Two forms: `{"id", "text", "entities": [{"start", "end", "type"}]}` with half-open offsets in code points, and
    `{"id", "words", "tags", "scheme", "offsets"}`. Without `entities` or `tags` a sentence is unlabelled; `scheme`
    beats the argument. A word is split further where a mention begins or ends inside it, so mentions are exact.
    Lone surrogates become U+FFFD (offsets stay). A text without words is skipped and counted.

    Raises:
        ValueError: With file:line: not UTF-8, not JSON, a wrong field, a mention out of range, empty or overlapping
            another, an illegal tag, an id used twice; with the file: no sentence in it.
    """
    prefix, result = id_prefix or bare_name(path)[0], ReadResult()
    lines_of_id: dict[str, int] = {}
    for line_no, line in lines_of(path):
        if not line.strip():
            continue
        where = f"{path}:{line_no}"
        record = _json_object(line, where)
        id = str(record["id"]) if record.get("id") is not None else f"{prefix}-{len(lines_of_id)}"
        if id in lines_of_id:
            raise ValueError(f"{where}: id {id!r} is already that of line {lines_of_id[id]}; ids must be unique")
        lines_of_id[id] = line_no
        if "text" in record:
            sentence = _text_sentence(id, record, where)
        else:
            sentence = _words_sentence(id, record, where, record.get("scheme", scheme), repair_tags, result)
        if sentence.words:
            result.sentences.append(sentence)
        else:
            result.num_empty_texts += 1
    return checked(result, path, '{"text": ..., "entities": [...]} or {"words": [...], "tags": [...]} on each line')


def write_jsonl(sentences: Iterable[Sentence], path: str | Path) -> None:
    """Write the `words` form of `read_jsonl`: ids, words, BIOES tags and offsets come back; written aside, renamed."""

    def line(sentence: Sentence) -> str:
        record: dict[str, Any] = {"id": sentence.id, "words": sentence.words}
        if sentence.tags is not None:
            record |= {"tags": sentence.tags, "scheme": "BIOES"}
        if sentence.offsets is not None:
            record["offsets"] = sentence.offsets
        return json.dumps(record, ensure_ascii=False)

    write_lines(path, map(line, sentences))


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error}); wanted one object a line") from error
    if not isinstance(record, dict) or not ("text" in record or "words" in record):
        raise ValueError(f"{where}: wanted an object with 'text' or 'words'; found {line[:80]!r}")
    if not isinstance(record.get("id"), str | int | None):
        raise ValueError(f"{where}: 'id' is {record['id']!r}; wanted a string or an integer")
    return record


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_ranges(value: object) -> bool:
    """Whether it is a list of pairs of integers."""
    if not isinstance(value, list) or not all(isinstance(item, list) and len(item) == 2 for item in value):
        return False
    return all(type(number) is int for item in value for number in item)


def _clean(text: str) -> str:
    return SURROGATE.sub("\ufffd", text)


def _text_sentence(id: str, record: dict[str, Any], where: str) -> Sentence:
    if not isinstance(record["text"], str):
        raise ValueError(f"{where}: 'text' is {record['text']!r:.80}; wanted a string")
    text, entities = _clean(record["text"]), record.get("entities")
    if not isinstance(entities, list | None):
        raise ValueError(f"{where}: 'entities' is {entities!r}; wanted a list of {{'start', 'end', 'type'}}")
    cuts = {cut for entity in entities or [] for cut in _character_range(entity, text, where)}
    offsets = [piece for word in split_words(text) for piece in _cut(word, cuts)]
    words = tuple(text[start:end] for start, end in offsets)
    if entities is None:
        return Sentence(id, words, offsets=tuple(offsets))
    spans = [_word_span(entity, offsets, text, where) for entity in entities]
    try:
        tags = spans_to_tags(spans, len(words))
    except ValueError as error:
        raise ValueError(f"{where}: entities {entities}: {error}") from error
    return Sentence(id, words, tags, tuple(offsets))


def _character_range(entity: Any, text: str, where: str) -> tuple[int, int]:
    if not isinstance(entity, dict) or not isinstance(entity.get("type"), str) or not entity["type"]:
        raise ValueError(f"{where}: entity {entity!r}; wanted {{'start': int, 'end': int, 'type': str}}")
    start, end = entity.get("start"), entity.get("end")
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise ValueError(f"{where}: entity {entity!r}; wanted 0 <= start < end <= {len(text)}, the length of the text")
    return start, end


def _cut(word: tuple[int, int], cuts: set[int]) -> Iterator[tuple[int, int]]:
    inside = [cut for cut in range(word[0] + 1, word[1]) if cut in cuts] if cuts else []
    edges = [word[0], *inside, word[1]]
    yield from pairwise(edges)


def _word_span(entity: dict[str, Any], offsets: Sequence[tuple[int, int]], text: str, where: str) -> Span:
    start = bisect_right(offsets, entity["start"], key=lambda offset: offset[1])
    end = bisect_left(offsets, entity["end"], key=lambda offset: offset[0])
    if start >= end:
        found = text[entity["start"] : entity["end"]]
        raise ValueError(f"{where}: entity {entity!r} covers no word, only {found!r}; remove it or mend its offsets")
    return Span(start, end, _clean(entity["type"]))


def _words_sentence(
    id: str, record: dict[str, Any], where: str, scheme: object, repairing: bool, result: ReadResult
) -> Sentence:
    words, tags, offsets = record["words"], record.get("tags"), record.get("offsets")
    if not _is_strings(words) or not (tags is None or _is_strings(tags)):
        raise ValueError(f"{where}: wanted 'words' and 'tags' to be lists of strings")
    if not (offsets is None or _is_ranges(offsets)):
        raise ValueError(f"{where}: wanted 'offsets' to be a list of [start, end]")
    if not isinstance(scheme, str) or scheme.upper() not in SCHEMES:
        raise ValueError(f"{where}: unknown tag scheme {scheme!r}; wanted one of {', '.join(SCHEMES)}")
    for name, values in (("tags", tags), ("offsets", offsets)):
        if values is not None and len(values) != len(words):
            raise ValueError(f"{where}: {len(values)} {name} for {len(words)} words; give one a word")
    visible = visible_words([_clean(word) for word in words], EMPTY_TOKEN, result)
    if tags is not None:
        places = [f"{where}: word {index}" for index in range(len(words))]
        tags = file_tags([_clean(tag) for tag in tags], scheme, repairing, places, result)
    return Sentence(id, visible, tags, None if offsets is None else tuple((start, end) for start, end in offsets))
