"""Turning records into sentences: a text with character spans, or words with tags.

Records come from JSON lines and Parquet rows. Column files use `file_tags` and `visible_words` too.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ctxner.files.lines import EMPTY_TOKEN, SURROGATE, ReadCounts
from ctxner.files.unique_ids import IdHashes, refuse_repeats
from ctxner.files.words import split_words
from ctxner.labels import SCHEMES, convert, first_error, first_malformed, repair, spans_to_tags
from ctxner.schema import Sentence, Span

Record = tuple[str, str, Mapping[str, Any]]  # place as errors name it, id, fields
DOCUMENT_IDS = ("document_id", "doc_id")  # fields that name the document of a record; the first that has a value counts


def iter_records(
    records: Callable[[], Iterator[Record]], *, scheme: str, repair_tags: bool, counts: ReadCounts
) -> Iterator[Sentence]:
    """The sentences of a file's records; memory grows by eight bytes per record.

    Args:
        records: Function that reads the file; called again when an id may be there twice.
        scheme: Tag scheme of records that do not name one.
        repair_tags: Whether illegal tag sequences are mended and counted, instead of refused.
        counts: Counters to add to; a text without words is skipped and counted.

    Raises:
        ValueError: A fault in a record (see `text_sentence` and `words_sentence`); at the end, an id used twice.
    """
    ids = IdHashes()

    def sentences() -> Iterator[Sentence]:
        for where, id, record in records():
            ids.add(id)
            if "text" in record:
                yield text_sentence(id, record, where)
            else:
                yield words_sentence(id, record, where, scheme=scheme, repair_tags=repair_tags, counts=counts)

    yield from counts.counted(sentences())
    refuse_repeats(ids, ((where, id) for where, id, _ in records()))


def text_sentence(id: str, record: Mapping[str, Any], where: str) -> Sentence:
    """The sentence of a record `{"text", "entities": [{"start", "end", "type"}], "document_id"}`; it may have no word.

    Offsets are half open, in code points. Without `entities` the sentence is unlabelled. A word is split further if a
    mention begins or ends inside it, so that mentions are exact. Lone surrogates become U+FFFD (offsets stay).
    `doc_id` is read where there is no `document_id`.

    Args:
        id: Id of the sentence.
        record: Fields of the record; other keys than these are ignored.
        where: Place of the record in errors, e.g. file:line.

    Raises:
        ValueError: A field of a wrong type, or a mention that is out of range, empty or overlapping another.
    """
    if not isinstance(record["text"], str):
        raise ValueError(f"{where}: 'text' is {record['text']!r:.80}; wanted a string")
    text, entities = _clean(record["text"]), record.get("entities")
    if not isinstance(entities, list | None):
        raise ValueError(f"{where}: 'entities' is {entities!r}; wanted a list of {{'start', 'end', 'type'}}")
    cuts = {cut for entity in entities or [] for cut in _character_range(entity, text, where)}
    offsets = [piece for word in split_words(text) for piece in _cut(word, cuts)]
    words = tuple(text[start:end] for start, end in offsets)
    document = _document(record, where)
    if entities is None:
        return Sentence(id, words, offsets=tuple(offsets), document=document)
    spans = [_word_span(entity, offsets, text, where) for entity in entities]
    try:
        tags = spans_to_tags(spans, len(words))
    except ValueError as error:
        raise ValueError(f"{where}: entities {entities}: {error}") from error
    return Sentence(id, words, tags, tuple(offsets), document=document)


def words_sentence(
    id: str, record: Mapping[str, Any], where: str, *, scheme: str, repair_tags: bool, counts: ReadCounts
) -> Sentence:
    """The sentence of a record `{"words", "tags", "scheme", "offsets", "document_id"}`; only `words` is required.

    `doc_id` is read where there is no `document_id`.

    Args:
        id: Id of the sentence.
        record: Fields of the record; other keys than these are ignored.
        where: Place of the record in errors, e.g. file:line.
        scheme: Tag scheme of a record without `scheme`; tags become BIOES.
        repair_tags: Whether an illegal tag sequence is mended and counted, instead of refused.
        counts: Counters of changes to add to.

    Raises:
        ValueError: A field of a wrong type or length, an unknown scheme, an illegal tag.
    """
    scheme = record.get("scheme", scheme)
    words, tags, offsets = record["words"], record.get("tags"), record.get("offsets")
    if not _is_strings(words) or not (tags is None or _is_strings(tags)):
        raise ValueError(f"{where}: wanted 'words' and 'tags' to be lists of strings")
    if not (offsets is None or _is_ranges(offsets)):
        raise ValueError(f"{where}: wanted 'offsets' to be a list of [start, end]")
    if not isinstance(scheme, str) or scheme.upper() not in SCHEMES:
        raise ValueError(f"{where}: unknown tag scheme {scheme!r}; wanted one of {', '.join(SCHEMES)}")
    for name, values in (("tags", tags), ("offsets", offsets)):
        if values is not None and len(values) != len(words):
            raise ValueError(f"{where}: {len(values)} {name} for {len(words)} words; wanted one per word")
    visible = visible_words([_clean(word) for word in words], EMPTY_TOKEN, counts)
    if tags is not None:
        places = [f"{where}: word {index}" for index in range(len(words))]
        tags = file_tags([_clean(tag) for tag in tags], scheme, repair_tags, places, counts)
    ranges = None if offsets is None else tuple((start, end) for start, end in offsets)
    return Sentence(id, visible, tags, ranges, document=_document(record, where))


def visible_words(words: Sequence[str], empty_token: str, counts: ReadCounts) -> tuple[str, ...]:
    """The words, with `empty_token` in place of blank ones, which are counted."""
    visible = tuple(word if word.strip() else empty_token for word in words)
    counts.num_empty_tokens += sum(not word.strip() for word in words)
    return visible


def file_tags(
    tags: Sequence[str], scheme: str, repairing: bool, places: Sequence[str], counts: ReadCounts
) -> tuple[str, ...]:
    """A sentence's tags as BIOES, after a check or a counted repair; `places` has the file:line of each word."""
    error = (first_malformed if repairing else first_error)(tags, scheme)
    if error is not None:
        index, message = error
        fitting = [name for name in SCHEMES if first_error(tags, name) is None]
        if fitting:
            hint = f"the sentence is legal {' and '.join(fitting)}: set the scheme"
        elif first_malformed(tags, scheme) is None:
            hint = "no scheme allows the sentence: repair=True reads it by conlleval's rules and counts the changes"
        else:
            hint = "is this the tag column?"
        raise ValueError(f"{places[index]}: {message}; {hint}")
    if repairing:
        tags, num_changed = repair(tags, scheme)
        counts.num_repaired_tags += num_changed
    return convert(tags, scheme, "BIOES")


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_ranges(value: object) -> bool:
    """Whether it is a list of pairs of integers."""
    if not isinstance(value, list) or not all(isinstance(item, list) and len(item) == 2 for item in value):
        return False
    return all(type(number) is int for item in value for number in item)


def _document(record: Mapping[str, Any], where: str) -> str | None:
    for name in DOCUMENT_IDS:
        value = record.get(name)
        if type(value) not in (str, int, type(None)):
            raise ValueError(f"{where}: {name!r} is {value!r:.80}; wanted a string or an integer")
        if value not in (None, ""):
            return _clean(str(value))
    return None


def _clean(text: str) -> str:
    return SURROGATE.sub("\ufffd", text)


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
        covered = text[entity["start"] : entity["end"]]
        raise ValueError(f"{where}: entity {entity!r} covers no word, only {covered!r}; remove it or mend its offsets")
    return Span(start, end, _clean(entity["type"]))
