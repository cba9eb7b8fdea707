"""The page of `ctxner retrieval-report`: its charts and examples; the figures come from `jobs.retrieval_report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxner.retrieval.measure.coverage import MentionTally, Tally
from ctxner.retrieval.measure.entries import LinkMeasures, PiecesSpent, SeenTally
from ctxner.schema import Example, ScoredPassage
from jobs.pages.charts import Panel
from jobs.pages.page import DROPPED, evenly, histogram, share_panel, write_page

READ = "read"  # fate of a passage in the context view; the fate of others is `ScoredPassage.dropped`
FATES = {READ: "read, in the context view", **DROPPED}
MAX_MISSING = 40  # mentions shown
MAX_PASSAGES = 3  # passages shown per mention


@dataclass(frozen=True, slots=True)
class Missing:
    """A gold mention that stands in none of its sentence's kept passages.

    Attributes:
        id: Id of the sentence.
        type: Type of the mention.
        parts: The sentence before the mention, the mention, and the rest.
        query: Query of the sentence.
        passages: Kept passages, best first.
        in_corpus: Whether the mention stands in the corpus; None when the corpus was not read.
    """

    id: str
    type: str
    parts: tuple[str, str, str]
    query: str
    passages: tuple[ScoredPassage, ...]
    in_corpus: bool | None


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that the page shows.

    Attributes:
        coverage: Gold mentions found in the first k kept passages, by k, ascending.
        words: Sentence words found in the first k kept passages, by k.
        read: Gold mentions found in the passages of the context view.
        read_words: Sentence words found in the passages of the context view.
        ceiling: Gold mentions that stand in the corpus; None when the corpus was not read.
        has_seen: Whether there is training data, so that mentions can be seen or unseen.
        most_kept: Largest number of passages kept for a sentence; a larger k adds nothing to `coverage`.
        views: Sentences with their passages as the context view reads them.
        pieces: Number of pieces of each passage, by its id.
        missing: All mentions that stand in no kept passage.
        links: Whether the kept passages are about the gold mentions.
        pieces_spent: Pieces per sentence that passages take in the context view.
        gold_types: Gold type of each corpus type, learned from training; None when it is not known.
        why_no_types: Reason why `gold_types` is None; else None.
    """

    coverage: Mapping[int, MentionTally]
    words: Mapping[int, Tally]
    read: MentionTally
    read_words: Tally
    ceiling: MentionTally | None
    has_seen: bool
    most_kept: int
    views: Sequence[Example]
    pieces: Mapping[str, int]
    missing: Sequence[Missing]
    links: LinkMeasures
    pieces_spent: PiecesSpent
    gold_types: Mapping[str, str] | None
    why_no_types: str | None

    def fates(self) -> dict[str, list[ScoredPassage]]:
        """The passages by their fate, read ones first."""
        fates: dict[str, list[ScoredPassage]] = {READ: []}
        for view in self.views:
            for scored in view.passages:
                fates.setdefault(scored.dropped or READ, []).append(scored)
        return fates

    def num_pieces(self, passages: Sequence[ScoredPassage]) -> int:
        """Number of pieces of passages, whether they are read or not."""
        return sum(self.pieces[scored.passage.id] for scored in passages)


def write_retrieval_page(
    path: Path,
    findings: Findings,
    *,
    title: str,
    limits: tuple[int, int],
    facts: Mapping[str, str],
    asked: str | None = None,
) -> Path:
    """Write the page under a temporary name, then rename it.

    Args:
        path: HTML file to write.
        findings: Figures to show; the page shows at most `MAX_MISSING` missing mentions, in even steps.
        title: Heading of the page.
        limits: Largest numbers of pieces and of passages in the context view.
        facts: What a reader needs to repeat the run.
        asked: Key of what was measured (`jobs.pages.page.free_page`).
    """
    return write_page(
        path,
        "retrieval.html.j2",
        asked=asked,
        title=title,
        eyebrow="ctxner retrieval report",
        tiles=_tiles(findings),
        found=findings,
        types=list(findings.read.by_type),
        about=_about_rows(findings),
        spent=_piece_rows(findings),
        **_coverage_panels(findings),
        fates=_fate_rows(findings),
        scores=_score_panels(findings),
        sentences=_sentence_panels(findings),
        limits=limits,
        missing=evenly(findings.missing, MAX_MISSING),
        max_passages=MAX_PASSAGES,
        facts=facts,
    )


def _tiles(findings: Findings) -> list[tuple[str, Tally, str]]:
    deepest = max(findings.coverage)
    own = findings.links.own_entry.all
    tiles = [("Own entry", own, "of the gold mentions have it beside them")] if findings.links.num_entries else []
    tiles += [
        (f"First {deepest} passages", findings.coverage[deepest].all, "of the gold mentions stand in them"),
        ("Context view", findings.read.all, "stand in the passages that the tagger reads"),
    ]
    return tiles + ([("Whole corpus", findings.ceiling.all, "stand in it anywhere")] if findings.ceiling else [])


