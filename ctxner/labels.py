"""Conversions between tags, spans and label ids.

Inside ctxner a sentence's tags are always BIOES. Other schemes exist only in files: `ctxner.files` calls `convert` and
`repair` when it reads or writes them. Spans are half open over words.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ctxner.schema import Mention, Sentence, Span

SCHEMES = ("IOB2", "IOB1", "BIOES", "BMEWO", "BILOU", "BMES")

_PREFIXES = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIES", "BMEWO": "BMEW", "BILOU": "BILU", "BMES": "BMES"}
_OTHER_NAMES = {"BIO": "IOB2", "IOBES": "BIOES", "BIESO": "BIOES", "BILUO": "BILOU", "BIOUL": "BILOU", "BMESO": "BMES"}
# Letters of a scheme in place of those of BIOES
_LETTERS = {"BMEWO": {"I": "M", "S": "W"}, "BILOU": {"E": "L", "S": "U"}, "BMES": {"I": "M"}}
_BIOES_LETTERS = {name: {theirs: ours for ours, theirs in letters.items()} for name, letters in _LETTERS.items()}
_OUTSIDE = ("O", "")

_Parsed = tuple[str, str]  # BIOES prefix (or "O") and type


def scheme_name(scheme: str) -> str:
    """Name of a scheme as `SCHEMES` has it, from any case or its other names (BIO, IOBES, BILUO, ...).

    Raises:
        ValueError: An unknown name; the known ones are listed.
    """
    name = _OTHER_NAMES.get(scheme.upper(), scheme.upper())
    if name not in SCHEMES:
        raise ValueError(f"unknown tag scheme {scheme!r}; wanted one of {', '.join(SCHEMES)}")
    return name


def first_error(tags: Sequence[str], scheme: str) -> tuple[int, str] | None:
    """The first tag that `scheme` does not allow, as (word index, message), or None when all are legal."""
    scheme = scheme_name(scheme)
    previous, previous_tag = _OUTSIDE, None
    for index, tag in enumerate(tags):
        parsed = _parse(tag, scheme)
        if parsed is None:
            return index, _malformed(tag, scheme)
        wanted = _wanted(previous, parsed, scheme)
        if wanted:
            where = "at the start" if previous_tag is None else f"after {previous_tag!r}"
            return index, f"tag {tag!r} {where} is not legal {scheme}; wanted {wanted}"
        previous, previous_tag = parsed, tag
    wanted = _wanted(previous, _OUTSIDE, scheme)
    if wanted:
        end, single = (f"{_letter(prefix, scheme)}-{previous[1]}" for prefix in "ES")
        return len(tags) - 1, f"tag {previous_tag!r} at the end is not legal {scheme}; wanted {end} or {single}"
    return None


def fitting_schemes(pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The schemes that allow all pairs of neighbouring tags, in the order of `SCHEMES`.

    Whether a sentence is legal depends only on its pairs, where O stands before the first tag and after the last.
    Schemes that allow the same sentences read the same mentions from them.
    """
    distinct = set(pairs)
    return tuple(name for name in SCHEMES if all(_may_follow(before, tag, name) for before, tag in distinct))


def first_malformed(tags: Sequence[str], scheme: str) -> tuple[int, str] | None:
    """The first tag that `scheme` does not have, as (word index, message), or None; neighbours are not checked."""
    scheme = scheme_name(scheme)
    for index, tag in enumerate(tags):
        if _parse(tag, scheme) is None:
            return index, _malformed(tag, scheme)
    return None


def tags_to_spans(tags: Sequence[str], scheme: str = "BIOES", *, source: str = "") -> tuple[Span, ...]:
    """The mentions that legal tags encode, in order.

    Args:
        tags: One tag per word.
        scheme: Tag scheme, one of `SCHEMES`, in upper or lower case.
        source: Beginning of error messages, e.g. a sentence id or a file.

    Raises:
        ValueError: A tag is malformed, or illegal at its position. `lenient_spans` accepts illegal tags.
    """
    error = first_error(tags, scheme)
    if error is not None:
        where = f"{source}: " if source else ""
        raise ValueError(f"{where}word {error[0]}: {error[1]}")
    return _spans(_parse_all(tags, scheme_name(scheme)))


