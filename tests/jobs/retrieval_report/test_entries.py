"""`ctxner retrieval-report` on contexts with entries: what they are about, their links, their types."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ctxner.files.contexts import Context
from ctxner.schema import Passage, ScoredPassage
from tests.contexts_files import write_contexts
from tests.jobs.retrieval_report.samples import FOUND, WORDS


def entry(title: str, type: str, *named: tuple[int, int], text: str = "", link_score: float = 0.5) -> ScoredPassage:
    passage = Passage(f"{type}/{title}", "wiki", text, title, type=type)
    return ScoredPassage(passage, 0.0, 1, named=named, link_score=link_score)


def write_entries(folder: Path) -> None:
    """Contexts of both splits with entries: training links places to towns and people to persons."""
    in_training = (entry("Kim", "human", (0, 1)), entry("Rome", "place", (2, 3)), entry("Early", "film", (3, 4)))
    write_contexts({"train-0": Context(WORDS["train"][0], "", in_training)}, folder / "contexts/train.parquet")
    shown = (
        entry("Kim", "human", (2, 3)),  # a person: right
        entry("Oslo <film>", "place", (6, 7)),  # a town: right
        entry("Dana", "place"),  # a person: wrong; found by its text
        entry("Rainy Day", "film", (9, 11)),  # about nothing
        FOUND[1],  # a text with Kim
    )
    zorblat = (entry("Zorblat", "ship", (2, 3)),)  # training links no ship
    rows = {"dev-0": Context(WORDS["dev"][0], "", shown), "dev-1": Context(WORDS["dev"][1], "", zorblat)}
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
