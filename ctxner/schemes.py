"""Tag schemes: which tags they allow, and the mentions that tags encode. Spans are half open over words.

Inside ctxner a sentence's tags are always BIOES. Other schemes exist only in files: `ctxner.files` calls `convert` and
`repair` when it reads or writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from ctxner.schema import Span

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


def types_of(tags: Iterable[str]) -> tuple[str, ...]:
    """The types that occur in BIOES tags, sorted; ValueError when a tag is malformed."""
    parsed = _parse_all(tuple(dict.fromkeys(tags)), "BIOES")
    return tuple(sorted({type for prefix, type in parsed if prefix != "O"}))


def legal_transitions(tags: Sequence[str]) -> tuple[list[bool], list[list[bool]], list[bool]]:
    """Which of these tags may begin a sentence [L], follow each other [L from][L to], and end it [L], by BIOES."""
    parsed = _parse_all(tags, "BIOES")
    start = [_wanted(_OUTSIDE, tag, "BIOES") is None for tag in parsed]
    matrix = [[_wanted(before, after, "BIOES") is None for after in parsed] for before in parsed]
    end = [_wanted(tag, _OUTSIDE, "BIOES") is None for tag in parsed]
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
