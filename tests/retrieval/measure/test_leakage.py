"""The audit finds every copy that comparing all pairs finds, by the rules that retrieval and coverage use."""

import random

import pytest

from ctxner.retrieval.measure.coverage import Tally, shares_most_words
from ctxner.retrieval.measure.leakage import (
    CopyShares,
    OverlapIndex,
    copy_shares,
    entity_overlap,
    find_copies,
    texts_of,
)
from ctxner.retrieval.near_duplicates import character_runs, is_near_duplicate, repeats_sentence
from ctxner.retrieval.text import normalised_words
from ctxner.schema import Sentence, Span
from ctxner.schemes import spans_to_tags


def sentences(*texts: str, prefix: str = "s") -> list[Sentence]:
    return [Sentence(f"{prefix}-{n}", tuple(text.split())) for n, text in enumerate(texts)]


def _random_texts(choose: random.Random, vocabulary: list[str], num: int) -> list[str]:
    """Texts of 0 to 24 words; most are an earlier one with words left out, put in or cut off."""
    texts: list[list[str]] = []
    for _ in range(num):
        words = [choose.choice(vocabulary) for _ in range(choose.choice((0, 1, 2, 4, 8, 16)))]
        if texts and choose.random() < 0.7:
            words = list(choose.choice(texts))
            for _ in range(choose.randint(0, 3)):
                words.insert(choose.randint(0, len(words)), choose.choice(vocabulary))
                del words[choose.randrange(len(words))]
            start = choose.choice((0, 0, choose.randint(0, len(words))))
            words = words[start : choose.choice((None, choose.randint(start, len(words))))]
            words += [choose.choice(vocabulary) for _ in range(choose.choice((0, 0, 2, 8)))]
        texts.append(words)
    return [" ".join(words) for words in texts]


def test_copies_are_those_of_comparing_every_pair():
    choose = random.Random(0)
    ways: set[str] = set()
    for _ in range(60):
        vocabulary = ["".join(choose.choices("abcdefgh ☃", k=choose.randint(1, 7))).strip() or "x" for _ in range(30)]
        pool = _random_texts(choose, vocabulary, 30)
        own, texts = sentences(*(text or "☃" for text in pool[::2])), [(str(n), t) for n, t in enumerate(pool[1::2])]
        found = find_copies(iter(texts), own)
        for copies, text in zip(found, pool[::2], strict=True):
            runs, words = character_runs(text), set(normalised_words(text))
            near = [(id, t) for id, t in texts if repeats_sentence(character_runs(t), runs)]
            alike = [id for id, t in texts if shares_most_words(set(normalised_words(t)), words)]
            ways |= {_way(character_runs(t), runs) for _, t in near} | ({"words"} if len(alike) > len(near) else set())
            assert (copies.ids, copies.num_near, copies.num_word_copies) == (
                [id for id, _ in near],
                len(near),
                len(alike),
            )
            assert copies.num_exact == sum(character_runs(t) == runs for _, t in near)
            contained = [len(runs & character_runs(t)) / len(runs) for _, t in near]
            assert (copies.closest and copies.closest.containment) == max(contained, default=None)
    assert ways == {"jaccard", "contains", "part", "words"}, f"the texts do not try every way to be a copy: {ways}"


def _way(text, sentence) -> str:
    if is_near_duplicate(text, sentence):
        return "jaccard"
    return "contains" if len(text & sentence) >= 0.8 * len(sentence) else "part"


def test_within_a_split_a_sentence_is_no_copy_of_itself_whatever_the_others_ids():
    own = sentences("the old boat sank in the harbour", "nothing of the kind", "RT the old boat sank in the harbour !")
    found = find_copies(texts_of(own), own, same=True)
    assert [copies.ids for copies in found] == [["s-2"], [], ["s-0"]]
    namesakes = sentences("the old boat sank in the harbour")
    assert find_copies(texts_of(namesakes), own)[0].ids == ["s-0"]


def test_the_closest_copy_comes_with_its_text_and_containment():
    own = sentences("the old boat sank in the wide harbour")
    texts = [("part", "the old boat sank in the wide h"), ("all", "RT the old BOAT sank in the wide harbour, they say")]
    copies = find_copies(texts, own)[0]
    assert (copies.closest.id, copies.closest.text, copies.closest.containment) == ("all", texts[1][1], 1.0)
    assert copies.num_exact == 0
    assert find_copies([*texts, ("again", texts[1][1])], own)[0].closest.id == "all"


