"""The page of a training run: losses and dev F1 of both views by epoch, seconds per phase, settings and data.

Its input is `history.json` in the run's folder, and the model's `training.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.pages.charts import LOSSES, VIEWS, Panel, panel
from jobs.pages.page import write_page

PAGE_FILE = "training.html"
_LINE = 3  # number of the losses' line: the solid one in the palette


def write_training_page(folder: Path, model: Path) -> Path:
    """Write `training.html` into a run's folder, under a temporary name that is then renamed.

    Args:
        folder: Folder of the run, with `history.json`.
        model: Folder of its best model, with `training.json`.
    """
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    run = json.loads((model / "training.json").read_text(encoding="utf-8"))
    best = history[run["epoch"] - 1]
    return write_page(
        folder / PAGE_FILE,
        "training.html.j2",
        title=folder.name,
        eyebrow="ctxner training",
        history=history,
        best=best,
        views={view: label for view, label in VIEWS.items() if view in best["dev_f1"]},
        f1=f1_panel(history),
        losses=loss_panels(history),
        line=_LINE,
        types=sorted({type for scores in best["dev_scores"].values() for type in scores["per_type"]}),
        phases=list(dict.fromkeys(phase for entry in history for phase in entry["seconds_by_phase"])),
        facts=_facts(run, best),
    )


def f1_panel(history: Sequence[Mapping[str, Any]]) -> Panel | None:
    """Dev F1 in percent, one line per view that was scored."""
    scored = [view for view in VIEWS if any(view in entry["dev_f1"] for entry in history)]
    series = {
        line: [(entry["epoch"], 100 * entry["dev_f1"][view]) for entry in history if view in entry["dev_f1"]]
        for line, view in enumerate(scored)
    }
    return panel("Dev F1 of both views" if len(scored) > 1 else "Dev F1", "dev F1, %", series)


def loss_panels(history: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """One chart per loss."""
    occurring = list(dict.fromkeys(str(name) for entry in history for name in entry["losses"]))
    names = [name for name in LOSSES if name in occurring] + [name for name in occurring if name not in LOSSES]
    charts = [
        panel(
            LOSSES.get(name, name),
            "loss",
            {_LINE: [(entry["epoch"], entry["losses"].get(name, math.nan)) for entry in history]},
        )
        for name in names
    ]
    return [chart for chart in charts if chart is not None]


def _facts(run: Mapping[str, Any], best: Mapping[str, Any]) -> dict[str, str]:
    config, data = run["config"], run["data"]
    facts = {
        "mode": config["loss"]["mode"],
        "encoder": Path(config["model"]["encoder"] or "MiniLM-L6 (packaged)").name,
        "batch": f"{config['optim']['batch_sentences']} sentences, {config['optim']['batch_pieces']} pieces at most",
        "workers": f"{config['run']['workers']}, ZeRO {config['run']['zero_stage']}, {config['run']['precision']}",
        "seed": str(config["run"]["seed"]),
        "config digest": run["config_digest"],
        "versions": ", ".join(f"{name} {number}" for name, number in run["versions"].items()),
    }
    if num_scored := best.get("dev_sentences"):
        seconds = best["seconds_by_phase"]
        share = seconds.get("evaluation", 0) / (sum(seconds.values()) or 1)
        facts["dev scores"] = f"of {num_scored:,} sentences, {share:.0%} of an epoch's time"
    for split, told in data.items():
        hashes = ", ".join(f"{name} {value[:12]}" for name, value in told["files"].items())
        facts[split] = f"{told['sentences']:,} sentences, {sum(told['mentions'].values()):,} mentions; {hashes}"
    return facts
