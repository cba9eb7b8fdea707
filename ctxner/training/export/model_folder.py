"""Writes a trained model's folder for users: weights, config, tokenizer, `training.json` and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ctxner.config import Config
from ctxner.model.tagger import EncoderCRF
from ctxner.schema import Example
from ctxner.training.export.card import model_card, write_card
from ctxner.training.export.provenance import data_provenance, versions, write_provenance


def run_provenance(config: Config, examples: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """Provenance that all models of a run share: the config and its digest, data hashes and counts, versions.

    Args:
        config: Settings of the run.
        examples: Sentences of each split that training reads.
    """
    files = {split: config.data.path(split) for split in examples}
    return {
        "config": config.model_dump(mode="json"),
        "config_digest": config.digest(),
        "data": data_provenance(files, examples, config.data.contexts),
        "versions": versions(),
    }


def write_export(
    model: EncoderCRF,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    provenance: Mapping[str, Any],
    entry: Mapping[str, Any],
) -> None:
    """Write a model's folder: the files that `Tagger.from_pretrained` loads, `training.json` and `README.md`.

    Args:
        model: Model with all its parameters.
        tokenizer: Tokenizer of the encoder.
        folder: Folder to create.
        provenance: Provenance of the run (see `run_provenance`); further keys are kept in `training.json`.
        entry: History entry of the epoch (see `ctxner.training.checkpoints.files.Progress`); within an epoch there are
            no scores, and only `epoch` is required.
    """
    hashes = {split: facts["files"] for split, facts in provenance["data"].items()}
    short = {"config_digest": provenance["config_digest"], "files": hashes, "epoch": entry["epoch"]}
    _write_model(model, tokenizer, folder, {**short, "dev_f1": entry.get("dev_f1")})
    whole = {**provenance, **entry}
    write_provenance(whole, folder)
    config = provenance["config"]
    card = model_card(
        whole,
        name=config["run"]["name"] or folder.parent.name,
        data_set=Path(config["data"]["train"]).parent.name or "data",
        model={
            "types": model.labels.types,
            "parameters": model.num_parameters(),
            "max_pieces": model.config.max_pieces,
            "max_passages": model.config.max_passages,
            "encoder_type": model.encoder.config.model_type,
        },
    )
    write_card(card, folder)


def _write_model(
    model: EncoderCRF, tokenizer: PreTrainedTokenizerBase, folder: Path, provenance: Mapping[str, Any]
) -> None:
    """Write the tagger's files: config.json (with its provenance), model.safetensors, tokenizer."""
    model.config.provenance = dict(provenance)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