def test_addresses_and_case_do_not_make_a_text_another():
    found = find_copies([("p", "RT @you: The Old Boat sank! https://t.co/x")], sentences("the old boat sank"))
    assert found[0].num_exact == 1


def test_named_passages_are_bounded_and_counts_are_not():
    texts = [(str(n), "the old boat sank in the harbour") for n in range(9)]
    copies = find_copies(texts, sentences("the old boat sank in the harbour"), max_named=4)[0]
    assert (copies.ids, copies.num_near, copies.num_exact) == (["0", "1", "2", "3"], 9, 9)


def test_shares_count_sentences_not_copies():
    own = sentences("the old boat sank in the harbour", "a wholly different sentence of some length", "red boat", "!")
    texts = [("0", "The old boat sank in the harbour"), ("1", "the old boat sank in the harbour !"), ("2", "boat")]
    shares = copy_shares(find_copies(texts, own))
    assert shares == CopyShares(exact=Tally(1, 4), near=Tally(1, 4), words=Tally(2, 4))


@pytest.mark.parametrize("threshold", [0.3, 0.8, 1.0])
def test_an_overlap_index_misses_no_pair_that_shares_enough_of_either(threshold):
    def needed(size: int) -> int:
        return max(1, round(threshold * size))

    choose = random.Random(1)
    for _ in range(50):
        sets = [frozenset(choose.choices("abcdefghijkl", k=choose.randint(0, 8))) for _ in range(12)]
        index = OverlapIndex(sets, needed)
        for _ in range(10):
            other = frozenset(choose.choices("abcdefghijklmnopq", k=choose.randint(0, 10)))
            wanted = {n for n, own in enumerate(sets) if own and other and len(own & other) >= needed(len(own))} | {
                n for n, own in enumerate(sets) if own and other and len(own & other) >= needed(len(other))
            }
            assert index.candidates(other) >= wanted


def test_an_overlap_index_looks_at_few_pairs():
    sets = [frozenset(("common", "usual", f"rare{n}", f"odd{n}")) for n in range(1000)]
    index = OverlapIndex(sets, lambda size: -(-3 * size // 4))
    assert index.candidates(frozenset(("common", "usual", "other", "new"))) == set()
    assert index.candidates(frozenset(("common", "usual", "rare7", "new"))) == {7}


def test_entity_overlap_counts_mentions_and_distinct_surfaces_of_a_type():
    def tagged(text: str, *spans: Span) -> Sentence:
        words = tuple(text.split())
        return Sentence(text, words, spans_to_tags(spans, len(words)))

    training = [tagged("Kim Lee saw Rome", Span(0, 2, "person"), Span(3, 4, "town"))]
    test = [
        tagged("ROME and rome", Span(0, 1, "town"), Span(2, 3, "town")),
        tagged("Rome , Oslo", Span(0, 1, "ship"), Span(2, 3, "town")),
        tagged("kim-lee said", Span(0, 1, "person")),
    ]
    overall, by_type = entity_overlap(training, test)
    assert (overall.mentions, overall.surfaces) == (Tally(3, 5), Tally(2, 4))
    assert {type: (own.mentions, own.surfaces) for type, own in by_type.items()} == {
        "person": (Tally(1, 1), Tally(1, 1)),
        "ship": (Tally(0, 1), Tally(0, 1)),
        "town": (Tally(2, 3), Tally(1, 2)),
    }


@pytest.mark.data
def test_the_posts_of_the_social_corpus_hold_copies_of_most_dev_sentences(shared_data):
    from ctxner.files.sentences import read_sentences
    from ctxner.retrieval.corpus.reader import read_corpus

    dev = read_sentences(shared_data / "wnut17" / "dev.conll").sentences
    corpus = read_corpus([shared_data / "corpora" / "social-wiki-news.jsonl.gz"])
    shares = copy_shares(find_copies(((passage.id, passage.text) for passage in corpus), dev))
    assert shares.near.total == 1009
    assert shares.near.found > 900
