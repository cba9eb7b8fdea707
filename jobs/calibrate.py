"""`ctxner calibrate`: a model and gold tags -> scaled confidences and a threshold of `auto`, saved with the weights."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxner import __version__
from ctxner.config import Config
from ctxner.evaluation.calibration import (
    AutoPoint,
    auto_curve,
    choose_threshold,
    cross_fitted,
    expected_calibration_error,
    fit_platt,
    outcomes,
    reliability_bins,
)
from ctxner.evaluation.scores import Spans, score_spans
from ctxner.files.node_copies import local
from ctxner.files.storage import put_file
from ctxner.files.uris import is_uri, path_or_uri
from ctxner.labels import gold_spans
from ctxner.model.calibration_file import Calibration
from ctxner.schema import Example
from jobs.console import console, progress
from jobs.evaluate import gold_examples
from jobs.pages.calibration import BINS_SHOWN, ViewReport, write_calibration_page
from jobs.pages.page import evenly

if TYPE_CHECKING:
    from ctxner.predictions import Prediction

_MOST_POINTS = 201  # largest number of points of the curve in calibration.json


@dataclass(frozen=True, slots=True)
class Wanted:
    """Target of the threshold; exactly one field is set (see `choose_threshold`)."""

    share: float | None = None
    f1: float | None = None
    gain: float | None = None


def run(config: Config, model: str, split: str, wanted: Wanted, *, out: Path) -> dict[str, Any]:
    """Tag a split in both views, fit, write `calibration.json` into the model's folder and the page.

    Args:
        config: Config whose data section names the tagged split and its contexts; without contexts only the plain
            view's confidences are calibrated.
        model: The model's folder.
        split: Split to fit on; it must not be the split that scores are reported on.
        wanted: Target of the threshold.
        out: HTML file to write.

    Raises:
        ValueError: No model folder, no gold tags, a target that cannot be reached, or a faulty file.
    """
    from ctxner.predictor import Tagger

    folder, examples = _checked(config, model, split, wanted)
    gold = [gold_spans(example.sentence) for example in examples]
    tagger = Tagger.from_pretrained(folder, calibrated=False)
    predictions: dict[str, list[Prediction]] = {}
    for view in _views(config):
        with progress(f"tagging, {view} view", len(examples)) as done:
            predictions[view] = tagger.predict(examples, view=view, on_progress=done)
    spans = {view: [prediction.spans for prediction in answers] for view, answers in predictions.items()}
    reports = {view: _report(gold, prediction) for view, prediction in predictions.items()}
    if unfitted := [view for view, report in reports.items() if report.scaling is None]:
        console.print(f"too few right or wrong entities to fit: {', '.join(unfitted)} confidences stay as they are")
    curve: list[AutoPoint] = []
    chosen: AutoPoint | None = None
    if "context" in spans:
        entropies = [prediction.entropy for prediction in predictions["plain"]]
        curve = auto_curve(gold, spans["plain"], spans["context"], entropies)
        chosen = choose_threshold(curve, share=wanted.share, f1=wanted.f1, gain=wanted.gain)
    result = _evidence(config, split, gold, wanted, reports, curve, chosen)
    threshold = chosen.threshold if chosen else None
    scalings = {view: report.scaling for view, report in reports.items() if report.scaling}
    path = str(_save(Calibration(scalings, threshold, result), folder, path_or_uri(model)))
    write_calibration_page(out, reports, curve, chosen, title=f"Calibration on {split}", facts=_facts(model, result))
    return {
        "model": model,
        "threshold": threshold,
        **{name: value for name, value in result.items() if name not in ("curve", "files", "contexts")},
        "scaling": {view: asdict(scaling) for view, scaling in scalings.items()},
        "calibration": str(path),
        "report": str(out),
    }


def _report(gold: Spans, predictions: Sequence[Prediction]) -> ViewReport:
    confidences, correct, groups = outcomes(gold, [prediction.entities for prediction in predictions])
    honest = cross_fitted(confidences, correct, groups)
    return ViewReport(
        fit_platt(confidences, correct),
        len(confidences),
        score_spans(gold, [prediction.spans for prediction in predictions]).f1,
        (expected_calibration_error(confidences, correct), expected_calibration_error(honest, correct)),
        (
            reliability_bins(confidences, correct, num_bins=BINS_SHOWN),
            reliability_bins(honest, correct, num_bins=BINS_SHOWN),
        ),
    )


def plan(config: Config, model: str, split: str, wanted: Wanted, *, out: Path) -> dict[str, Any]:
    """What `run` would do; checks the data, the contexts and the model's folder."""
    from ctxner.model.tagger import load_tagger

    folder, examples = _checked(config, model, split, wanted)
    types = list(load_tagger(folder).labels.types)
    return {
        "model": model,
        "types": types,
        "split": split,
        "sentences": len(examples),
        "views": _views(config),
        "wanted": _given(wanted),
        "report": str(out),
    }


