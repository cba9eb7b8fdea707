"""Turning records into sentences: a text with character spans, or words with tags.

Records come from JSON lines and Parquet rows. A record is read whole or refused: gold under a key that is not read
would silently leave its sentence unlabelled. Column files use `visible_words` too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ctxner.files.annotations import mentions_of, refuse_unread
from ctxner.files.gold import Overlaps, place_mentions
from ctxner.files.json_values import MAX_CHARS
from ctxner.files.lines import EMPTY_TOKEN, MAX_WORDS, SURROGATE, ReadCounts
from ctxner.files.tags import AUTO, FileTags
from ctxner.files.unique_ids import IdHashes, refuse_repeats
from ctxner.files.words import split_text
from ctxner.schema import Mention, Sentence
from ctxner.schemes import scheme_name

_RECORD_HINT = "mend the record's tags or its 'scheme', or --set data.repair=true reads them by conlleval's rules"

Record = tuple[str, str, Mapping[str, Any]]  # place as errors name it, id, fields that are not null

DOCUMENT_IDS = ("document_id", "doc_id")  # fields that name the document of a record; the first that has a value counts
BEYOND_TAGS = "beyond_tags"  # of words: the gold mentions that `tags` cannot express
_TAGGED_FIELDS = ("tags", "scheme", BEYOND_TAGS)
_MENTION_FIELDS = ("start", "end", "type", "text")


def iter_records(
    records: Callable[[], Iterator[Record]],
    *,
    scheme: str,
    repair_tags: bool,
    tagged: bool,
    counts: ReadCounts,
    path: str | Path | None = None,
    overlaps: Overlaps = "longest",
) -> Iterator[Sentence]:
    """The sentences of a file's records; memory grows by eight bytes per id. Where a record has words, they count.

    Args:
        records: Function that reads the file; called again when an id may be there twice, and to recognise a scheme.
        scheme: Tag scheme of records that do not name one; `auto` recognises it from all of them.
        repair_tags: Whether illegal tag sequences are mended and counted, instead of refused.
        tagged: Whether gold is wanted. If not, no sentence has tags, and no annotation is a reason to refuse a record.
        counts: Counters to add to; a text without words is skipped and counted.
        path: File under which `counts` notes a recognised scheme.
        overlaps: See `text_sentences`.

    Raises:
        ValueError: A fault in a record (see `text_sentences` and `words_sentence`); at the end, an id used twice.
    """
    ids = IdHashes()

    def sentences() -> Iterator[tuple[str, Sentence]]:
        file_tags: FileTags | None = None
        for where, id, record in records():
            ids.add(id)
            if "words" not in record:
                parts = text_sentences(id, record, where, tagged=tagged, overlaps=overlaps, counts=counts)
                for part in parts if len(parts) > 1 else ():
                    ids.add(part.id)
                if not parts:
                    counts.count("num_empty_texts", where)
                for part in parts:
                    if part.tags is not None:
                        tags = *part.tags, *(f"S-{mention.type}" for mention in part.beyond_tags)
                        counts.note_tags(tags, lambda _, where=where: where)  # type: ignore[misc]
                    yield where, part
                continue
            if tagged:
                refuse_unread(record, where, "tags")
            else:
                record = {name: value for name, value in record.items() if name not in _TAGGED_FIELDS}
            if "tags" in record and "scheme" not in record and file_tags is None:
                file_tags = FileTags(lambda: _unnamed_tags(records()), scheme, repair=repair_tags)
                if path is not None and scheme == AUTO:
                    form = counts.recognised.get(str(path), "words and tags")  # of the records, read by FileTags
                    counts.recognised[str(path)] = f"{form}, {file_tags.name}"
            yield (
                where,
                words_sentence(
                    id, record, where, scheme=scheme, repair_tags=repair_tags, counts=counts, file_tags=file_tags
                ),
            )

    yield from counts.counted(sentences())
    refuse_repeats(ids, _all_ids(records()))


def _all_ids(records: Iterator[Record]) -> Iterator[tuple[str, str]]:
    """Place and id of each record, and of each sentence of a text that has several."""
    for where, id, record in records:
        yield where, id
        if "words" not in record and (num_sentences := len(split_text(record_text(record, where)))) > 1:
            yield from ((where, part_id) for part_id in _sentence_ids(id, num_sentences))


def _sentence_ids(id: str, num_sentences: int) -> list[str]:
    return [id] if num_sentences == 1 else [f"{id}-{number}" for number in range(num_sentences)]


def text_sentences(
    id: str,
    record: Mapping[str, Any],
    where: str,
    *,
    tagged: bool = True,
    overlaps: Overlaps = "longest",
    counts: ReadCounts | None = None,
) -> list[Sentence]:
    """The sentences of a record `{"text", "entities": [{"start", "end", "type"}], "document_id"}`; maybe none.

    Doccano's forms are read too: `label` or `labels` in place of `entities`, and `[start, end, type]` or
    `{"start_offset", "end_offset", "label"}` in place of an entity. Offsets are half open, in code points. Without
    entities the sentences are unlabelled. The text is split as any other, whatever its mentions
    (`ctxner.files.words.split_text`); what tags cannot express is in `Sentence.beyond_tags`. A single sentence keeps
    the id, several have `{id}-{n}` from 0. The document is `document_id` or `doc_id`, else the id. Lone surrogates
    become U+FFFD (offsets stay).

    Args:
        id: Id of the record.
        record: Fields of the record that are not null; keys that do not look like annotations are ignored.
        where: Place of the record in errors, e.g. file:line.
        tagged: Whether gold is wanted. If not, it is not looked at.
        overlaps: `longest`: of overlapping mentions the longest become tags; `refuse`: they are an error.
        counts: Counters for remarks about mentions that tags cannot express.

    Raises:
        ValueError: A text that is no string; if gold is wanted, annotations under another key, an entity in another
            form, or a mention that is out of range, empty or without a word, or overlaps another with `refuse`.
    """
    text, document = record_text(record, where), _document(record, where) or id
    if len(text) > MAX_CHARS:
        raise ValueError(f"{where}: a text of {len(text):,} characters; cut it to {MAX_CHARS:,} at most")
    mentions = mentions_of(record, text, where) if tagged else None
    split = split_text(text)
    gold: Sequence[tuple[tuple[str, ...] | None, tuple[Mention, ...]]] = [(None, ())] * len(split)
    if mentions is not None:
        gold = place_mentions(mentions, split, text, where, overlaps=overlaps, counts=counts or ReadCounts())
    return [
        Sentence(
            part_id,
            tuple(text[start:end] for start, end in offsets),
            tags,
            offsets,
            text,
            document=document,
            beyond_tags=beyond,
        )
        for part_id, offsets, (tags, beyond) in zip(_sentence_ids(id, len(split)), split, gold, strict=True)
    ]


def words_sentence(
    id: str,
    record: Mapping[str, Any],
    where: str,
    *,
    scheme: str,
    repair_tags: bool,
    counts: ReadCounts,
    file_tags: FileTags | None = None,
) -> Sentence:
    """The sentence of a record `{"words", "tags", "scheme", "offsets", "text", "beyond_tags", "document_id"}`.

    Only `words` is required. `text` is kept if `offsets` are given, which refer to it. `beyond_tags` is a list of
    `{"start", "end", "type", "text"}` (`Sentence.beyond_tags`). `doc_id` is read where there is no `document_id`.

    Args:
        id: Id of the sentence.
        record: Fields of the record that are not null; other keys than these are ignored.
        where: Place of the record in errors, e.g. file:line.
        scheme: Tag scheme of a record without `scheme`; tags become BIOES.
        repair_tags: Whether an illegal tag sequence is mended and counted, instead of refused.
        counts: Counters of changes to add to.
        file_tags: Reader of tags without `scheme`, in place of `scheme` and `repair_tags`, which see only this record.

    Raises:
        ValueError: A field of a wrong type or length, an unknown scheme, an illegal tag.
    """
    words, tags, offsets = record["words"], record.get("tags"), record.get("offsets")
    if not _is_strings(words) or not (tags is None or _is_strings(tags)):
        raise ValueError(f"{where}: wanted 'words' and 'tags' to be lists of strings")
    if len(words) > MAX_WORDS:
        raise ValueError(f"{where}: a sentence of {len(words):,} words; split it: {MAX_WORDS:,} at most")
    if not (offsets is None or _is_ranges(offsets)):
        raise ValueError(f"{where}: wanted 'offsets' to be a list of [start, end]")
    if "scheme" in record:
        scheme, file_tags = _scheme(record["scheme"], where), None
    for name, values in (("tags", tags), ("offsets", offsets)):
        if values is not None and len(values) != len(words):
            raise ValueError(f"{where}: {len(values)} {name} for {len(words)} words; wanted one per word")

    def place(index: int) -> str:
        return f"{where}: word {index}"

    visible = visible_words([_clean(word) for word in words], EMPTY_TOKEN, counts, place)
    if tags is not None:
        tags = [_clean(tag) for tag in tags]
        reader = file_tags or FileTags(partial(iter, [tags]), scheme, repair=repair_tags, hint=_RECORD_HINT)
        tags = reader.bioes(tags, place, counts)
    ranges = None if offsets is None else tuple((start, end) for start, end in offsets)
    text = None if ranges is None or "text" not in record else record_text(record, where)
    if text is not None and not all(0 <= start < end <= len(text) for start, end in ranges or ()):
        raise ValueError(f"{where}: an offset is not in 'text'; wanted 0 <= start < end <= {len(text)}, its length")
    beyond = _beyond_tags(record, where) if tags is not None else ()
    return Sentence(id, visible, tags, ranges, text, document=_document(record, where), beyond_tags=beyond)


def _scheme(name: Any, where: str) -> str:
    try:
        return scheme_name(name if isinstance(name, str) else repr(name))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _unnamed_tags(records: Iterator[Record]) -> Iterator[list[str]]:
    """The tags of each record that has words and names no scheme."""
    for _, _, record in records:
        if "words" in record and "scheme" not in record and _is_strings(record.get("tags")):
            yield [_clean(tag) for tag in record["tags"]]


def visible_words(
    words: Sequence[str], empty_token: str, counts: ReadCounts, place: Callable[[int], str]
) -> tuple[str, ...]:
    """The words, with `empty_token` in place of blank ones, which are counted; `place` names a word's place."""
    blank = [index for index, word in enumerate(words) if not word.strip()]
    for index in blank:
        counts.count("num_empty_tokens", place(index))
    return tuple(word if word.strip() else empty_token for word in words) if blank else tuple(words)


def _beyond_tags(record: Mapping[str, Any], where: str) -> tuple[Mention, ...]:
    mentions, given = [], record.get(BEYOND_TAGS, [])
    for item in given if isinstance(given, list) else [given]:
        values: list[Any] = [item.get(name) for name in _MENTION_FIELDS] if isinstance(item, dict) else []
        if [type(value) for value in values] != [int, int, str, str]:
            raise ValueError(
                f"{where}: {BEYOND_TAGS!r} has {item!r:.80}; wanted {{'start': int, 'end': int, 'type': str, "
                "'text': str}"
            )
        start, end, *strings = values
        mentions.append(Mention(start, end, *map(_clean, strings)))
    return tuple(mentions)


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


def record_text(record: Mapping[str, Any], where: str) -> str:
    """The text of a record, with U+FFFD for lone surrogates; ValueError if it is no string."""
    if not isinstance(record["text"], str):
        raise ValueError(f"{where}: 'text' is {record['text']!r:.80}; wanted a string")
    return _clean(record["text"])


def _clean(text: str) -> str:
    return SURROGATE.sub("\ufffd", text)
