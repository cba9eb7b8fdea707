"""Writes a model's README.md as Hugging Face model cards are: YAML front matter with the scores, then the text.

Its facts come from the model and its `training.json` (`ctxner.training.export.provenance`); the text's template is
`model_card.md.j2`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

CARD_FILE = "README.md"
_TEMPLATE = Path(__file__).with_name("model_card.md.j2")
_RATIOS = ("precision", "recall", "f1")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")


def model_card(run: Mapping[str, Any], *, name: str, data_set: str, model: Mapping[str, Any]) -> ModelCard:
    """Create the card of a trained model.

    Args:
        run: Content of `training.json`: `config`, `config_digest`, `data`, `versions`, `epoch`, and, unless the model
            was saved within an epoch, `dev_scores` by view in the form of `ctxner.evaluation.scores.Scores.to_dict`.
        name: Name of the model.
        data_set: Name of the training data.
        model: Facts about the model: `types`, `parameters`, `max_pieces`, `max_passages`, `encoder_type`.
    """
    config, scores = run["config"], run.get("dev_scores", {})
    indexes = _distinct(split.get("retrieval") for split in run["data"].values())
    environment = jinja2.Environment(  # noqa: S701 - the card is Markdown; `cell` and `plain_text` escape
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = plain_text
    text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        front_matter=_front_matter(run, name, data_set).to_yaml(),
        name=plain_text(name),
        run=run,
        config=config,
        loss=config["loss"],
        views=list(scores),
        rows=_score_rows(scores) if scores else [],
        sentence="We met in Velmora last week.",
        types=model["types"],
        index=indexes[0]["index"] if indexes else None,
        many_indexes=len(indexes) > 1,
        has_contexts=config["data"]["contexts"] is not None,
        facts=_facts(run, model),
        max_pieces=model["max_pieces"],
        max_passages=model["max_passages"],
    )
    return ModelCard(text)


def write_card(card: ModelCard, folder: Path) -> None:
    """Write `README.md` into a model's folder."""
    card.save(folder / CARD_FILE)


def plain_text(value: Any) -> str:
    """Text of a value on one line, escaped so that Markdown shows it unchanged."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def _front_matter(run: Mapping[str, Any], name: str, data_set: str) -> ModelCardData:
    encoder = run["config"]["model"]["encoder"]
    results = [
        EvalResult(
            task_type="token-classification",
            task_name="Named-entity recognition",
            dataset_type=data_set,
            dataset_name=data_set,
            dataset_split="dev",
            dataset_config=f"{view} view",  # tells the results of the two views apart
            metric_type=ratio,
            metric_name=f"{ratio} ({view} view)",
            metric_value=round(scores["micro"][ratio], 4),
        )
        for view, scores in run.get("dev_scores", {}).items()
        for ratio in _RATIOS
    ]
    return ModelCardData(
        library_name="ctxner",
        pipeline_tag="token-classification",
        tags=["named-entity-recognition", "crf", "retrieval", run["config"]["loss"]["mode"]],
        base_model=encoder if encoder and _HUB_ID.fullmatch(encoder) and not Path(encoder).exists() else None,
        model_name=name,
        eval_results=results or None,
    )


def _score_rows(scores: Mapping[str, Any]) -> list[tuple[str, list[str], int]]:
    """Rows for `all` and each type: precision, recall and F1 per view in percent, and the number of gold mentions."""
    types = sorted({type for score in scores.values() for type in score["per_type"]})
    rows = []
    for type in ("all", *types):
        scores_of_type = [
            view["micro"] if type == "all" else view["per_type"].get(type, {}) for view in scores.values()
        ]
        cells = [f"{100 * score.get(ratio, 0.0):.1f}" for score in scores_of_type for ratio in _RATIOS]
        rows.append((type, cells, max(score.get("num_gold", 0) for score in scores_of_type)))
    return rows


def _facts(run: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, str]:
    config = run["config"]
    loss, optim, settings = config["loss"], config["optim"], config["run"]
    encoder = config["model"]["encoder"]
    named = Path(encoder).name if encoder else "MiniLM-L6 (packaged)"
    return {
        "encoder": f"{named} ({model['encoder_type']})",
        "parameters": f"{model['parameters']:,}",
        "losses": ", ".join(f"{key} {value}" for key, value in loss.items() if value is not None),
        "learning rates": f"encoder {optim['encoder_lr']:g}, head {optim['head_lr']:g}, CRF {optim['crf_lr']:g}",
        "batch": f"at most {optim['batch_sentences']} sentences and {optim['batch_pieces']} pieces, "
        f"accumulated {optim['accumulate']} times",
        "epochs": f"{optim['epochs']}, warm-up {optim['warmup']:g}, clip {optim['clip']:g}",
        "seed": str(settings["seed"]),
        "precision": f"{settings['precision']}, the CRF float32",
        "workers": f"{settings['workers']}, ZeRO stage {settings['zero_stage']}",
        "config digest": run["config_digest"],
        "versions": ", ".join(f"{library} {number}" for library, number in run["versions"].items()),
    }


def _distinct(manifests: Any) -> list[Any]:
    distinct: list[Any] = []
    for manifest in manifests:
        if manifest is not None and manifest not in distinct:
            distinct.append(manifest)
    return distinct
