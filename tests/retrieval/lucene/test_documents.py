"""Passages go into Lucene and come back unchanged, in a layout that Anserini's own tools read."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.index.versions import read_manifest
from ctxner.retrieval.lucene.documents import document_text, java_documents, stored_passage, stored_passages
from ctxner.retrieval.lucene.jvm import java_class
from ctxner.retrieval.lucene.reader import PassageFinder, open_reader
from ctxner.retrieval.lucene.shard_writer import ShardWriter, analyzer_for
from ctxner.schema import Passage

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('\n\t"\\{}😀中\u2028'), min_size=1)
PASSAGES = st.builds(Passage, id=TEXT, source=TEXT, text=TEXT, title=TEXT | st.just(""))


@given(st.lists(PASSAGES, min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_documents_hold_their_passages(passages):
    documents = java_documents([document_text(passage) for passage in passages])
    assert documents.size() == len(passages)
    for n, passage in enumerate(passages):
        raw = documents.get(n).get("raw")
        assert stored_passage(raw) == passage
        assert json.loads(raw)["contents"] == (f"{passage.title}\n{passage.text}" if passage.title else passage.text)
        assert documents.get(n).get("id") == passage.id


@pytest.mark.parametrize("separator", ["\x1e", "\x1f"])
def test_separators_in_a_passage_are_refused(separator):
    with pytest.raises(ValueError, match=r"control character U\+001E or U\+001F"):
        java_documents([document_text(Passage("a", "s", f"x{separator}y"))])


def test_more_passages_than_a_batch_come_back_in_order(tmp_path):
    passages = [Passage(f"p{n}", "s", f"text {n} 🎸", title="T\n" * (n % 2)) for n in range(4500)]
    with ShardWriter(tmp_path, analyzer_for("en")) as writer:
        for passage in passages:
            writer.add(passage)
        writer.merge()
    reader = open_reader([tmp_path])
    assert list(stored_passages(reader)) == passages
    assert reader.leaves().size() == 1
    reader.close()


def test_a_passage_is_found_by_its_id_whatever_the_characters(tmp_path):
    with ShardWriter(tmp_path, analyzer_for("en")) as writer:
        for passage_id in ("a😀", "中:*?", "a b", "a"):
            writer.add(Passage(passage_id, "s", f"text of {passage_id}"))
    with PassageFinder([tmp_path]) as find:
        for passage_id in ("a😀", "中:*?", "a b", "a"):
            assert find(passage_id) == Passage(passage_id, "s", f"text of {passage_id}")
        assert find("A") is None
        assert find("") is None


def test_a_failed_writer_leaves_the_index_as_it_was(tmp_path):
    with ShardWriter(tmp_path, analyzer_for("en")) as writer:
        writer.add(Passage("a", "s", "x"))
    with pytest.raises(ValueError, match="U\\+001E"), ShardWriter(tmp_path, analyzer_for("en")) as writer:
        [change(own) for change, own in ((writer.delete, "a"), (writer.add, Passage("b", "s", "x\x1e")))]
    with PassageFinder([tmp_path]) as find:
        assert (find("a"), find("b")) == (Passage("a", "s", "x"), None)


def test_anserinis_own_searcher_reads_the_index(tmp_path):
    lines = [{"id": "b", "contents": "a port"}, {"id": "a", "contents": "a port"}, {"id": "c", "contents": "A fair."}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build_index([tmp_path / "c.jsonl"], tmp_path / "index")
    (shard,) = read_manifest(tmp_path / "index").shard_folders(tmp_path / "index")
    searcher = java_class("io.anserini.search.SimpleSearcher")(str(shard))
    assert [hit.docid for hit in searcher.search("ports", 5)] == ["a", "b"]
    assert json.loads(searcher.doc_raw("c"))["contents"] == "A fair."
    searcher.close()
