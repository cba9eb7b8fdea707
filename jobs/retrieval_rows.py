"""The figures of `ctxner retrieval-report` as rows: for its JSON, and as lines for people."""

from __future__ import annotations

from typing import Any

from ctxner.retrieval.measure.coverage import MentionTally, Tally
from ctxner.retrieval.measure.entries import SeenTally
from jobs.pages.page import as_dict
from jobs.pages.retrieval import Findings


def summary(result: dict[str, Any]) -> dict[str, str]:
    """A short result for people: one line per measure and per number of passages."""

    def share(cell: dict[str, Any]) -> str:
        return f"{'none':>6}" if cell["share"] is None else f"{cell['share']:6.1%}"

    def line(row: dict[str, Any]) -> str:
        return "  ".join(f"{name} {share(row[name])}" for name in ("all", "seen", "unseen", "words") if name in row)

    links, pieces, right_type = result["links"], result["pieces"], result["right_type"]
    whole = {"whole corpus": line(result["ceiling"])} if result["ceiling"] else {}
    return {
        "gold mentions": f"{result['context_view']['all']['total']:,}",
        "mentions with own entry": line(result["own_entry"]),
        "entries about a mention": line(result["about"]["entries"]),
        "passages about a mention": line(result["about"]["passages"]),
        "links": f"{links['number']:,}",
        "links that are mentions": line(links["precision"]),
        "mentions that are linked": line(links["recall"]),
        "entries of right type": line(right_type) if right_type else f"not measured: {result['why_no_right_type']}",
        "pieces per sentence": (
            f"entries {pieces['entries']:.1f}  texts {pieces['texts']:.1f}  "
            f"about a mention {pieces['entries_about']['all']:.1f}"
        ),
        **{f"first {k}": line(row) for k, row in result["coverage"].items()},
        "context view": line(result["context_view"]),
        **whole,
        **{f"passages, {fate}": f"{count['passages']:,}" for fate, count in result["passages"].items()},
        "report": result["report"],
    }


def row_of(mentions: MentionTally, words: Tally | None, has_seen: bool) -> dict[str, Any]:
    """Counts and shares of mentions and of words, if any: all, seen and unseen where that is known, and by type."""
    row: dict[str, Any] = {"all": as_dict(mentions.all)}
    if has_seen:
        row |= {"seen": as_dict(mentions.seen), "unseen": as_dict(mentions.unseen)}
    row |= {"words": as_dict(words)} if words else {}
    return row | {"by_type": {type: as_dict(tally) for type, tally in mentions.by_type.items()}}


def link_rows(measures: Findings) -> dict[str, Any]:
    """The measures of entries, links, types and pieces; seen and unseen only with training data."""
    links, spent = measures.links, measures.pieces_spent

    def row(tallies: SeenTally) -> dict[str, Any]:
        names = ("all", "seen", "unseen") if measures.has_seen else ("all",)
        return {name: as_dict(getattr(tallies, name)) for name in names}

    about = {"all": spent.about}
    about |= {"seen": spent.about_seen, "unseen": spent.about_unseen} if measures.has_seen else {}
    return {
        "own_entry": row_of(links.own_entry, None, measures.has_seen),
        "about": {"entries": row(links.about_entries), "passages": row(links.about_passages)},
        "links": {
            "number": links.num_links,
            "precision": row(links.precision),
            "recall": row_of(links.recall, None, measures.has_seen),
        },
        "right_type": row(links.right_type) | {"without_type": links.num_untyped} if links.right_type else None,
        "why_no_right_type": measures.why_no_types,
        "gold_types": dict(measures.gold_types) if measures.gold_types else None,
        "pieces": {"entries": spent.entries, "texts": spent.texts, "entries_about": about},
    }
