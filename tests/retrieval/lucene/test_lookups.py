"""Batches of questions to a small real Lucene index of two shards."""

import pytest

from ctxner.retrieval.lucene.lookups import Lookups
from ctxner.retrieval.lucene.reader import open_reader
from ctxner.retrieval.lucene.shard_writer import ShardWriter, analyzer_for
from ctxner.schema import Passage

TEXTS = {"e": "the port", "c": "port of call", "d": "the port", "a": "the port", "b": "fair 😀 port fair"}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    shards = [tmp_path_factory.mktemp("shard") for _ in range(2)]
    for n, shard in enumerate(shards):
        with ShardWriter(shard, analyzer_for("en")) as writer:
            for name, text in list(TEXTS.items())[n::2]:
                writer.add(Passage(name, "s", text))
    reader = open_reader(shards)
    yield reader
    reader.close()


@pytest.fixture(params=[1, 3])
def lookups(reader, request):
    lookups = Lookups(reader, analyzer_for("en"), k1=0.9, b=0.4, max_clauses=1024, num_threads=request.param)
    yield lookups
    lookups.close()


def ids(lookups, hits):
    passages = lookups.passages({doc for doc, _ in hits})
    return [passages[doc].id for doc, _ in hits]


def test_passages_come_back_under_their_numbers(reader, lookups):
    found = lookups.passages(range(reader.maxDoc()))
    assert sorted(found) == list(range(len(TEXTS)))
    assert {passage.id: passage.text for passage in found.values()} == TEXTS


def test_answers_are_in_the_order_of_the_questions(lookups):
    words = ["ports", "", "fair", "the", "gone", "call of ports"] * 50
    tokens = [["port"], [], ["fair"], [], ["gone"], ["call", "port"]] * 50
    assert lookups.analyze(words) == tokens
    assert lookups.document_frequencies(["port", "", "fair", "gone"] * 50) == [5, 0, 1, 0] * 50
    assert lookups.analyze([]) == lookups.document_frequencies([]) == lookups.search("phrase", [], 1) == []


def test_which_of_equal_scores_are_among_the_best_is_for_the_ids_to_say(lookups):
    for kind in ("bag", "weighted", "phrase"):
        for depth, best in ((1, {"a"}), (2, {"a", "d"}), (3, {"a", "d", "e"}), (9, set(TEXTS))):
            (hits,) = lookups.search(kind, ["port"], depth)
            assert set(ids(lookups, hits)) == best
            assert [score for _, score in hits] == sorted((score for _, score in hits), reverse=True)


def test_phrases_stand_side_by_side_and_one_of_stop_words_finds_nothing(lookups):
    found = lookups.search("phrase", ["ports of call", "call port", "the", ""], 3)
    assert [ids(lookups, hits) for hits in found] == [["c"], [], [], []]


def test_a_failing_query_harms_no_other(lookups):
    queries = ["fair", '"unclosed', "call", " ".join(f"w{n}" for n in range(1025)), "fair"] * 20
    found = lookups.search("weighted", queries, 3)
    for n in range(0, len(queries), 5):
        assert [ids(lookups, found[n + k]) for k in (0, 2, 4)] == [["b"], ["c"], ["b"]]
        assert "unclosed" in found[n + 1]
        assert "too many boolean clauses" in found[n + 3]


def test_scores_are_lucenes_own_32_bits(reader, lookups):
    from ctxner.retrieval.lucene.jvm import java_class

    searcher = java_class("org.apache.lucene.search.IndexSearcher")(reader)
    searcher.setSimilarity(java_class("org.apache.lucene.search.similarities.BM25Similarity")(0.9, 0.4))
    parser = java_class("org.apache.lucene.queryparser.classic.QueryParser")("contents", analyzer_for("en"))
    for query in ("port^0.37 fair^1.91", "call^0.001 fair^12345.678 port^3"):
        own = searcher.search(parser.parse(query), 9).scoreDocs
        assert sorted(lookups.search("weighted", [query], 9)[0]) == sorted((hit.doc, hit.score) for hit in own)
