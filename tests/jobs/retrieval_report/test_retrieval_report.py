"""`ctxner retrieval-report` on files: coverage by k and type, the ceiling, what was dropped, the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ctxner.config import load_config
from ctxner.files.contexts import Context
from jobs.evaluate import gold_examples
from tests.contexts_files import write_contexts
from tests.jobs.retrieval_report.samples import FOUND, WORDS, scored


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
    rows = {"dev-0": Context(WORDS["dev"][0], "kim", FOUND), "dev-1": Context(WORDS["dev"][1], "saw", ())}
    rows |= {f"dev-{number}": Context(("x",), "", (), "OSError: no disk") for number in (2, 3)}
    write_contexts(rows, folder / "contexts" / "dev.parquet")
    code, out, err = call("retrieval-report", "-c", "config.yaml", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["sentences"], found["without_query"], found["errors"]) == (2, 0, 0)


def test_rows_that_fit_by_their_words_are_counted_for_the_sentences_that_have_these_words(folder, call):
    """As after a sentence was put before the others, or the file was renamed: no id is that of its sentence."""
    former = {"dev-1": Context(WORDS["dev"][0], "kim", FOUND), "dev-0": Context(("gone",), "", (), "OSError: no disk")}
    for name in ("dev-2", "old-name-1"):
        rows = {**former, name: Context(WORDS["dev"][1], "at", ())}
        write_contexts(rows, folder / "contexts" / "dev.parquet")
        code, out, err = call("retrieval-report", "-c", "config.yaml", "--json")
        assert code == 0, err
        result = json.loads(out)
        assert (result["sentences"], result["without_query"], result["errors"]) == (2, 0, 0)


@pytest.mark.parametrize("as_json", [False, True])
def test_most_sentences_without_a_passage_are_the_last_thing_said(folder, call, as_json):
    rows = {"dev-0": Context(WORDS["dev"][0], "", ()), "dev-1": Context(WORDS["dev"][1], "saw", ())}
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
    rows = {
        "dev-0": Context(WORDS["dev"][0], "kim", FOUND),
        "dev-1": Context(WORDS["dev"][1], "", (), "OSError: no disk"),
    }
    write_contexts(rows, folder / "contexts" / "dev.parquet")
    told = "dev.parquet: retrieval failed for 1 of 2 sentences, first for 'dev-1': OSError: no disk; more than 10%"
    code, _, err = call("retrieval-report", "-c", "config.yaml")
    assert (code, told in err) == (2, True)
    with pytest.raises(ValueError, match=re.escape(told)):
        gold_examples(load_config(Path("config.yaml")), "dev")


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
    shown = (
        scored("read", "[SEP] [SEP] [SEP]", 1),
        scored("dropped", "[SEP] [SEP] [SEP]", 2, dropped="near_duplicate"),
    )
    rows = {"dev-0": Context(WORDS["dev"][0], "kim", shown), "dev-1": Context(WORDS["dev"][1], "", ())}
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
    write_contexts(
        {f"dev-{n}": Context(own, "", ()) for n, own in enumerate(WORDS["dev"])}, folder / "contexts/dev.parquet"
    )
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
