"""The small invented world of the quick start: sentences with unknown names, and a corpus that describes them.

Names of all types are made of the same syllables, so a name's form says nothing about its type. For half of the
mentions the sentence tells the type; for the others only the corpus does. Training, dev and test share no name.
Only the standard library is used, and the same arguments always give the same world. `jobs.demo` runs the quick start.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ctxner.files.atomic import new_file
from ctxner.schema import Passage, Sentence, Span
from ctxner.schemes import convert, spans_to_tags

T = TypeVar("T")

TYPES = ("company", "person", "place", "ship", "song")
SYLLABLES = (
    *("bra", "dol", "dun", "fen", "gi", "ha", "jo", "ka", "ki", "la", "lo", "mar", "mos", "ne", "ni"),
    *("pol", "quo", "ri", "ru", "sha", "su", "ta", "ten", "tor", "ve", "wi", "yo", "zan", "zel", "zu"),
)
SOURCES = ("almanac", "gazette", "letters")


def _by_type(table: str) -> dict[str, tuple[str, ...]]:
    """Wordings by type, or by another kind of sentence, from lines `type: wording | wording`."""
    wordings: dict[str, tuple[str, ...]] = {}
    for line in table.strip().splitlines():
        type, _, cells = line.strip().partition(": ")
        wordings[type] = (*wordings.get(type, ()), *cells.split(" | "))
    return wordings


# {X}, {Y}: names; {when}: a time. The last wordings and times of a list are never used in training (see `_for_split`).
TIMES = ("yesterday", "last week", "last night", "last summer", "this morning", "last year", "today", "this week")
TEMPLATES = _by_type(
    """
    any: I still think about {X} every single day | Nobody here had heard of {X} until {when}
    any: We talked about {X} for an hour {when} | My sister keeps asking me about {X} again
    any: It was {X} that surprised us most {when} | There was a long story about {X} {when}
    any: She wrote a whole letter about {X} {when} | {X} came up twice in our chat {when}
    any: {X} is what everyone remembers from {when} | Honestly {X} deserves more attention than this
    any: Have you read anything about {X} {when} ? | They could not stop praising {X} {when}
    any: A friend told me all about {X} {when}
    any two: {X} and {Y} came up again {when} | I prefer {X} to {Y} any day | Which matters more , {X} or {Y} ?
    any two: We first discussed {X} , then {Y} | First {X} surprised us , then {Y} | Both {X} and {Y} made us smile
    none: The captain and his crew were tired {when} | My favourite song is stuck in my head
    none: The company hired nobody new at all {when} | Nothing ever happens on this quiet street anymore
    none: Please remember to water the plants {when} | Monday mornings are always slow around here
    none: Her brother moved to another town {when} | Tonight the kitchen smells of fresh bread
    none: Rain is expected along the coast again {when} | Everyone at the office left early {when}
    company: Shares of {X} fell nine percent {when} | {X} hired two hundred new workers {when}
    company: {X} reported a record quarterly profit {when} | I bought some cheap stock in {X} {when}
    company: The chief executive of {X} resigned {when} | {X} opened its third factory abroad {when}
    person: {X} said she would call her mother {when} | {X} broke his left arm while skiing {when}
    person: The doctor told {X} to rest more {when} | {X} turned forty and threw a party {when}
    person: My neighbour {X} baked us a cake {when} | {X} and her husband had twins {when}
    place: We drove to {X} and camped there {when} | It rained in {X} all afternoon {when}
    place: The streets of {X} were flooded {when} | Hotels in {X} were fully booked {when}
    place: They live in {X} near the old church | The mayor of {X} opened a bridge {when}
    ship: {X} left the harbour with full sails {when} | The captain of {X} dropped anchor early {when}
    ship: The crew of {X} mended the hull {when} | {X} sank in a storm off shore {when}
    ship: Most passengers aboard {X} were seasick {when} | Sailors on {X} scrubbed the deck {when}
    song: The band closed the show with {X} {when} | I keep humming the chorus of {X} {when}
    song: The radio played {X} three times {when} | She sang {X} with her guitar {when}
    song: The lyrics of {X} made him cry {when} | {X} topped the music charts again {when}
    """
)
TELLING_PAIRS = (  # types of {X} and {Y}, and a wording that tells them; each type occurs twice
    ("person", "song", "{X} sang {Y} on the radio {when}"),
    ("company", "ship", "{X} sold its old freighter {Y} {when}"),
    ("place", "person", "In {X} the nurse married {Y} {when}"),
    ("song", "place", "They sang {X} in the streets of {Y}"),
    ("ship", "company", "{X} carried cargo for shareholders of {Y}"),
)

# Few cue words, since an encoder must learn their meaning from a few hundred sentences.
ADJECTIVES = ("small", "famous", "quiet", "popular", "modest", "beloved", "curious", "renowned")
TAILS = ("much loved in the north", "mentioned in many old letters", "that few people remember", "described long ago")
NOUNS = {
    "company": ("company", "firm", "bank", "brewery"),
    "person": ("singer", "painter", "teacher", "nurse"),
    "place": ("village", "town", "island", "valley"),
    "ship": ("ship", "ferry", "freighter", "trawler"),
    "song": ("song", "ballad", "tune", "lullaby"),
}
FACTS = _by_type(
    """
    company: employs forty workers and sells furniture | was founded by investors and makes tools
    company: pays its shareholders every spring
    person: was born in winter and studied medicine | taught children and raised two daughters
    person: retired early and wrote her memoirs
    place: lies in the north beside a river | has two churches and nine hundred inhabitants
    place: is reached by one mountain road
    ship: sailed the strait under three captains | carries cargo and a crew of nine
    ship: was launched at a shipyard long ago
    song: was recorded in one night with violins | has a slow chorus and gentle lyrics
    song: was composed in a minor key
    """
)
ENTRIES = (
    "{X} is a {adjective} {noun} {tail}.",
    "The {adjective} {noun} {X} {fact}.",
    "According to an old almanac, {X} {fact}.",
    "Few remember that {X}, a {noun}, {fact}.",
    "One of the entries is {X}, a {adjective} {noun}.",
    "Books describe a {adjective} {noun} by the name of {X}.",
)
RELATED = (  # the noun next to each name tells its type
    "The {noun} {X} is not the {other_noun} {Y}.",
    "Old letters mention the {other_noun} {Y} beside {X}, a {noun}.",
)
NAMELESS = (
    "A {adjective} {noun} appears in the tale but is never named.",
    "Each {noun} of the tale {fact}.",
)


@dataclass(frozen=True)
class World:
    """Three labelled splits and the corpus that describes their names.

    Attributes:
        train: Training sentences, with BIOES tags.
        dev: Development sentences, with BIOES tags.
        test: Test sentences, with BIOES tags.
        corpus: Passages of 8 to 16 words, in random order.
        types: Entity types, sorted.
    """

    train: tuple[Sentence, ...]
    dev: tuple[Sentence, ...]
    test: tuple[Sentence, ...]
    corpus: tuple[Passage, ...]
    types: tuple[str, ...]


@dataclass(frozen=True)
class _Name:
    words: tuple[str, ...]
    type: str


def make_world(*, seed: int = 0, num_train: int = 400, num_dev: int = 100, num_test: int = 200) -> World:
    """Invent a world.

    Of a split's sentences, a tenth mention no name, almost a fifth two names, and the others one. Half of the sentences
    with one name, and half of those with two, are worded so that any type fits.

    Args:
        seed: Seed, any integer; equal arguments give equal worlds.
        num_train: Number of training sentences.
        num_dev: Number of dev sentences.
        num_test: Number of test sentences.

    Raises:
        ValueError: A number is negative.
    """
    splits = {"train": num_train, "dev": num_dev, "test": num_test}
    for split, num_sentences in splits.items():
        if num_sentences < 0:
            raise ValueError(f"num_{split} is {num_sentences}; give 0 or more sentences")
    rng = random.Random(f"ctxner demo world {seed}")  # noqa: S311 - the same again, not a secret
    used_words: set[str] = set()
    sentences: dict[str, tuple[Sentence, ...]] = {}
    corpus: list[Passage] = []
    for split, num_sentences in splits.items():
        names = _names(rng, num_sentences, used_words)
        sentences[split] = tuple(_sentences(rng, split, num_sentences, names))
        corpus += _passages(rng, names)
    rng.shuffle(corpus)
    numbered = tuple(replace(passage, id=f"p{number:05d}") for number, passage in enumerate(corpus))
    return World(sentences["train"], sentences["dev"], sentences["test"], numbered, TYPES)


def write_world(world: World, folder: Path) -> None:
    """Write `train.conll`, `dev.conll`, `test.conll` (token TAB tag, IOB2) and `corpus.jsonl` into a folder.

    Each file is written all or nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev", "test"):
        blocks = (_conll_block(sentence) for sentence in getattr(world, split))
        _write_aside(folder / f"{split}.conll", blocks)
    write_passages(world.corpus, folder / "corpus.jsonl")