def gold_spans(sentence: Sentence) -> tuple[Span, ...]:
    """The gold mentions of a tagged sentence in order of position: those of its tags and those beyond them.

    A mention that no run of words is exactly becomes an empty span at a negative place, -1 for the first of
    `Sentence.beyond_tags`: it counts, and no prediction equals it. `mention_text` has its text.

    Raises:
        ValueError: The sentence has no tags (which does not mean that it has no mentions), or they break the scheme.
    """
    if sentence.tags is None:
        raise ValueError(f"sentence {sentence.id!r} has no gold tags; tag it or leave it out")
    spans = tags_to_spans(sentence.tags, source=f"sentence {sentence.id!r}")
    if not sentence.beyond_tags:
        return spans
    return tuple(sorted({*spans, *(_exact_span(sentence, place) for place in range(len(sentence.beyond_tags)))}))


def mention_text(sentence: Sentence, span: Span) -> str:
    """The words of a mention of `gold_spans` or of a prediction, joined by blanks; its text where it has no words."""
    if span.start < 0:
        return " ".join(sentence.beyond_tags[-1 - span.start].text.split())
    return " ".join(sentence.words[span.start : span.end])


def training_tags(sentence: Sentence) -> tuple[str, ...]:
    """The tags that a model learns: the gold tags, and each mention that cuts a word widened to the words it touches.

    Longer mentions come first. A mention is not widened over words that have a tag, nor if it goes on in another
    sentence: those words stay as they are.
    """
    tags = list(sentence.tags or ())
    for mention in sorted(sentence.beyond_tags, key=lambda mention: (mention.start - mention.end, mention)):
        span = touched_words(sentence.offsets or (), mention)
        if span is not None and all(tag == "O" for tag in tags[span.start : span.end]):
            prefixes = _span_prefixes(span.end - span.start, "BIOES", adjoins=False)
            tags[span.start : span.end] = [f"{prefix}-{span.type}" for prefix in prefixes]
    return tuple(tags)


def touched_words(offsets: Sequence[tuple[int, int]], mention: Span | Mention) -> Span | None:
    """The words that share characters with a mention; None where there are none, or it goes on beyond the words.

    Args:
        offsets: (start, end) of each word of a sentence, in characters.
        mention: Mention whose start and end are characters.
    """
    start = bisect_right(offsets, mention.start, key=lambda offset: offset[1])
    end = bisect_left(offsets, mention.end, key=lambda offset: offset[0])
    if start >= end or mention.start < offsets[0][0] or mention.end > offsets[-1][1]:
        return None
    return Span(start, end, mention.type)


def is_exact(offsets: Sequence[tuple[int, int]], span: Span, mention: Span | Mention) -> bool:
    """Whether words have exactly the characters of a mention from its first to its last."""
    return (offsets[span.start][0], offsets[span.end - 1][1]) == (mention.start, mention.end)


def _exact_span(sentence: Sentence, place: int) -> Span:
    mention, offsets = sentence.beyond_tags[place], sentence.offsets or ()
    span = touched_words(offsets, mention)
    return span if span and is_exact(offsets, span, mention) else Span(-1 - place, -1 - place, mention.type)


def lenient_spans(tags: Sequence[str]) -> tuple[Span, ...]:
    """The mentions in any mix of BIOES and IOB tags, legal or not, by conlleval's rules.

    A mention begins at B, at S, after O, E or S, and where the type changes; it runs until the next begin or O. On
    legal tags this equals `tags_to_spans`. seqeval's default mode does the same.

    Raises:
        ValueError: A tag is neither O nor one of B-, I-, E-, S- with a type.

    Source: conlleval.pl of the CoNLL-2000 shared task.
    """
    return _spans(_parse_all(tags, "BIOES"))


