"""Linking and the query mode `entries`, on a tiny real index."""

import json

import pytest

from ctxner.config import RetrievalConfig
from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.index.changes import add_passages, delete_passages
from ctxner.retrieval.search.bm25 import BM25Searcher
from ctxner.retriever import Retriever
from ctxner.schema import Sentence

LONG = "It is told at length how the harbour was built, who paid for its walls and what came in by ship. " * 4
ENTRIES = [
    {"id": "rash", "title": "rash", "text": "rash is a symptom.", "source": "terms"},
    {"id": "loss", "title": "loss of consciousness", "text": "a symptom.", "source": "terms"},
    {"id": "conscious", "title": "consciousness", "text": "a state.", "source": "terms"},
    {"id": "pan", "title": "puromycin aminonucleoside", "text": "a drug.", "source": "terms"},
    {"id": "bee", "title": "Merano", "text": "Merano is a film about a sailor.", "source": "names"},
    {"id": "town", "title": "Merano", "text": "Merano is a town with a harbour.", "source": "names"},
    {"id": "hope", "title": "Hope", "text": "a film.", "source": "names"},
    {"id": "velm", "title": "Velmora", "aliases": ["City of Bells", "Velm"], "type": "city", "source": "names"},
    {"id": "of", "title": "of", "text": "a word.", "source": "terms"},
    {"id": "us", "title": "US", "text": "a country.", "source": "terms"},
    {"id": "lost", "title": "loss", "text": "a state.", "source": "terms"},
    {"id": "injury", "title": "injury", "text": "a harm.", "source": "terms"},
    {"id": "injuries", "title": "injuries", "text": "harms.", "source": "terms"},
    {"id": "hall", "title": "york city hall", "text": "a house.", "source": "terms"},
    {"id": "york", "title": "New York", "text": "a city.", "source": "names"},
    {"id": "story", "title": "Harbour of Velmora", "text": LONG, "source": "names"},
]
TEXTS = [
    {"id": "t1", "text": "we hope and they hope, as you hope that all hope", "source": "news"},
    {"id": "t2", "text": "the old tramway of Grinzing was closed", "source": "news"},
    {"id": "t3", "text": "in Velmora, in Velmora they sang", "source": "news"},
]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("links")
    build_index([write(folder / "corpus.jsonl", [*ENTRIES, *TEXTS])], folder / "index", num_shards=2)
    return folder / "index"


@pytest.fixture(scope="module")
def searcher(folder):
    return BM25Searcher(folder)


def named(searcher, text, **fields):
    (result,) = searcher.search([Sentence("s", tuple(text.split()), **fields)], depth=4)
    assert result.error is None
    return {hit.passage.id: hit.named for hit in result.hits if hit.named}


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("dyspnea , rashes and loss of consciousness", {"rash": ((2, 3),), "loss": ((4, 7),)}),  # longest, plural
        ("a rash , then a RASH", {"rash": ((1, 2), (5, 6))}),  # every occurrence
        ("Hope is what we need", {}),  # a name that texts write in lower case
        ("They sailed to Velmora", {"velm": ((3, 4),)}),
        ("the City of Bells", {"velm": ((1, 4),)}),  # an alias
        ("we like #NewYork", {"york": ((2, 3),)}),  # a hash tag is split at its capitals
        ("the Velmora-based firm", {"velm": ((1, 2),)}),  # a part of a word, at a hyphen
        ("of and the", {}),  # a stop word alone names nothing, though it is a title
        ("they left us", {}),
        ("they left the US", {"us": ((3, 4),)}),
        ("the New York city hall", {"hall": ((2, 5),)}),  # the longest run, though another begins before it
        ("an injury", {"injury": ((1, 2),)}),  # the same name but for the plural: as it is written
        ("two injuries", {"injuries": ((1, 2),)}),
        ("", {}),
    ],
)
def test_entries_are_those_that_the_sentence_names(searcher, text, entries):
    assert named(searcher, text) == entries


def test_a_name_written_otherwise_scores_lower(searcher):
    scores = []
    for text in ("a rash", "some rashes"):
        (result,) = searcher.search([Sentence("s", tuple(text.split()))], depth=4)
        scores.append(result.hits[0].link_score)
    assert scores == [0.8, 0.72]


def test_of_entries_of_one_name_the_one_that_shares_words_comes_first(searcher):
    assert list(named(searcher, "He left the harbour of Merano")) == ["town", "bee"]
    assert list(named(searcher, "A sailor in Merano")) == ["bee", "town"]


