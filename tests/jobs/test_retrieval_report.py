"""`ctxner retrieval-report` on files: coverage by k and type, the ceiling, what was dropped, the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctxner.files.contexts import Context
from ctxner.schema import Passage, ScoredPassage
from tests.contexts_files import write_contexts

SENTENCES = {
    "train": ["Kim/B-person left/O Rome/B-town early/O"],
    "dev": [
        "we/O met/O Kim/B-person and/O <Dana>/B-person in/O Oslo/B-town on/O a/O rainy/O day/O",
        "nobody/O saw/O Zorblat/B-ship at/O all/O",
    ],
}


def scored(id: str, text: str, rank: int, dropped: str | None = None, rerank: float | None = 0.5) -> ScoredPassage:
    return ScoredPassage(Passage(id, "test", text), 10.0 / rank, rank, rerank_score=rerank, dropped=dropped)


FOUND = (
    scored("long", "Oslo " + "and the sea and the hills " * 30, 1),
    scored("kim", "my neighbour KIM has three boats", 2),
    scored("copy", "RT we met Kim and <Dana> in Oslo on a rainy day", 3, dropped="near_duplicate", rerank=None),
    scored("deep", "Dana is elsewhere", 4, dropped="below_depth"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two splits, contexts of dev, and a corpus."""
    for split, sentences in SENTENCES.items():
        blocks = ["\n".join(word.replace("/", "\t") for word in sentence.split()) for sentence in sentences]
        (tmp_path / f"{split}.conll").write_text("\n\n".join(blocks) + "\n\n")
    words = [tuple(word.split("/")[0] for word in sentence.split()) for sentence in SENTENCES["dev"]]
    rows = {"dev-0": Context(words[0], "kim^1.5 oslo^1.5", FOUND), "dev-1": Context(words[1], "", ())}
    write_contexts(rows, tmp_path / "contexts" / "dev.parquet")
    corpus = [{"contents": own.passage.text} for own in FOUND] + [{"contents": "a boat of Dana and her sister"}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(passage) + "\n" for passage in corpus))
    (tmp_path / "config.yaml").write_text(
        "data: {train: train.conll, dev: dev.conll, contexts: contexts}\n"
        "index: {corpus: [corpus.jsonl]}\nmodel: {max_pieces: 64}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_coverage_by_k_type_and_training_is_that_of_the_contexts(folder, call):
    code, out, err = call("retrieval-report", "-c", "config.yaml", "--k", "2", "--k", "1", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found["coverage"]) == ["1", "2"]
    assert found["coverage"]["1"]["all"] == {"found": 1, "total": 4, "share": 0.25}
    assert found["coverage"]["2"]["by_type"]["person"] == {"found": 1, "total": 2, "share": 0.5}
    assert found["coverage"]["2"]["seen"] == {"found": 1, "total": 1, "share": 1.0}
    assert found["coverage"]["2"]["unseen"] == {"found": 1, "total": 3, "share": 1 / 3}
    assert found["coverage"]["2"]["words"]["found"] == 3  # Kim, Oslo, and
    assert found["ceiling"] is None
    assert (found["sentences"], found["without_query"], found["errors"]) == (2, 1, 0)


def test_the_context_view_reads_what_fits_and_the_rest_has_a_reason(folder, call):
    found = json.loads(call("retrieval-report", "-c", "config.yaml", "--json")[1])
    assert {fate: own["passages"] for fate, own in found["passages"].items()} == {
        "read": 1,
        "piece_budget": 1,
        "near_duplicate": 1,
        "below_depth": 1,
    }
    assert found["passages"]["piece_budget"]["pieces"] > 100
    assert 6 <= found["passages"]["read"]["pieces"] <= 10
    assert found["context_view"]["all"]["found"] == 1
    wide = json.loads(call("retrieval-report", "-c", "config.yaml", "--json", "--set", "model.max_pieces=512")[1])
    assert wide["passages"]["read"]["passages"] == 2
    assert wide["context_view"]["all"] == wide["coverage"]["10"]["all"]


def test_the_ceiling_tells_missed_mentions_from_absent_ones(folder, call):
    found = json.loads(call("retrieval-report", "-c", "config.yaml", "--ceiling", "--json")[1])
    assert found["ceiling"]["all"] == {"found": 3, "total": 4, "share": 0.75}
    assert [(one["mention"], one["in_corpus"]) for one in found["not_found"]] == [("<Dana>", True), ("Zorblat", False)]
    unasked = json.loads(call("retrieval-report", "-c", "config.yaml", "--json")[1])
    assert [one["in_corpus"] for one in unasked["not_found"]] == [None, None]


def test_the_page_shows_text_as_text_and_asks_nobody_for_anything(folder, call):
    assert call("retrieval-report", "-c", "config.yaml", "--ceiling", "--out", "made/page.html")[0] == 0
    page = (folder / "made/page.html").read_text(encoding="utf-8")
    assert "<Dana>" not in page
    assert "&lt;Dana&gt;" in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert page.count("<svg") == page.count("</svg>") > 4
    assert "did not fit the piece budget" in page


def test_people_get_a_line_a_number_of_passages(folder, call):
    code, out, _ = call("retrieval-report", "-c", "config.yaml", "--k", "2")
    assert code == 0
    assert "first 2" in out
    assert "all  50.0%  seen 100.0%  unseen  33.3%" in out


def test_without_training_data_nothing_is_called_seen(folder, call):
    arguments = ("--set", "data.dev=dev.conll", "--set", "data.contexts=contexts", "--json")
    found = json.loads(call("retrieval-report", *arguments)[1])
    assert "seen" not in found["coverage"]["1"]
    assert "Not seen" not in (folder / "runs/retrieval.html").read_text(encoding="utf-8")


def test_a_split_without_any_passage_still_has_a_page(folder, call):
    words = [tuple(word.split("/")[0] for word in sentence.split()) for sentence in SENTENCES["dev"]]
    write_contexts({f"dev-{n}": Context(own, "", ()) for n, own in enumerate(words)}, folder / "contexts/dev.parquet")
    code, out, err = call("retrieval-report", "-c", "config.yaml", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["coverage"]["10"]["all"] == {"found": 0, "total": 4, "share": 0.0}
    assert found["passages"] == {"read": {"passages": 0, "pieces": 0}}


def test_a_dry_run_checks_and_writes_nothing(folder, call):
    before = sorted(folder.rglob("*"))
    code, out, _ = call("retrieval-report", "-c", "config.yaml", "--ceiling", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out).items() >= {"split": "dev", "sentences": 2, "corpus": ["corpus.jsonl"]}.items()
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "data.dev=dev.conll"), "data.contexts is not set"),
        (("-c", "config.yaml", "--split", "test"), "split 'test' has no file"),
        (("-c", "config.yaml", "--split", "train"), "train.parquet: no contexts file"),
        (("-c", "config.yaml", "--k", "0"), "k is 0; wanted"),
        (("-c", "config.yaml", "--ceiling", "--corpus", "absent.jsonl"), "absent.jsonl: no such corpus file"),
        (("-c", "config.yaml", "--ceiling", "--set", "index.corpus=[]"), "no corpus for the ceiling"),
        (("-c", "config.yaml", "--set", "data.tag_column=null"), "tag_column"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_what_a_user_can_mend_is_one_message(folder, call, arguments, message, dry):
    code, out, err = call("retrieval-report", *arguments, *dry)
    assert (code, out) == (1, "")
    assert message in err
    assert "Traceback" not in err