def spans_to_tags(spans: Iterable[Span], num_words: int, scheme: str = "BIOES") -> tuple[str, ...]:
    """One tag per word, from mentions in any order; the inverse of `tags_to_spans`.

    Raises:
        ValueError: A span is empty, out of range or without a type, or two spans overlap.
    """
    scheme = scheme_name(scheme)
    tags = ["O"] * num_words
    previous: Span | None = None
    for span in sorted(spans):
        if not 0 <= span.start < span.end <= num_words or not span.type:
            raise ValueError(
                f"{span} does not fit {num_words} words; wanted 0 <= start < end <= {num_words} and a type"
            )
        if previous is not None and span.start < previous.end:
            raise ValueError(f"{span} overlaps {previous}; tags can express only flat mentions")
        adjoins = previous is not None and previous.end == span.start and previous.type == span.type
        prefixes = _span_prefixes(span.end - span.start, scheme, adjoins)
        tags[span.start : span.end] = [f"{prefix}-{span.type}" for prefix in prefixes]
        previous = span
    return tuple(tags)


def convert(tags: Sequence[str], source_scheme: str, target_scheme: str) -> tuple[str, ...]:
    """Convert legal tags to another scheme. It loses nothing: converting back gives the same tags."""
    return spans_to_tags(tags_to_spans(tags, source_scheme), len(tags), target_scheme)


def to_bioes(tags: Sequence[str], scheme: str) -> tuple[str, ...]:
    """BIOES tags of the mentions that `lenient_spans` reads; on legal tags the same as `convert`, without its check.

    Raises:
        ValueError: A tag is malformed.
    """
    return spans_to_tags(_spans(_parse_all(tags, scheme_name(scheme))), len(tags))


def repair(tags: Sequence[str], scheme: str) -> tuple[tuple[str, ...], int]:
    """Legal tags of the same scheme for the mentions that `lenient_spans` reads, and the number of changed tags.

    Legal tags stay as they are. A malformed tag (`NN`, `B-`) is an error.

    Raises:
        ValueError: A tag is malformed.
    """
    scheme = scheme_name(scheme)
    repaired = spans_to_tags(_spans(_parse_all(tags, scheme)), len(tags), scheme)
    return repaired, sum(old != new for old, new in zip(tags, repaired, strict=True))