def _about_rows(findings: Findings) -> list[tuple[str, str, MentionTally | SeenTally]]:
    """The measures of what is shown: the name of each, what it is a share of, and its tallies."""
    links = findings.links
    rows: list[tuple[str, str, MentionTally | SeenTally]] = [
        (
            "Mentions with their own entry",
            "Of the gold mentions, those beside which an entry about them is shown.",
            links.own_entry,
        ),
        ("Entries about a mention", "Of the shown entries, those that are about a gold mention.", links.about_entries),
        (
            "Passages about a mention",
            "Of all shown passages; one that was found by its text also counts when it contains a mention's words.",
            links.about_passages,
        ),
        (
            "Links that are mentions",
            "Of the runs of words that name an entry, those that are exactly a gold mention (precision).",
            links.precision,
        ),
        (
            "Mentions that are linked",
            "Of the gold mentions, those whose words are exactly such a run (recall).",
            links.recall,
        ),
    ]
    if links.right_type:
        means = "Of the entries about a mention, those whose corpus type corresponds to the mention's gold type."
        if links.num_untyped == 1:
            means += " 1 entry whose type training does not link is left out."
        elif links.num_untyped:
            means += f" {links.num_untyped:,} entries whose types training does not link are left out."
        rows.append(("Entries of the right type", means, links.right_type))
    return rows


def _piece_rows(findings: Findings) -> list[tuple[str, str, list[float | None]]]:
    """Pieces per sentence: of which passages, what that means, and the numbers for all, seen and unseen mentions."""
    spent = findings.pieces_spent
    about: list[float | None] = [spent.about, spent.about_seen, spent.about_unseen]
    return [
        ("Pieces of entries", "Per sentence, in the context view.", [spent.entries, None, None]),
        ("Pieces of texts", "Per sentence, in the context view.", [spent.texts, None, None]),
        ("Pieces of entries about a mention", "Per sentence, in the context view; part of the entries' pieces.", about),
    ]


def _coverage_panels(findings: Findings) -> dict[str, Any]:
    """The charts by k, and the names of their lines."""
    coverage, types = findings.coverage.values(), list(findings.read.by_type)
    lines: dict[str, list[Tally]] = {"mentions": [cell.all for cell in coverage]}
    if findings.has_seen:
        lines |= {"seen in training": [cell.seen for cell in coverage], "not seen": [cell.unseen for cell in coverage]}
    lines["words of the sentence"] = list(findings.words.values())
    if findings.ceiling:
        lines["mentions, whole corpus"] = [findings.ceiling.all] * len(coverage)
    by_type = {number: [cell.by_type[type] for cell in coverage] for number, type in enumerate(types)}
    ticks = [str(k) for k in findings.coverage]
    return {
        "names": list(lines),
        "by_k": share_panel("Found in the first k passages", ticks, dict(enumerate(lines.values()))),
        "by_type": share_panel("Mentions found, by type", ticks, by_type),
    }


def _fate_rows(findings: Findings) -> list[tuple[str, Tally, int]]:
    """For each fate: its name, its share of all passages, and the number of their pieces."""
    fates = findings.fates()
    total = sum(map(len, fates.values()))
    return [
        (FATES.get(fate, fate), Tally(len(passages), total), findings.num_pieces(passages))
        for fate, passages in fates.items()
    ]


def _score_panels(findings: Findings) -> list[tuple[Panel, str]]:
    """Histograms of both scores, for read passages and for the others; (chart, name of the horizontal axis)."""
    fates = findings.fates()
    groups = fates.pop(READ), [scored for fate in fates.values() for scored in fate]
    bm25 = [[scored.bm25_score for scored in group] for group in groups]
    rerank = [[scored.rerank_score for scored in group if scored.rerank_score is not None] for group in groups]
    drawn = (
        (histogram("BM25", "passages", bm25), "Lucene's score of the query"),
        (histogram("Re-ranking", "passages", rerank), "BERTScore F1 against the sentence"),
    )
    return [(chart, axis) for chart, axis in drawn if chart]


def _sentence_panels(findings: Findings) -> list[tuple[Panel, str]]:
    read = [[scored for scored in view.passages if scored.dropped is None] for view in findings.views]
    drawn = (
        (histogram("Passages read beside it", "sentences", [list(map(len, read))], whole=True), "passages"),
        (histogram("Their pieces", "sentences", [list(map(findings.num_pieces, read))], whole=True), "pieces"),
    )
    return [(chart, axis) for chart, axis in drawn if chart]
