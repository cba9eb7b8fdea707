"""Names: every run of words that is a name is found, and no other; changes give what a build gives."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.retrieval.index.collected_names import MAX_NAME_WORDS, NamesWriter, word_hash
from ctxner.retrieval.index.names import Names, change_names, write_names
from ctxner.retrieval.text import name_words
from ctxner.schema import Passage

WORDS = ["acid", "lactic", "of", "loss", "memory", "rash", "new", "york", "city"]


def names_of(folder, *shards, language="en"):
    written = []
    for passages in shards:
        writer = NamesWriter(language)
        for passage in passages:
            writer.add(passage)
        written.append(writer.names())
    folder.mkdir(exist_ok=True)
    assert write_names(folder, written) == sum(len(shard.hashes) for shard in written)
    return Names(folder)


def entry(title, *aliases, text="", source="s"):
    return Passage(title, source, text, title, aliases=aliases)


def runs_in(names, *sentences):
    """(sentence, first word, one past the last, places of the entries) of each run, as plain tuples."""
    hashes = np.array([word_hash(word) for words in sentences for word in words], np.uint64)
    lengths = [len(words) for words in sentences]
    ends = np.repeat(np.cumsum(lengths), lengths)
    starts = np.cumsum(lengths) - lengths
    found = set()
    for first, last, row in zip(*names.runs(hashes, ends), strict=True):
        number = int(np.searchsorted(starts, first, side="right")) - 1
        found.add((number, int(first - starts[number]), int(last - starts[number]), tuple(names.entries(row, 9))))
    return found


@settings(max_examples=80, deadline=None)
@given(
    titles=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), max_size=12),
    sentences=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9), min_size=1, max_size=4),
)
def test_runs_are_exactly_those_of_a_dictionary(tmp_path_factory, titles, sentences):
    shards = [[entry(" ".join(title)) for title in titles[part::2]] for part in range(2)]
    names = names_of(tmp_path_factory.mktemp("names"), *shards)
    by_name = {}
    for shard, entries in enumerate(shards):
        for document, passage in enumerate(entries):
            by_name.setdefault(tuple(passage.title.split()), []).append((document, shard))
    wanted = {
        (number, first, last, tuple((shard, document) for document, shard in sorted(by_name[tuple(words[first:last])])))
        for number, words in enumerate(sentences)
        for first in range(len(words))
        for last in range(first + 1, len(words) + 1)
        if tuple(words[first:last]) in by_name
    }
    assert runs_in(names, *sentences) == wanted


def test_aliases_plurals_accents_case_and_punctuation_are_the_same_name(tmp_path):
    names = names_of(tmp_path, [entry("São Paulo", "Sampa"), entry("5-HT receptors"), entry("bodies")])
    for text, document in (("SAO PAULO", 0), ("sampa", 0), ("5 ht Receptor", 1), ("body", 2)):
        row = names.row(name_words(text, "en"))
        assert names.entries(row, 9) == [(0, document)]
    assert names.row(name_words("Paulo", "en")) == -1


def test_plurals_are_compared_in_english_only(tmp_path):
    names = names_of(tmp_path, [entry("Haus")], language="de")
    assert names.row(["haus"]) >= 0
    assert names.row(name_words("Hau", "de")) == -1


@pytest.mark.parametrize(
    ("word", "singular"),
    [
        ("seizures", "seizure"),
        ("bodies", "body"),
        ("rashes", "rash"),
        ("boxes", "box"),
        ("virus", "virus"),
        ("illness", "illness"),
        ("gas", "gas"),
    ],
)
def test_the_stemmer_takes_plurals_off_and_nothing_else(word, singular):
    assert name_words(word, "en") == [singular]


def test_texts_and_names_of_too_many_words_have_no_name(tmp_path):
    names = names_of(tmp_path, [Passage("a", "s", "lactic acid"), entry(" ".join(["acid"] * (MAX_NAME_WORDS + 1)))])
    assert len(names) == 0
    assert runs_in(names, ["lactic", "acid"]) == set()


def test_entries_of_one_name_come_in_the_corpuss_order_however_many_shards(tmp_path):
    entries = [Passage(str(n), "s", "", "Twin") for n in range(6)]
    for num_shards in (1, 2, 3):
        names = names_of(tmp_path / str(num_shards), *(entries[part::num_shards] for part in range(num_shards)))
        places = names.entries(names.row(["twin"]), 4)
        assert [entries[document * num_shards + shard].id for shard, document in places] == ["0", "1", "2", "3"]


def test_whether_names_are_proper_is_decided_by_most_names_of_their_source(tmp_path):
    entries = [entry("Bob", source="people"), entry("Ann", source="people"), entry("zoe", source="people")]
    names = names_of(tmp_path, [*entries, entry("rash", source="diseases")])
    assert [bool(names.capitals[names.row([word])]) for word in ("bob", "zoe", "rash")] == [True, True, False]


def test_capital_shares_count_words_within_sentences_only(tmp_path):
    texts = ["We met Hope there and hope grew.", "Love came. She saw love, and love.", "Say hope"]
    names = names_of(tmp_path, [Passage(str(n), "s", text) for n, text in enumerate(texts)])
    shares = names.capital_shares(np.array([word_hash(word) for word in ("hope", "love", "grew")], np.uint64))
    assert shares[:2].tolist() == pytest.approx([1 / 3, 0.0])
    assert np.isnan(shares[2])  # seen once


@pytest.mark.parametrize("seed", range(5))
def test_a_changed_version_has_the_names_of_one_built_so(tmp_path, seed):
    rng = random.Random(seed)
    make = lambda n: entry(" ".join(rng.choices(WORDS, k=rng.randint(1, 3))), *rng.sample(WORDS, rng.randint(0, 1)))  # noqa: E731
    shards = [[make(n) for n in range(rng.randint(0, 8))] for _ in range(2)]
    deleted = [sorted(rng.sample(range(len(shard)), rng.randint(0, len(shard)))) for shard in shards]
    added = [[make(n) for n in range(rng.randint(0, 3))] for _ in shards]
    left = [
        [passage for n, passage in enumerate(shard) if n not in gone]
        for shard, gone in zip(shards, deleted, strict=True)
    ]
    wanted = names_of(tmp_path / "built", *([*old, *new] for old, new in zip(left, added, strict=True)))
    names_of(tmp_path / "old", *shards)
    writers = []
    for old, new in zip(left, added, strict=True):
        writer = NamesWriter("en")
        for passage in new:
            writer.add(passage)
        names = writer.names()
        writers.append(replace(names, documents=names.documents + np.uint64(len(old))))
    (tmp_path / "new").mkdir()
    assert change_names(tmp_path / "old", tmp_path / "new", deleted=deleted, added=writers) == len(wanted)
    changed = Names(tmp_path / "new")
    for array in ("hashes", "places"):
        assert np.array_equal(getattr(changed, array), getattr(wanted, array))
    assert set(wanted.beginnings.tolist()) <= set(changed.beginnings.tolist())


@pytest.mark.parametrize("damage", ["gone", "cut", "type", "length"])
def test_damaged_names_are_refused_by_the_folders_name(tmp_path, damage):
    names_of(tmp_path, [entry("Bob"), entry("Ann Lee")])
    path = tmp_path / "names" / "hashes.npy"
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    else:
        np.save(path, np.zeros(2, np.int32) if damage == "type" else np.zeros(1, np.uint64))
    with pytest.raises(ValueError, match=r"names.*build"):
        Names(tmp_path)