def summary(result: Mapping[str, Any]) -> dict[str, str]:
    """A short result for people."""
    lines = {
        f"{view} view": f"F1 {100 * report['f1']:.2f}  "
        + (
            f"calibration error {100 * report['ece_before']:.2f} -> {100 * report['ece_after']:.2f} of "
            f"{report['entities']:,} entities"
            if report["entities"]
            else "no entities"
        )
        for view, report in result["views"].items()
    }
    if auto := result["auto"]:
        lines["auto"] = f"F1 {100 * auto['f1']:.2f}  looks up {auto['share']:.1%} of {result['sentences']:,} sentences"
        share = result["wanted"].get("share", auto["share"])
        if round(abs(auto["share"] - share) * result["sentences"], 6) > 0.5:  # no nearer one: more than rounding
            lines["auto"] += f", the nearest to {share:.1%} that equal entropies allow"
        lines["threshold"] = f"{result['threshold']:.4g} nats"
    return {**lines, "calibration": result["calibration"], "report": result["report"]}


def _checked(config: Config, model: str, split: str, wanted: Wanted) -> tuple[Path, list[Example]]:
    if len(_given(wanted)) != 1:
        raise ValueError(f"give one of --share, --f1 and --gain, not {len(_given(wanted))}")
    folder = local(path_or_uri(model))
    if not folder.is_dir():
        raise ValueError(f"{model}: no such folder; calibration.json is written beside the model's weights")
    return folder, gold_examples(config, split)


def _save(calibration: Calibration, folder: Path, model: Path) -> Path:
    """Save into the model's folder; for a URI, by way of a copy that is not this node's copy of the store."""
    if not is_uri(model):
        return calibration.save(folder)
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        path = calibration.save(Path(copy))
        put_file(path, model / path.name)
    return model / path.name


def _views(config: Config) -> list[Any]:
    return ["plain", "context"] if config.data.contexts else ["plain"]


def _given(wanted: Wanted) -> dict[str, float]:
    return {name: value for name, value in asdict(wanted).items() if value is not None}


def _evidence(
    config: Config,
    split: str,
    gold: Spans,
    wanted: Wanted,
    reports: Mapping[str, ViewReport],
    curve: Sequence[AutoPoint],
    chosen: AutoPoint | None,
) -> dict[str, Any]:
    from ctxner.training.export.provenance import file_hashes

    contexts = config.data.contexts_path(split)
    return {
        "ctxner": __version__,
        "split": split,
        "files": file_hashes(config.data.path(split)),
        "contexts": file_hashes(contexts) if contexts else {},
        "sentences": len(gold),
        "mentions": sum(map(len, gold)),
        "views": {
            view: {
                "f1": report.f1,
                "entities": report.num_entities,
                "ece_before": report.ece[0],
                "ece_after": report.ece[1],
            }
            for view, report in reports.items()
        },
        "wanted": _given(wanted) if chosen else {},
        "auto": {"share": chosen.share, "f1": chosen.f1} if chosen else None,
        "curve": [[round(value, 6) for value in asdict(point).values()] for point in evenly(curve, _MOST_POINTS)],
    }


def _facts(model: str, result: Mapping[str, Any]) -> dict[str, str]:
    hashes = {**result["files"], **result["contexts"]}
    return {
        "Model": model,
        "Split": f"{result['split']}, {result['sentences']:,} sentences, {result['mentions']:,} gold mentions",
        "Files": ", ".join(f"{name} {value[:12]}" for name, value in hashes.items()),
        "Wanted": ", ".join(f"{name} {value:g}" for name, value in result["wanted"].items()) or "confidences only",
        "ctxner": result["ctxner"],
    }
