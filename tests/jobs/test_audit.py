"""`ctxner audit` on files: the figures, the names of the copies, the page, and what a dry run leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

HOSTILE = "<script>alert('x')</script> & <img src=https://example.org/x onerror=alert(1)> was here on a day"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three splits of words and tags, and a corpus that repeats some of their sentences."""
    columns = {
        "train": ["The/O old/O boat/O Velmora/B-ship sank/O near/O Rome/B-town", "Kim/B-person left/O early/O today/O"],
        "dev": [
            "The/O old/O boat/O VELMORA/B-ship sank/O near/O rome/B-town",
            "Oslo/B-town is/O a/O long/O way/O off/O",
        ],
        "test": ["Kim/B-person met/O Dana/B-person in/O Oslo/B-town last/O week/O"],
    }
    for split, sentences in columns.items():
        blocks = ["\n".join("\t".join(word.split("/")) for word in sentence.split()) for sentence in sentences]
        (tmp_path / f"{split}.conll").write_text("\n\n".join(blocks) + "\n\n")
    hostile = "\n".join(f"{word}\tO" for word in HOSTILE.split())
    with (tmp_path / "test.conll").open("a") as file:
        file.write(hostile + "\n\n")
    passages = [
        {"id": "rt", "contents": "RT @you: Kim met Dana in Oslo last week, they say https://t.co/x"},
        {"id": "other", "contents": "Nothing that anybody has ever written down before"},
        {"id": "bad<b>", "contents": HOSTILE},
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(passage) + "\n" for passage in passages))
    (tmp_path / "config.yaml").write_text(
        "data: {train: train.conll, dev: dev.conll, test: test.conll}\nindex: {corpus: [corpus.jsonl]}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_result_names_the_passages_that_repeat_each_sentence(folder, call):
    code, out, err = call("audit", "-c", "config.yaml", "--out", "made/audit.html", "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    found = json.loads(out)
    rows = {(row["split"], row["where"]): row for row in found["comparisons"]}
    assert set(rows) == {
        *((split, "corpus") for split in ("train", "dev", "test")),
        *(("dev", "train"), ("test", "train"), ("test", "dev")),
        *((split, "itself") for split in ("train", "dev", "test")),
    }
    leaks = rows["test", "corpus"]["leaks"]
    assert {id: leak["ids"] for id, leak in leaks.items()} == {"test-0": ["rt"], "test-1": ["bad<b>"]}
    assert leaks["test-0"] == {"ids": ["rt"], "num_near": 1, "num_exact": 0, "containment": 1.0}
    assert rows["test", "corpus"]["near"] == {"found": 2, "total": 2, "share": 1.0}
    assert rows["test", "corpus"]["exact"]["found"] == 1
    assert {key: rows["dev", "train"][key]["found"] for key in ("exact", "near", "most_words")} == {
        "exact": 1,
        "near": 1,
        "most_words": 1,
    }
    assert rows["dev", "train"]["leaks"]["dev-0"]["ids"] == ["train-0"]
    assert rows["train", "itself"]["near"]["found"] == 0
    assert found["report"] == "made/audit.html"


def test_the_result_says_which_mentions_training_has_seen(folder, call):
    found = json.loads(call("audit", "-c", "config.yaml", "--json")[1])["seen_in_training"]
    assert set(found) == {"dev", "test"}
    assert found["dev"]["mentions"] == {"found": 2, "total": 3, "share": 2 / 3}
    assert found["test"]["distinct"] == {"found": 1, "total": 3, "share": 1 / 3}
    assert found["test"]["by_type"]["person"]["mentions"]["found"] == 1
    assert found["test"]["by_type"]["town"]["mentions"] == {"found": 0, "total": 1, "share": 0.0}


def test_the_page_shows_the_copies_as_text_and_asks_nobody_for_anything(folder, call):
    assert call("audit", "-c", "config.yaml", "--out", "audit.html")[0] == 0
    page = (folder / "audit.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(" in page
    assert "bad&lt;b&gt;" in page
    assert "https://t.co/x" in page
    assert 'src="http' not in page
    assert "default-src 'none'" in page
    assert [path.name for path in folder.iterdir() if "audit.html" in path.name] == ["audit.html"]


def test_people_get_a_line_a_comparison(folder, call):
    code, out, _ = call("audit", "-c", "config.yaml")
    assert code == 0
    assert "test, copies in corpus" in out
    assert "exact 1 (50.0%), near 2 (100.0%)" in out
    assert "leaks" not in out


def test_without_a_corpus_the_splits_are_compared_with_each_other(folder, call):
    code, out, _ = call("audit", "--set", "data.train=train.conll", "--set", "data.dev=dev.conll", "--json")
    assert code == 0
    found = json.loads(out)
    assert [(row["split"], row["where"]) for row in found["comparisons"]] == [
        ("dev", "train"),
        ("train", "itself"),
        ("dev", "itself"),
    ]


def test_a_dry_run_counts_and_writes_nothing(folder, call):
    before = sorted(folder.rglob("*"))
    code, out, _ = call("audit", "-c", "config.yaml", "--out", "made/audit.html", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out) == {
        "sentences": {"train": 2, "dev": 2, "test": 2},
        "num_passages": 3,
        "report": "made/audit.html",
    }
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no data set; give --set data.test=FILE"),
        (("-c", "config.yaml", "--corpus", "absent.jsonl"), "absent.jsonl: no such corpus file"),
        (("-c", "config.yaml", "--set", "data.dev=absent.conll"), "absent.conll"),
    ],
)
def test_what_a_user_can_mend_is_one_message(folder, call, arguments, message):
    code, out, err = call("audit", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_shares_of_no_mentions_are_none_and_the_page_is_named_after_the_data(folder, call):
    (folder / "tweets").mkdir()
    for split in ("train", "dev"):
        (folder / f"tweets/{split}.conll").write_text(f"Nothing{split}\tO\nhere{split}\tO\n")
    code, out, err = call("audit", "--set", "data.train=tweets/train.conll", "--set", "data.dev=tweets/dev.conll")
    assert code == 0, err
    assert "mentions none, distinct none" in out
    assert "runs/audit-tweets.html" in out
    page = (folder / "runs/audit-tweets.html").read_text(encoding="utf-8")
    assert "none" in page
