"""`ctxner retrieval-report` on files: coverage by k and type, the ceiling, what was dropped, the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ctxner.config import load_config
from ctxner.files.contexts import Context
from ctxner.schema import Passage, ScoredPassage
from jobs.evaluate import gold_examples
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


def test_contexts_of_sentences_that_the_data_lacks_are_not_counted(folder, call):
    words = [tuple(word.split("/")[0] for word in sentence.split()) for sentence in SENTENCES["dev"]]
    rows = {"dev-0": Context(words[0], "kim", FOUND), "dev-1": Context(words[1], "saw", ())}
    rows |= {f"dev-{number}": Context(("x",), "", (), "OSError: no disk") for number in (2, 3)}
    write_contexts(rows, folder / "contexts" / "dev.parquet")
    code, out, err = call("retrieval-report", "-c", "config.yaml", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["sentences"], found["without_query"], found["errors"]) == (2, 0, 0)


def test_rows_that_fit_by_their_words_are_counted_for_the_sentences_that_have_these_words(folder, call):
    """As after a sentence was put before the others, or the file was renamed: no id is that of its sentence."""
    words = [tuple(word.split("/")[0] for word in sentence.split()) for sentence in SENTENCES["dev"]]
    former = {"dev-1": Context(words[0], "kim", FOUND), "dev-0": Context(("gone",), "", (), "OSError: no disk")}
    for name in ("dev-2", "old-name-1"):
        rows = {**former, name: Context(words[1], "at", ())}
        write_contexts(rows, folder / "contexts" / "dev.parquet")
        code, out, err = call("retrieval-report", "-c", "config.yaml", "--json")
        assert code == 0, err
        result = json.loads(out)
        assert (result["sentences"], result["without_query"], result["errors"]) == (2, 0, 0)


@pytest.mark.parametrize("as_json", [False, True])
def test_most_sentences_without_a_passage_are_the_last_thing_said(folder, call, as_json):
    words = [tuple(word.split("/")[0] for word in sentence.split()) for sentence in SENTENCES["dev"]]
    rows = {"dev-0": Context(words[0], "", ()), "dev-1": Context(words[1], "saw", ())}
    write_contexts(rows, folder / "contexts" / "dev.parquet")
    manifest = {"dev": {"index": {"language": "zh"}}}
    (folder / "contexts" / "_SUCCESS").write_text(json.dumps(manifest))
    code, out, err = call("retrieval-report", "-c", "config.yaml", *(["--json"] if as_json else []))
    assert code == 0, err
    last = err.strip().splitlines()[-1]
    assert last.startswith("warning: 100% of 2 sentences got no passage. The index's language is Chinese (zh): ")
    assert "`ctxner index search TEXT --index runs/index`" in last
    assert "warning" not in out or as_json


def test_no_warning_where_half_of_the_sentences_have_passages(folder, call):
    code, _, err = call("retrieval-report", "-c", "config.yaml")
    assert code == 0
    assert "warning" not in err


def test_contexts_of_which_too_many_failed_are_refused_by_report_and_evaluation(folder, call):
    words = [tuple(word.split("/")[0] for word in sentence.split()) for sentence in SENTENCES["dev"]]
    rows = {"dev-0": Context(words[0], "kim", FOUND), "dev-1": Context(words[1], "", (), "OSError: no disk")}
    write_contexts(rows, folder / "contexts" / "dev.parquet")
    told = "dev.parquet: retrieval failed for 1 of 2 sentences, first for 'dev-1': OSError: no disk; more than 10%"
    code, _, err = call("retrieval-report", "-c", "config.yaml")
    assert (code, told in err) == (2, True)
    with pytest.raises(ValueError, match=re.escape(told)):
        gold_examples(load_config(Path("config.yaml")), "dev")


def entry(title: str, type: str, *named: tuple[int, int], text: str = "", link_score: float = 0.5) -> ScoredPassage:
    passage = Passage(f"{type}/{title}", "wiki", text, title, type=type)
    return ScoredPassage(passage, 0.0, 1, named=named, link_score=link_score)


def write_entries(folder: Path) -> None:
    """Contexts of both splits with entries: training links places to towns and people to persons."""
    words = {
        split: [tuple(word.split("/")[0] for word in sentence.split()) for sentence in sentences]
        for split, sentences in SENTENCES.items()
    }
    in_training = (entry("Kim", "human", (0, 1)), entry("Rome", "place", (2, 3)), entry("Early", "film", (3, 4)))
    write_contexts({"train-0": Context(words["train"][0], "", in_training)}, folder / "contexts/train.parquet")
    shown = (
        entry("Kim", "human", (2, 3)),  # a person: right
        entry("Oslo <film>", "place", (6, 7)),  # a town: right
        entry("Dana", "place"),  # a person: wrong; found by its text
        entry("Rainy Day", "film", (9, 11)),  # about nothing
        FOUND[1],  # a text with Kim
    )
    zorblat = (entry("Zorblat", "ship", (2, 3)),)  # training links no ship
    rows = {"dev-0": Context(words["dev"][0], "", shown), "dev-1": Context(words["dev"][1], "", zorblat)}
    write_contexts(rows, folder / "contexts/dev.parquet")


def test_entries_links_types_and_pieces_are_measured_for_seen_and_unseen_mentions(folder, call):
    write_entries(folder)
    code, out, err = call("retrieval-report", "-c", "config.yaml", "--set", "model.max_pieces=512", "--json")
    assert code == 0, err
    found = json.loads(out)

    def counts(row: dict) -> dict[str, tuple[int, int]]:
        return {name: (row[name]["found"], row[name]["total"]) for name in ("all", "seen", "unseen")}

    def by_type(row: dict) -> dict[str, tuple[int, int]]:
        return {type: (cell["found"], cell["total"]) for type, cell in row["by_type"].items()}

    assert counts(found["own_entry"]) == {"all": (4, 4), "seen": (1, 1), "unseen": (3, 3)}
    assert by_type(found["own_entry"]) == {"person": (2, 2), "ship": (1, 1), "town": (1, 1)}
    assert counts(found["about"]["entries"]) == {"all": (4, 5), "seen": (1, 5), "unseen": (3, 5)}
    assert counts(found["about"]["passages"]) == {"all": (5, 6), "seen": (2, 6), "unseen": (3, 6)}
    assert found["links"]["number"] == 4
    assert counts(found["links"]["precision"]) == {"all": (3, 4), "seen": (1, 4), "unseen": (2, 4)}
    assert counts(found["links"]["recall"]) == {"all": (3, 4), "seen": (1, 1), "unseen": (2, 3)}
    assert by_type(found["links"]["recall"]) == {"person": (1, 2), "ship": (1, 1), "town": (1, 1)}
    assert found["gold_types"] == {"human": "person", "place": "town"}
    assert counts(found["right_type"]) == {"all": (2, 3), "seen": (1, 1), "unseen": (1, 2)}
    assert (found["right_type"]["without_type"], found["why_no_right_type"]) == (1, None)
    pieces, read = found["pieces"], found["passages"]["read"]
    assert read["passages"] == 6
    assert pieces["entries"] + pieces["texts"] == read["pieces"] / 2  # two sentences
    assert pieces["entries"] > pieces["entries_about"]["all"] > pieces["entries_about"]["unseen"] > 0


def test_the_page_begins_with_what_the_entries_are_about(folder, call):
    write_entries(folder)
    code, out, _ = call("retrieval-report", "-c", "config.yaml", "--set", "model.max_pieces=512")
    assert code == 0
    assert re.search(r"mentions with own entry\s+all 100.0%  seen 100.0%  unseen 100.0%", out)
    assert re.search(r"entries of right type\s+all  66.7%  seen 100.0%  unseen  50.0%", out)
    page = (folder / "retrieval-dev.html").read_text(encoding="utf-8")
    assert page.index("Is what is shown about the mentions?") < page.index(">Coverage<")
    assert "human → person; place → town" in page
    assert "1 entry whose type training does not link is left out" in page
    assert "was not measured" not in page


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("-c", "config.yaml"), "contexts/train.parquet is missing; make it with `ctxner retrieve`"),
        (("--set", "data.dev=dev.conll", "--set", "data.contexts=contexts"), "data.train is not set"),
    ],
)
def test_types_are_not_measured_without_training_data_or_its_contexts(folder, call, arguments, reason):
    write_entries(folder)
    (folder / "contexts/train.parquet").unlink()
    found = json.loads(call("retrieval-report", *arguments, "--json")[1])
    assert (found["right_type"], found["gold_types"], found["why_no_right_type"]) == (None, None, reason)
    assert reason in (folder / "retrieval-dev.html").read_text(encoding="utf-8")
    assert f"not measured: {reason[:20]}" in call("retrieval-report", *arguments)[1]  # a terminal breaks the line


def test_contexts_without_entries_have_no_shares_of_entries(folder, call):
    found = json.loads(call("retrieval-report", "-c", "config.yaml", "--json")[1])
    assert found["own_entry"]["all"] == {"found": 0, "total": 4, "share": 0.0}
    assert found["about"]["entries"]["all"]["share"] is None
    assert found["about"]["passages"]["all"] == {"found": 2, "total": 2, "share": 1.0}
    assert (found["links"]["number"], found["links"]["precision"]["all"]["share"]) == (0, None)
    assert (found["right_type"], found["why_no_right_type"]) == (None, "no sentence names an entry")
    assert found["pieces"]["entries"] == 0
    assert found["pieces"]["texts"] == found["passages"]["read"]["pieces"] / 2
    assert "No entry is shown: all passages are texts." in (folder / "retrieval-dev.html").read_text(encoding="utf-8")


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


def test_pieces_that_are_not_read_are_counted_as_those_that_are(folder, call):
    words = [tuple(word.split("/")[0] for word in sentence.split()) for sentence in SENTENCES["dev"]]
    shown = (
        scored("read", "[SEP] [SEP] [SEP]", 1),
        scored("dropped", "[SEP] [SEP] [SEP]", 2, dropped="near_duplicate"),
    )
    rows = {"dev-0": Context(words[0], "kim", shown), "dev-1": Context(words[1], "", ())}
    write_contexts(rows, folder / "contexts" / "dev.parquet")
    passages = json.loads(call("retrieval-report", "-c", "config.yaml", "--json")[1])["passages"]
    assert passages["near_duplicate"]["pieces"] == passages["read"]["pieces"] > 3


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


def test_a_page_of_other_options_stays(folder, call):
    def report(*arguments: str) -> str:
        code, out, err = call("retrieval-report", "-c", "config.yaml", "--json", *arguments)
        assert code == 0, err
        return json.loads(out)["report"]

    assert report() == report() == "retrieval-dev.html"
    assert report("--k", "2") == report("--k", "2") == "retrieval-dev-2.html"
    assert report("--ceiling") == "retrieval-dev-3.html"
    assert report("--set", "model.max_pieces=512") == "retrieval-dev-4.html"


def test_people_get_a_line_a_number_of_passages(folder, call):
    code, out, _ = call("retrieval-report", "-c", "config.yaml", "--k", "2")
    assert code == 0
    assert "first 2" in out
    assert "all  50.0%  seen 100.0%  unseen  33.3%" in out


def test_without_training_data_nothing_is_called_seen(folder, call):
    arguments = ("--set", "data.dev=dev.conll", "--set", "data.contexts=contexts", "--json")
    found = json.loads(call("retrieval-report", *arguments)[1])
    assert "seen" not in found["coverage"]["1"]
    assert "Not seen" not in (folder / "retrieval-dev.html").read_text(encoding="utf-8")


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
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