def test_an_abbreviation_names_what_its_long_form_names(searcher):
    text = "PAN was given"
    assert named(searcher, text) == {}
    given = (("PAN", "puromycin aminonucleoside"),)
    assert named(searcher, text, abbreviations=given) == {"pan": ((0, 1),)}


def test_texts_fill_the_room_that_entries_leave(searcher):
    (result,) = searcher.search([Sentence("s", ("The", "tramway", "of", "Grinzing", "to", "Velmora"))], depth=2)
    assert [hit.passage.id for hit in result.hits] == ["velm", "t2"]
    assert [hit.bm25_rank for hit in result.hits] == [1, 2]
    (result,) = searcher.search([Sentence("s", ("The", "tramway", "of", "Grinzing", "to", "Velmora"))], depth=1)
    assert [hit.passage.id for hit in result.hits] == ["velm"]


def test_an_entry_with_a_long_text_is_searched_as_a_text_too(searcher):
    (result,) = searcher.search([Sentence("s", ("who", "built", "the", "Harbour", "walls"))], depth=3)
    assert [hit.passage.id for hit in result.hits] == ["story"]
    assert result.hits[0].named == ()


def test_results_do_not_depend_on_what_is_searched_together(searcher):
    texts = ["a rash in Merano", "of", "loss of consciousness in Velmora", "tramway of Grinzing", "we hope", ""]
    sentences = [Sentence(str(n), tuple(text.split())) for n, text in enumerate(texts)]
    alone = [searcher.search([sentence], depth=3)[0] for sentence in sentences]
    assert searcher.search(sentences, depth=3) == alone
    assert searcher.search(sentences[::-1], depth=3) == alone[::-1]


def test_shards_change_nothing(tmp_path, searcher):
    corpus = write(tmp_path / "corpus.jsonl", [*ENTRIES, *TEXTS])
    sentences = [
        Sentence(
            "s",
            ("a", "rash", "in", "Merano", ",", "Velmora", "and", "the", "harbour", "walls", "of", "Grinzing"),
        )
    ]
    for num_shards in (1, 3):
        build_index([corpus], tmp_path / str(num_shards), num_shards=num_shards)
        other = BM25Searcher(tmp_path / str(num_shards)).search(sentences, depth=6)
        assert other == searcher.search(sentences, depth=6)


def test_an_added_name_is_linked_and_a_deleted_one_is_not(tmp_path):
    index = tmp_path / "index"
    build_index([write(tmp_path / "corpus.jsonl", [*ENTRIES, *TEXTS])], index, num_shards=2)
    sentence = "Zorblax met Velmora"
    assert named(BM25Searcher(index), sentence) == {"velm": ((2, 3),)}
    new = [{"id": "zorb", "title": "Zorblax"}, {"id": "velm", "title": "Velmora II", "source": "names"}]
    add_passages([write(tmp_path / "more.jsonl", [{**record, "text": "x"} for record in new])], index)
    assert named(BM25Searcher(index), sentence) == {"zorb": ((0, 1),)}
    delete_passages(["zorb", "rash"], index)
    assert named(BM25Searcher(index), sentence + " with a rash and New York") == {"york": ((7, 9),)}


def test_at_most_so_many_entries_the_most_probable_ones(folder):
    searcher = BM25Searcher(folder, max_entries=2)
    assert list(named(searcher, "Velmora with a rash and loss of consciousness")) == ["rash", "loss"]


def test_entries_stay_first_and_only_texts_that_compete_are_re_ranked(folder, minilm):
    settings = RetrievalConfig(encoder=str(minilm), depth=3, keep=2, cache=None, dtype="float32")
    retriever = Retriever(settings, folder=folder)
    sentences = [
        Sentence("full", ("a", "rash", "in", "Velmora", "after", "loss", "of", "consciousness")),
        Sentence("alone", ("they", "took", "the", "tramway", "at", "Grinzing")),
    ]
    full, alone = retriever.retrieve(sentences)
    assert [hit.passage.id for hit in full if hit.dropped is None] == ["rash", "velm", "loss"]
    assert [hit.passage.id for hit in alone if hit.dropped is None] == ["t2"]
    assert "reranker" not in vars(retriever)  # never loaded: nothing competed
    sentences = [
        Sentence(
            "both",
            (
                "the",
                "tramway",
                "of",
                "Grinzing",
                ",",
                "hope",
                "and",
                "song",
                "in",
                "Velmora",
                ",",
                "the",
                "Harbour",
                "walls",
            ),
        )
    ]
    (kept,) = Retriever(settings, folder=folder).retrieve(sentences)
    assert kept[0].passage.id == "velm"
    assert kept[0].rerank_score is None