def write_passages(passages: Iterable[Passage], path: Path) -> None:
    """Write passages as JSON lines, all or nothing."""
    rows = ({"id": p.id, "source": p.source, "title": p.title, "contents": p.text} for p in passages)
    _write_aside(path, (json.dumps(row) + "\n" for row in rows))


def _names(rng: random.Random, num_sentences: int, used_words: set[str]) -> list[_Name]:
    """Enough names for a split, equally many of each type; some share a word with an earlier name of the split."""
    names: list[_Name] = []
    for _ in range(-(-num_sentences // len(TYPES))):
        for type in rng.sample(TYPES, len(TYPES)):
            words = [_word(rng, used_words) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
            if len(words) > 1 and names and rng.random() < 0.25:
                words[rng.randrange(len(words))] = rng.choice(rng.choice(names).words)
            names.append(_Name(tuple(words), type))
    return names


def _word(rng: random.Random, used_words: set[str]) -> str:
    word = "".join(rng.choices(SYLLABLES, k=2))
    while word in used_words:
        word += rng.choice(SYLLABLES)
    used_words.add(word)
    return word.capitalize()


def _sentences(rng: random.Random, split: str, num_sentences: int, names: list[_Name]) -> Iterator[Sentence]:
    num_empty, num_pairs = num_sentences // 10, num_sentences * 18 // 100
    plan = [(0, i % 2) for i in range(num_empty)] + [(2, i % 2) for i in range(num_pairs)]
    plan += [(1, i % 2) for i in range(num_sentences - len(plan))]
    rng.shuffle(plan)
    decks = {type: _deck(rng, [name for name in names if name.type == type]) for type in TYPES}
    times, types = _deck(rng, _for_split(split, TIMES)), _deck(rng, TYPES)
    for number, (num_names, telling) in enumerate(plan):
        template, mention_types = _wording(rng, split, num_names, bool(telling), types)
        mentions = [next(decks[type]) for type in mention_types]
        yield _sentence(f"{split}-{number:05d}", template.replace("{when}", next(times)), mentions)


def _wording(
    rng: random.Random, split: str, num_names: int, telling: bool, types: Iterator[str]
) -> tuple[str, tuple[str, ...]]:
    """A template and the types of the names it takes; two names of a sentence differ in type."""
    if num_names == 0:
        return rng.choice(_for_split(split, TEMPLATES["none"])), ()
    if num_names == 2 and telling:
        *pair, template = rng.choice(TELLING_PAIRS)
        return template, tuple(pair)
    first = next(types)
    if num_names == 1:
        return rng.choice(_for_split(split, TEMPLATES[first if telling else "any"])), (first,)
    second = next(type for type in types if type != first)
    return rng.choice(_for_split(split, TEMPLATES["any two"])), (first, second)


def _for_split(split: str, wordings: Sequence[str]) -> Sequence[str]:
    """The wordings of a split. Training lacks the last sixth, so that dev and test have wordings it never saw."""
    return wordings[: -(len(wordings) // 6)] if split == "train" else wordings


def _deck(rng: random.Random, cards: Sequence[T]) -> Iterator[T]:
    """Repeat the cards endlessly, in rounds of random order, each card once per round."""
    while cards:
        yield from rng.sample(cards, len(cards))


def _sentence(id: str, template: str, mentions: Sequence[_Name]) -> Sentence:
    words: list[str] = []
    spans: list[Span] = []
    slots = dict(zip(("{X}", "{Y}"), mentions, strict=False))
    for word in template.split():
        name = slots.get(word)
        if name is not None:
            spans.append(Span(len(words), len(words) + len(name.words), name.type))
        words += name.words if name is not None else (word,)
    return Sentence(id, tuple(words), spans_to_tags(spans, len(words)))


def _passages(rng: random.Random, names: list[_Name]) -> Iterator[Passage]:
    """Two entries per name, some passages that tell two names apart, and some about no name."""
    for name in names:
        for template in rng.sample(ENTRIES, 2):
            yield _passage(rng, template, name)
        if len(names) > 1 and rng.random() < 0.15:
            other = rng.choice([n for n in rng.sample(names, 2) if n is not name])
            yield _passage(rng, rng.choice(RELATED), name, other)
        if rng.random() < 0.15:
            yield _passage(rng, rng.choice(NAMELESS), _Name((), name.type))


def _passage(rng: random.Random, template: str, name: _Name, other: _Name | None = None) -> Passage:
    filled = template.format(
        X=" ".join(name.words),
        Y=" ".join(other.words) if other else "",
        noun=rng.choice(NOUNS[name.type]),
        other_noun=rng.choice(NOUNS[other.type]) if other else "",
        adjective=rng.choice(ADJECTIVES),
        fact=rng.choice(FACTS[name.type]),
        tail=rng.choice(TAILS),
    )
    return Passage("", rng.choice(SOURCES), filled, " ".join(name.words))


def _conll_block(sentence: Sentence) -> str:
    if sentence.tags is None:
        raise ValueError(f"sentence {sentence.id!r} has no tags; only tagged sentences are written")
    tags = convert(sentence.tags, "BIOES", "IOB2")
    return "".join(f"{word}\t{tag}\n" for word, tag in zip(sentence.words, tags, strict=True)) + "\n"


def _write_aside(path: Path, pieces: Iterable[str]) -> None:
    with new_file(path) as aside, aside.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(pieces)