@dataclass(frozen=True)
class LabelSet:
    """The entity types of a model and the ids of their BIOES tags.

    Attributes:
        types: Entity types in the order of ids; saved with a model, since ids have no meaning without it.
    """

    types: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.types:
            raise ValueError("a LabelSet needs at least one entity type; got none")
        if len(set(self.types)) != len(self.types) or not all(self.types):
            raise ValueError(f"entity types must be distinct and not empty; got {self.types}")

    @classmethod
    def from_sentences(cls, sentences: Iterable[Sentence]) -> LabelSet:
        """The types that occur in the sentences' tags as training sees them (`training_tags`), sorted.

        Raises:
            ValueError: No sentence has tags, or no tag names a type.
        """
        tagged = [training_tags(sentence) for sentence in sentences if sentence.tags is not None]
        if not tagged:
            raise ValueError("no sentence has tags, so there are no entity types; give a file with a tag column")
        return cls.from_tags(tag for tags in tagged for tag in tags)

    @classmethod
    def from_tags(cls, tags: Iterable[str]) -> LabelSet:
        """The types that occur in BIOES tags, sorted; ValueError when all tags are O."""
        types = {type for prefix, type in _parse_all(tuple(dict.fromkeys(tags)), "BIOES") if prefix != "O"}
        if not types:
            raise ValueError("every tag is O, so there are no entity types; check the tag column and the scheme")
        return cls(tuple(sorted(types)))

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """All tags in id order: O, then B-, I-, E-, S- of each type."""
        return ("O", *(f"{prefix}-{type}" for type in self.types for prefix in "BIES"))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {tag: id for id, tag in enumerate(self.tags)}

    def __len__(self) -> int:
        return len(self.tags)

    def encode(self, tags: Sequence[str], *, source: str = "") -> list[int]:
        """The ids of BIOES tags.

        Raises:
            ValueError: A tag is unknown; the message begins with `source` and lists the known types.
        """
        ids = self._ids
        for index, tag in enumerate(tags):
            if tag not in ids:
                where = f"{source}: " if source else ""
                raise ValueError(
                    f"{where}word {index}: unknown tag {tag!r}; wanted O or B-, I-, E-, S- with one of the types "
                    f"{', '.join(self.types)}; train on data that has this type, or map it before"
                )
        return [ids[tag] for tag in tags]

    def decode(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The tags of ids; ValueError when an id is out of range."""
        for id in ids:
            if not 0 <= id < len(self):
                raise ValueError(f"label id {id} is outside 0..{len(self) - 1} of the types {', '.join(self.types)}")
        return tuple(self.tags[id] for id in ids)

    def legal_transitions(self) -> tuple[list[bool], list[list[bool]], list[bool]]:
        """Which tags may begin a sentence [L], follow each other [L from][L to], and end it [L], by BIOES."""
        parsed = _parse_all(self.tags, "BIOES")
        start = [_wanted(_OUTSIDE, tag, "BIOES") is None for tag in parsed]
        matrix = [[_wanted(before, after, "BIOES") is None for after in parsed] for before in parsed]
        end = [prefix not in "BI" for prefix, _ in parsed]
        return start, matrix, end


@lru_cache(maxsize=4096)  # a file has few distinct tags
def _parse(tag: str, scheme: str) -> _Parsed | None:
    if tag == "O":
        return _OUTSIDE
    prefix, hyphen, type = tag.partition("-")
    if not hyphen or not type or len(prefix) != 1 or prefix not in _PREFIXES[scheme]:
        return None
    return _BIOES_LETTERS.get(scheme, {}).get(prefix, prefix), type


def _letter(prefix: str, scheme: str) -> str:
    return _LETTERS.get(scheme, {}).get(prefix, prefix)


def _may_follow(before: str, tag: str, scheme: str) -> bool:
    first, second = _parse(before, scheme), _parse(tag, scheme)
    return first is not None and second is not None and _wanted(first, second, scheme) is None


def _malformed(tag: str, scheme: str) -> str:
    prefixes = ", ".join(f"{prefix}-TYPE" for prefix in _PREFIXES[scheme])
    return f"{tag!r} is not a tag of {scheme}; wanted O, {prefixes}"


def _parse_all(tags: Sequence[str], scheme: str) -> list[_Parsed]:
    parsed = []
    for index, tag in enumerate(tags):
        pair = _parse(tag, scheme)
        if pair is None:
            raise ValueError(f"word {index}: {_malformed(tag, scheme)}")
        parsed.append(pair)
    return parsed


def _spans(parsed: Sequence[_Parsed]) -> tuple[Span, ...]:
    spans: list[Span] = []
    start, previous = 0, _OUTSIDE
    for index, current in enumerate([*parsed, _OUTSIDE]):
        begins = current[0] in "BS" or previous[0] in "OES" or current[1] != previous[1]
        if begins and previous[0] != "O":
            spans.append(Span(start, index, previous[1]))
        if begins:
            start = index
        previous = current
    return tuple(spans)


def _wanted(previous: _Parsed, current: _Parsed, scheme: str) -> str | None:
    """Tags that would be legal after `previous` in place of `current`; None when `current` is legal."""
    prefix, type = current
    inside = previous[0] in "BI" and previous[1]
    if scheme == "IOB2":
        return f"B-{type}" if prefix == "I" and inside != type else None
    if scheme == "IOB1":
        return f"I-{type} (B- only parts adjoining mentions of one type)" if prefix == "B" and inside != type else None
    if inside:
        legal = prefix in "IE" and type == inside
        return None if legal else f"{_letter('I', scheme)}-{inside} or {_letter('E', scheme)}-{inside}"
    return None if prefix in "OBS" else f"O, B-{type} or {_letter('S', scheme)}-{type}"


def _span_prefixes(length: int, scheme: str, adjoins: bool) -> str:
    if scheme == "IOB1":
        return ("B" if adjoins else "I") + "I" * (length - 1)
    if scheme == "IOB2":
        return "B" + "I" * (length - 1)
    prefixes = "S" if length == 1 else "B" + "I" * (length - 2) + "E"
    return "".join(_letter(prefix, scheme) for prefix in prefixes)
