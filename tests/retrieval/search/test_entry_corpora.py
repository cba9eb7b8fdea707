"""Entries from the files that people have, in a real index: a sentence that names one by any of its names finds it."""

import pytest

from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.index.changes import add_passages
from ctxner.retrieval.search.bm25 import BM25Searcher
from ctxner.retrieval.search.query import QueryMode
from ctxner.schema import Passage, Sentence

MODE: QueryMode = "entries"
LAMP = Passage("p1", "shop", "A lamp,\nthe third.", "Velmora 3", aliases=("Blue Glow", "V-300"), type="lamp")
CHAIR = Passage("p2", "shop", "", "Hator", aliases=("Dunbra Seat",), type="chair")
CSV = """Nr,Produktname,description,type,Synonyme
p1,Velmora 3,"A lamp,
the third.",lamp,Blue Glow|V-300
p2,Hator,,chair,Dunbra Seat
"""
COLUMNS = {"id": "Nr", "name": "Produktname", "aliases": "Synonyme"}


def linked(index, text):
    """Each entry found, with the words that name it."""
    words = tuple(text.split())
    (result,) = BM25Searcher(index, query_mode=MODE).search([Sentence("s", words)], depth=5)
    assert result.error is None
    return {" ".join(words[start:end]): hit.passage for hit in result.hits for start, end in hit.named}


@pytest.mark.parametrize("num_shards", [1, 2])
def test_an_index_of_a_csv_file_finds_entries_by_name_and_alias(tmp_path, num_shards):
    (tmp_path / "shop.csv").write_text(CSV)
    manifest = build_index([tmp_path / "shop.csv"], tmp_path / "index", columns=COLUMNS, num_shards=num_shards)
    assert (manifest.num_documents, manifest.num_texts, manifest.num_names) == (2, 0, 5)
    assert linked(tmp_path / "index", "I put the Blue Glow beside my Dunbra Seat today") == {
        "Blue Glow": LAMP,
        "Dunbra Seat": CHAIR,
    }
    assert linked(tmp_path / "index", "The V-300 and a Hator") == {"V-300": LAMP, "Hator": CHAIR}


def test_entries_of_a_mapped_csv_file_are_added_to_an_index(tmp_path):
    (tmp_path / "first.names").write_text("Baroka\tcity\n")
    build_index([tmp_path / "first.names"], tmp_path / "index")
    (tmp_path / "shop.csv").write_text(CSV)
    assert add_passages([tmp_path / "shop.csv"], tmp_path / "index", columns=COLUMNS).num_added == 2
    assert linked(tmp_path / "index", "In Baroka they sell the Blue Glow") == {
        "Baroka": Passage("first-1", "first", "", "Baroka", type="city"),
        "Blue Glow": LAMP,
    }


def test_a_redirect_of_a_dump_finds_its_page(tmp_path):
    page = "<page><title>{}</title><ns>0</ns><id>{}</id><revision><text>{}</text></revision></page>"
    pages = page.format("Old Baroka", 1, "#REDIRECT [[Baroka]]") + page.format("Baroka", 2, "A port.\n\nIt is wet.")
    (tmp_path / "wiki.xml").write_text(f"<mediawiki>{pages}</mediawiki>")
    build_index([tmp_path / "wiki.xml"], tmp_path / "index")
    assert linked(tmp_path / "index", "They came to Old Baroka")["Old Baroka"].id == "2-1"
