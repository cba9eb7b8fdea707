"""The tags of one file: the scheme and spelling that the whole file has, and each sentence's tags as BIOES.

Files write the tag `B-PER` also as `b-PER` or `PER-B`, a mention's tags also as `PER PER` or `B I`. The readers of
columns and of records pass their tags through here; the schemes themselves are in `ctxner.schemes`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ctxner.files.lines import ReadCounts
from ctxner.schemes import SCHEMES, first_error, first_malformed, fitting_schemes, repair, scheme_name, to_bioes

AUTO = "auto"
NO_TYPE = "entity"
_LETTERS = "BIESMWLU"
_PREFIXED = re.compile(rf"[{_LETTERS}]-.+", re.DOTALL)
_ANY_CASE = re.compile(_PREFIXED.pattern, re.DOTALL | re.IGNORECASE)
_SUFFIXED = re.compile(rf"(.+)-([{_LETTERS}])", re.DOTALL | re.IGNORECASE)
_MAX_PAIRS = 1 << 17  # of a column of words or numbers; a tag set of 50 types has 40,000 at most
_MAX_BARE_TYPES = 100  # more distinct values are rather words than types
_BARE = "tags without prefix (neighbouring equal tags are one mention)"
_UNTYPED = f"tags without type (read as {NO_TYPE!r})"


def file_scheme(name: str) -> str:
    """`auto`, or the name of a scheme as `ctxner.schemes.SCHEMES` has it; any case.

    Raises:
        ValueError: An unknown name; the known ones are listed.
    """
    try:
        return AUTO if name.lower() == AUTO else scheme_name(name)
    except ValueError as error:
        raise ValueError(f"{error}, or {AUTO}") from None


@dataclass(frozen=True)
class _Faults:
    """How many sentences of a file the scheme that fits best does not allow."""

    scheme: str
    num_malformed: int
    num_illegal: int
    num_sentences: int


class FileTags:
    """Reads the tags of a file's sentences in one scheme.

    Attributes:
        scheme: Scheme of the file; of several that allow all sentences the first, since they read the same mentions.
        name: Scheme and spelling, for people.
    """

    def __init__(
        self,
        sentences: Callable[[], Iterable[Sequence[str]]],
        scheme: str = AUTO,
        *,
        repair: bool = False,
        hint: str | None = None,
    ):
        """Recognise the scheme from all sentences of the file, unless it is given.

        Args:
            sentences: Function that reads the tags of each sentence; called again to count faults. An error in it ends
                the recognition: the reader meets it again and raises it in its place.
            scheme: `auto`, or the scheme that the file must have.
            repair: Whether illegal sequences are read by conlleval's rules and counted, instead of refused.
            hint: End of error messages; None tells what fits the file.
        """
        self._sentences, self._repair, self._hint = sentences, repair, hint
        self._spelled: dict[str, str] = {}
        self._remark, spelling = "", ""
        self._recognised, self._fits = scheme == AUTO, False
        if self._recognised:
            pairs, distinct = _pairs_and_tags(_until_fault(sentences()))
            spelling, self._spelled, self._remark = _spelling(distinct)
            fitting = fitting_schemes((self._plain(before), self._plain(tag)) for before, tag in pairs)
            self._fits = bool(fitting)
            scheme = fitting[0] if fitting else self._faults().scheme
        self.scheme = scheme_name(scheme)
        self.name = spelling if spelling == _BARE else f"{self.scheme}{spelling and f', {spelling}'}"

    def bioes(self, tags: Sequence[str], place: Callable[[int], str], counts: ReadCounts) -> tuple[str, ...]:
        """A sentence's tags as BIOES; `place` names a word's place by its index.

        Raises:
            ValueError: A malformed tag, or an illegal sequence unless it is repaired.
        """
        plain = [self._plain(tag) for tag in tags] if self._spelled else tags
        error = (first_malformed if self._repair else first_error)(plain, self.scheme)
        if error is not None:
            raise ValueError(f"{place(error[0])}: {error[1]}; {self._hint or self._way_out()}")
        if self._remark and any(tag != "O" for tag in plain):
            counts.remark(self._remark, place(next(n for n, tag in enumerate(plain) if tag != "O")))
        if self._repair:
            before, (plain, _) = plain, repair(plain, self.scheme)
            for index in (n for n, (old, new) in enumerate(zip(before, plain, strict=True)) if old != new):
                counts.count("num_repaired_tags", place(index))
        bioes = to_bioes(plain, self.scheme)
        counts.note_tags(bioes, place)
        return bioes

    def _plain(self, tag: str) -> str:
        return self._spelled.get(tag, tag)

    def _faults(self) -> _Faults:
        malformed, illegal, total = dict.fromkeys(SCHEMES, 0), dict.fromkeys(SCHEMES, 0), 0
        for tags in _until_fault(self._sentences()):
            plain = [self._plain(tag) for tag in tags]
            total += 1
            for name in SCHEMES:
                malformed[name] += first_malformed(plain, name) is not None
                illegal[name] += first_error(plain, name) is not None
        best = min(SCHEMES, key=lambda name: (malformed[name], illegal[name]))
        return _Faults(best, malformed[best], illegal[best], total)

    def _way_out(self) -> str:
        """What makes the file readable; each way that it names works for the whole file."""
        if not self._recognised:
            recognised = FileTags(self._sentences)
            if recognised._fits:
                return f"the whole file is legal as {recognised.name}: --set data.scheme=auto"
            faults, options = recognised._faults(), "--set data.scheme=auto --set data.repair=true"
        else:
            faults, options = self._faults(), "--set data.repair=true"
        if faults.num_malformed:
            return (
                f"{faults.num_malformed} of {faults.num_sentences} sentences have tags that no scheme has: is this the "
                f"tag column? --set data.tag_column=N reads another one, counted from 0; else mend these tags"
            )
        return (
            f"no scheme allows the whole file: {faults.num_illegal} of {faults.num_sentences} sentences are illegal "
            f"under the best, {faults.scheme}; {options} reads them by conlleval's rules and counts the changes"
        )


def looks_like_tag(cell: str) -> bool:
    """Whether a cell is O or has a prefix or suffix of a scheme; the first of several tags in the cell decides."""
    return cell in ("O", "o") or bool(_ANY_CASE.fullmatch(cell) or _SUFFIXED.fullmatch(cell))


def _until_fault(sentences: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
    try:
        yield from sentences
    except ValueError:  # the reader meets it again, after the sentences before it
        return


def _pairs_and_tags(sentences: Iterable[Sequence[str]]) -> tuple[set[tuple[str, str]], set[str]]:
    """The distinct pairs of neighbouring tags, with O before the first and after the last, and the distinct tags."""
    pairs, distinct = set[tuple[str, str]](), set[str]()
    for tags in sentences:
        pairs.update(pairwise(("O", *tags, "O")))
        distinct.update(tags)
        if len(pairs) > _MAX_PAIRS:
            break
    return pairs, distinct


def _spelling(tags: set[str]) -> tuple[str, dict[str, str], str]:
    """How a file spells its tags: a name ("" as in `ctxner.schemes`), tag -> tag of `ctxner.schemes`, and a remark."""
    named = tags - {"O", "o"}
    outside = {"o": "O"} if "o" in tags else {}
    if all(map(_PREFIXED.fullmatch, named)):
        return "", outside, ""
    if all(map(_ANY_CASE.fullmatch, named)):
        return "lower-case prefixes", outside | {tag: tag[0].upper() + tag[1:] for tag in named}, ""
    suffixed = {tag: match for tag in named if (match := _SUFFIXED.fullmatch(tag))}
    if len(suffixed) == len(named):
        return "suffixes", outside | {tag: f"{match[2].upper()}-{match[1]}" for tag, match in suffixed.items()}, ""
    if not tags & {"O", "o"}:
        return "", {}, ""  # rather parts of speech than mentions everywhere
    if all(len(tag) == 1 and tag.upper() in _LETTERS for tag in named):
        return "no types", outside | {tag: f"{tag.upper()}-{NO_TYPE}" for tag in named}, _UNTYPED
    if len(named) <= _MAX_BARE_TYPES and all(tag[:1].isalpha() and not looks_like_tag(tag) for tag in named):
        return _BARE, outside | {tag: f"I-{tag}" for tag in named}, _BARE
    return "", {}, ""
