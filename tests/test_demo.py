"""The invented world keeps its promises: half of the mentions need looking up, and nothing else gives the type away."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from ctxner.demo import SYLLABLES, World, make_world, write_world
from ctxner.schema import Passage, Sentence

LEGAL_NEXT = {"O": "OBS", "S": "OBS", "E": "OBS", "B": "IE", "I": "IE"}


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def mentions(sentence: Sentence) -> Iterator[tuple[int, int, str]]:
    """Spans read off the BIOES tags by a pattern, without the project's own decoder."""
    shape = "".join(tag[0] for tag in sentence.tags)
    for found in re.finditer("S|BI*E", shape):
        yield found.start(), found.end(), sentence.tags[found.start()][2:]


def names(sentences: tuple[Sentence, ...]) -> dict[tuple[str, ...], str]:
    return {s.words[start:end]: type for s in sentences for start, end, type in mentions(s)}


def contains(words: tuple[str, ...], name: tuple[str, ...]) -> bool:
    return any(words[i : i + len(name)] == name for i in range(len(words) - len(name) + 1))


def masked(sentence: Sentence, start: int, end: int) -> str:
    """The sentence as seen without knowing any name: this mention is X, the other ones Y."""
    words = list(sentence.words)
    for other_start, other_end, _ in sorted(mentions(sentence), reverse=True):
        words[other_start:other_end] = ["X" if (other_start, other_end) == (start, end) else "Y"]
    return " ".join(words)


def test_same_arguments_give_the_same_world_and_another_seed_another(world: World) -> None:
    assert make_world() == world
    assert make_world(seed=1).test != world.test


def test_sizes_are_as_asked_and_ids_unique(world: World) -> None:
    assert (len(world.train), len(world.dev), len(world.test)) == (400, 100, 200)
    assert len({s.id for s in world.train + world.dev + world.test}) == 700
    assert len({p.id for p in world.corpus}) == len(world.corpus) > 700


@pytest.mark.parametrize("sizes", [(0, 0, 0), (1, 0, 2), (7, 3, 11)])
def test_tiny_and_empty_worlds_are_possible(sizes: tuple[int, int, int]) -> None:
    tiny = make_world(num_train=sizes[0], num_dev=sizes[1], num_test=sizes[2])
    assert (len(tiny.train), len(tiny.dev), len(tiny.test)) == sizes


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="num_dev is -1; give 0 or more"):
        make_world(num_dev=-1)


def test_sentences_and_passages_are_short(world: World) -> None:
    assert {len(s.words) for s in world.train + world.dev + world.test} <= set(range(7, 13))
    assert {len(p.text.split()) for p in world.corpus} <= set(range(8, 17))


def test_tags_are_legal_bioes_of_the_declared_types(world: World) -> None:
    for sentence in world.train + world.dev + world.test:
        shape = [tag[0] for tag in sentence.tags]
        assert all(after in LEGAL_NEXT[before] for before, after in zip(["O", *shape], [*shape, "O"], strict=True))
        kinds = ["O" if tag == "O" else tag[2:] for tag in sentence.tags]
        assert set(kinds) <= {"O", *world.types}
        assert all(
            before == after for before, after, tag in zip(kinds, kinds[1:], shape[1:], strict=False) if tag in "IE"
        )


def test_no_name_of_a_later_split_is_anywhere_in_an_earlier_one(world: World) -> None:
    for earlier, later in ((world.train, world.dev), (world.train, world.test), (world.dev, world.test)):
        assert not [name for name in names(later) if any(contains(s.words, name) for s in earlier)]


def test_a_name_has_one_type() -> None:
    world = make_world(seed=3)
    types = defaultdict(set)
    for sentence in world.train + world.dev + world.test:
        for start, end, type in mentions(sentence):
            types[sentence.words[start:end]].add(type)
    assert all(len(seen) == 1 for seen in types.values())


def test_about_half_of_the_mentions_are_worded_so_that_any_type_fits() -> None:
    sentences = make_world(num_train=6000, num_dev=0, num_test=0).train
    wordings = defaultdict(Counter)
    for sentence in sentences:
        for start, end, type in mentions(sentence):
            wordings[masked(sentence, start, end)][type] += 1
    neutral = sum(seen.total() for seen in wordings.values() if len(seen) > 1)
    assert 0.4 < neutral / sum(seen.total() for seen in wordings.values()) < 0.6
    # a neutral wording hardly prefers a type: guessing its commonest one is right less than twice as often as chance
    assert sum(max(seen.values()) for seen in wordings.values() if len(seen) > 1) / neutral < 0.4


def test_every_name_has_a_passage_of_its_own(world: World) -> None:
    titles = {passage.title: passage.text for passage in world.corpus}
    for name in names(world.train + world.dev + world.test):
        assert " ".join(name) in titles[" ".join(name)]


def test_some_passages_distract(world: World) -> None:
    assert sum(not passage.title for passage in world.corpus) > 50  # about no name
    name_words = {name: set(name) for name in names(world.test)}
    sharing = [n for n, words in name_words.items() if any(words & w and n != m for m, w in name_words.items())]
    assert len(sharing) > 0.1 * len(name_words)
    about_two = [p for p in world.corpus if sum(p.text.count(" ".join(name)) for name in name_words) > 1]
    assert len(about_two) > 0.03 * len(name_words)


def test_types_are_balanced_in_every_split(world: World) -> None:
    for split in (world.train, world.dev, world.test):
        counts = Counter(type for s in split for _, _, type in mentions(s))
        assert set(counts) == set(world.types)
        assert max(counts.values()) < 1.5 * min(counts.values())


def test_names_have_one_to_three_capitalised_words_and_every_syllable_occurs_with_every_type(world: World) -> None:
    found = names(world.train + world.dev + world.test)
    assert {len(name) for name in found} == {1, 2, 3}
    assert all(word.istitle() for name in found for word in name)
    for syllable in SYLLABLES:
        with_syllable = Counter(type for name, type in found.items() if syllable in "".join(name).lower())
        assert set(with_syllable) == set(world.types)


def test_some_sentences_mention_two_names_and_some_none(world: World) -> None:
    counts = Counter(len(list(mentions(s))) for s in world.test)
    assert set(counts) == {0, 1, 2}
    assert counts[0] >= 10
    assert counts[2] >= 20


def test_dev_and_test_have_wordings_training_never_shows(world: World) -> None:
    seen = {word for s in world.train for word in s.words} | {w for name in names(world.test) for w in name}
    assert any(word not in seen for s in world.test for word in s.words)


def test_the_written_files_say_what_the_world_says(world: World, tmp_path) -> None:
    write_world(world, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == ["corpus.jsonl", "dev.conll", "test.conll", "train.conll"]
    blocks = (folder / "dev.conll").read_text(encoding="utf-8").strip("\n").split("\n\n")
    assert len(blocks) == len(world.dev)
    for block, sentence in zip(blocks, world.dev, strict=True):
        words, tags = zip(*(line.split("\t") for line in block.split("\n")), strict=True)
        starts = [i for i, tag in enumerate(tags) if tag[0] == "B"]
        assert words == sentence.words
        assert [(i, tags[i][2:]) for i in starts] == [(start, type) for start, _, type in mentions(sentence)]
        assert [tag[2:] for tag in tags] == [tag[2:] for tag in sentence.tags]
        assert {tag[0] for tag in tags} <= set("BIO")
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [Passage(r["id"], r["source"], r["contents"], r["title"]) for r in rows] == list(world.corpus)


def test_writing_again_leaves_the_same_bytes(world: World, tmp_path) -> None:
    write_world(world, tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_world(make_world(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
