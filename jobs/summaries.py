"""What commands say at their end: a few lines of what was made, where it lies, and how to go on.

`jobs.console.show` prints them; `--json` has the whole result. Commands that end in tables of their own (`evaluate`,
`data`, `doctor`, ...) keep their words beside the tables.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from jobs.console import in_words, size

Result = Mapping[str, Any]


def of_index(result: Result) -> dict[str, Any]:
    """After `ctxner index build`, `add`, `delete` and `verify`."""
    folder = result["folder"]
    counts = ("added", "replaced", "deleted")
    lines: dict[str, Any] = {"index": f"{folder}, version {result['version']}"}
    lines |= {name: result[f"num_{name}"] for name in counts if f"num_{name}" in result}
    if result.get("unknown_ids"):
        lines["not in the index"] = result["unknown_ids"]
    if result.get("sound"):
        lines["sound"] = "yes: checksums, number of passages, ids and corpus hash"
    lines |= {"passages": _passages(result), "from": result["corpus_files"], "language": result["language"]}
    if result["num_shards"] > 1:
        lines["shards"] = result["num_shards"]
    if "passages_per_second" in result:
        lines["time"] = f"{_time(result['seconds'])}, {result['passages_per_second']:,} passages/s"
    return {**lines, "next": {"search it": f'ctxner index search "some text" --index {shlex.quote(folder)}'}}


def of_index_stats(result: Result) -> dict[str, Any]:
    """After `ctxner index stats`."""
    return {
        "index": f"{result['folder']}, version {result['version']}",
        "passages": _passages(result),
        "language": result["language"],
        "shards": result["num_shards"],
        "on disk": f"{size(result['bytes'])}, all versions {size(result['bytes_all_versions'])}",
        "mean length": f"{result['mean_terms']:,} terms, {result['mean_characters']:,} characters",
        **{name: result[name] for name in ("distinct_terms", "sources", "frequent_terms")},
    }


def of_retrieve(result: Result) -> dict[str, Any]:
    """After `ctxner retrieve`."""
    num, index = result["sentences"], result["index"]
    lines = {
        "sentences": f"{num:,}, {result['kept_passages'] / max(num, 1):.1f} passages each",
        "without passage": _share(result["without_passage"], num),
        "by names alone": _share(result["without_query"], num),
        "failed": _share(result["errors"], num),
        "searched": f"{index['num_documents']:,} passages, version {index['version']}",
        "time": _time(result["seconds"]) + _resumed(result, "sentences"),
        "contexts": result["folder"],
    }
    folder = f"data.contexts={result['folder']}"
    return {**lines, "next": {"train on them": f"ctxner train -c CONFIG --set {shlex.quote(folder)}"}}


def of_train(result: Result) -> dict[str, Any]:
    """After `ctxner train`."""
    best, model = result["best"], shlex.quote(result["model"])
    f1 = ", ".join(f"{view} {100 * value:.1f}" for view, value in best["dev_f1"].items())
    scored = f", {best['dev_sentences']:,} sentences of dev" if "dev_sentences" in best else ""
    return {
        "scores": result["scores"],
        "best epoch": f"{best['epoch']} of {result['epochs']}, {result['steps']:,} steps in all",
        "F1 on dev": f"{f1} (percent, of the best epoch{scored})",
        "model": result["model"],
        "page": result["page"],
        "next": {
            "score it": f"ctxner evaluate {model}",
            "tag a text": f'ctxner tag-text {model} "some text"',
        },
    }


def of_tag(result: Result) -> dict[str, Any]:
    """After `ctxner tag`."""
    num = result["documents"]
    speed = result["sentences_per_second"]
    lines = {
        "documents": f"{num:,}, {result['sentences']:,} sentences",
        "entities": result["entities"],
        "views": result["views"],
        "failed": _share(result["errors"], num) + ("; see their `error`" if result["errors"] else ""),
        "time": _time(result["seconds"])
        + (f", {speed:,} sentences/s while tagging" if speed else "")
        + _resumed(result, "parts"),
    }
    if result.get("skipped"):
        lines["files left out"] = [f"{skipped['file']} ({skipped['error']})" for skipped in result["skipped"]]
    return {**lines, "written": result["folder"]}


def of_study(result: Result) -> dict[str, Any]:
    """After `ctxner experiment run`."""
    lines = {"done now": result["done"], "done before": result["done_before"]}
    lines |= {f"failed, {cell}": reason for cell, reason in result["failed"].items()}
    if result["missing"]:
        reasons = in_words(list(dict.fromkeys(result["missing"].values())))
        lines["left out"] = f"{len(result['missing'])} cells: {reasons}"
    return {**lines, "results": result["results"], "next": {"tables": f"ctxner experiment report {result['study']}"}}


def _passages(result: Result) -> str:
    return f"{result['num_documents']:,}, of which {result['num_texts']:,} are texts; {result['num_names']:,} names"


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({count / total:.1%})" if count else "none"


def _resumed(result: Result, what: str) -> str:
    return f"; {result['resumed_from']:,} {what} were done before" if result.get("resumed_from") else ""


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))
