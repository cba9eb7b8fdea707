"""Searching a tiny real Lucene index."""

import json
import math

import pytest

from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.search.bm25 import BM25Searcher
from ctxner.schema import Sentence

TEXTS = {
    "d": "baroka port",
    "c": "baroka port baroka fair",
    "b": "welandia fair fair fair castle",
    "a": "baroka port",
    "e": "welandia",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bm25")
    lines = [json.dumps({"id": name, "contents": text, "source": "s"}) for name, text in TEXTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    build_index([folder / "corpus.jsonl"], folder / "index")
    return folder / "index"


def sentence(*words):
    return Sentence(" ".join(words)[:20], words)


def bm25(query, k1, b):
    """BM25 as Lucene defines it (no factor k1 + 1), for words that no stemmer changes."""
    documents = {name: text.split() for name, text in TEXTS.items()}
    mean_length = sum(map(len, documents.values())) / len(documents)
    scores = dict.fromkeys(documents, 0.0)
    for term in query:
        frequency = sum(term in words for words in documents.values())
        idf = math.log(1 + (len(documents) - frequency + 0.5) / (frequency + 0.5))
        for name, words in documents.items():
            count = words.count(term)
            scores[name] += idf * count / (count + k1 * (1 - b + b * len(words) / mean_length))
    return {name: score for name, score in scores.items() if score}


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.75)])
def test_bag_scores_are_bm25(index, k1, b):
    searcher = BM25Searcher(index, query_mode="bag", k1=k1, b=b)
    (result,) = searcher.search([sentence("baroka", "fair", "baroka")], depth=10)
    expected = bm25(["baroka", "fair", "baroka"], k1, b)
    assert {hit.passage.id: hit.bm25_score for hit in result.hits} == pytest.approx(expected, rel=1e-5)
    assert [hit.passage.id for hit in result.hits] == sorted(expected, key=lambda name: (-expected[name], name))
    assert [hit.bm25_rank for hit in result.hits] == [1, 2, 3, 4]


def test_weighted_scores_are_the_weighted_sum_of_the_terms(index):
    searcher = BM25Searcher(index, query_mode="weighted")
    (result,) = searcher.search([sentence("visit", "Baroka", "castle")], depth=10)
    weights = dict(part.split("^") for part in result.query.split())
    single = {term: bm25([term], 0.9, 0.4) for term in weights}
    for hit in result.hits:
        expected = sum(float(weight) * single[term].get(hit.passage.id, 0.0) for term, weight in weights.items())
        assert hit.bm25_score == pytest.approx(expected, rel=1e-5)
    assert set(weights) == {"baroka", "castle"}


def test_equal_scores_are_ordered_by_id_and_depth_is_kept(index):
    (result,) = BM25Searcher(index, query_mode="weighted").search([sentence("port")], depth=2)
    assert [hit.passage.id for hit in result.hits] == ["a", "d"]


def test_a_near_copy_of_a_chosen_passage_follows_those_wanted(index):
    (result,) = BM25Searcher(index).search([sentence("port")], depth=2)
    assert [hit.passage.id for hit in result.hits] == ["a", "c", "d"]
    (result,) = BM25Searcher(index, drop_near_duplicates=False).search([sentence("port")], depth=2)
    assert [hit.passage.id for hit in result.hits] == ["a", "d"]


def test_a_mention_gets_its_passage_before_copies_about_another(index):
    words = ("Visit", "Baroka", "Port", "or", "welandia")
    found = {
        mode: [
            hit.passage.id for hit in BM25Searcher(index, query_mode=mode).search([sentence(*words)], depth=5)[0].hits
        ]
        for mode in ("mentions", "weighted")
    }
    assert found["weighted"] == ["c", "a", "d", "e", "b"]
    assert found["mentions"] == ["c", "a", "e", "b", "d"]


def test_passages_that_repeat_the_sentence_are_not_chosen_but_listed(index):
    copy = sentence("welandia", "fair", "fair", "fair", "Castle")
    for drop, expected in ((True, ["e", "c", "b"]), (False, ["b", "c", "e"])):
        (result,) = BM25Searcher(index, drop_near_duplicates=drop).search([copy], depth=3)
        assert {hit.passage.id for hit in result.hits} == set(expected)
        assert (result.hits[0].passage.id == "b") is not drop
        assert (result.hits[-1].passage.id == "b") is drop


def test_results_do_not_depend_on_company_order_or_threads(index):
    sentences = [sentence("baroka"), sentence("😀"), sentence("castle", "port"), sentence("welandia"), sentence("fair")]
    alone = [BM25Searcher(index, num_threads=1).search([one], depth=3)[0] for one in sentences]
    for num_threads in (1, 2, 7):
        searcher = BM25Searcher(index, num_threads=num_threads)
        assert searcher.search(sentences, depth=3) == alone
        assert searcher.search(sentences[::-1], depth=3) == alone[::-1]


def test_document_frequency_is_counted_after_analysis(index):
    searcher = BM25Searcher(index)
    assert [
        searcher._words.document_frequency(term) for term in ("baroka", "Ports", "welandia-castle", "gone", "the")
    ] == [
        3,
        3,
        1,
        0,
        0,
    ]


@pytest.mark.parametrize("mode", ["mentions", "weighted", "bag"])
def test_no_input_breaks_a_search_or_its_neighbours(index, mode):
    odd = [
        sentence("😀", "🎉"),
        sentence(),
        sentence(""),
        sentence("\ud800\udfff", "\ud83d"),
        sentence("\x00", "a\x07b"),
        sentence("AND", "OR", "NOT", "TO", "baroka"),
        sentence('"', "(", "[a TO", "fi*", "b~", "^2", "\\", "a:b", "/x/", "&&", "||", "!"),
        sentence(*(f"word{n}" for n in range(10_000)), "baroka"),
        sentence("x" * 100_000),
        sentence("a.1-" * 25_000),
        sentence(*("中文字" * 40 for _ in range(2000))),
    ]
    searcher = BM25Searcher(index, query_mode=mode, max_query_terms=512)
    results = searcher.search([*odd, sentence("castle")], depth=3)
    assert [result.error for result in results] == [None] * (len(odd) + 1)
    assert [hit.passage.id for hit in results[-1].hits] == ["b"]
    assert all(result.query == "" and result.hits == () for result in results[:3])
    assert results[5].hits


def test_a_failing_search_is_an_error_of_its_sentence_alone(index, caplog):
    searcher = BM25Searcher(index)
    searcher.query_text = lambda words: '"unclosed' if words == ("bad",) else words[0]
    good, bad = searcher.search([sentence("castle"), sentence("bad")], depth=3)
    assert [hit.passage.id for hit in good.hits] == ["b"]
    assert bad.hits == ()
    assert "unclosed" in bad.error
    assert "search failed" in caplog.text


def test_arguments_out_of_range_are_refused(index):
    for settings in ({"query_mode": "best"}, {"max_query_terms": 0}, {"max_query_terms": 513}, {"num_threads": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            BM25Searcher(index, **settings)
    with pytest.raises(ValueError, match="depth is 0"):
        BM25Searcher(index).search([sentence("x")], depth=0)
