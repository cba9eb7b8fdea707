"""Warnings about data that trains but probably not as intended; part of the plan, before any worker starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ctxner.config import Config
from ctxner.labels import LabelSet, gold_spans
from ctxner.retrieval.index.versions import read_manifest
from ctxner.schema import Example
from ctxner.training.export.provenance import has_passages, retrieval_manifests


def check_passages(config: Config, examples: Sequence[Example]) -> None:
    """Refuse to train a context view when no sentence has passages.

    Raises:
        ValueError: The mode has a context view, but no sentence has a passage.
    """
    if config.loss.mode != "plain" and not any(map(has_passages, examples)):
        raise ValueError(
            f"loss.mode={config.loss.mode} trains the view with passages, but none of {len(examples)} training "
            f"sentences has any (data.contexts={config.data.contexts}); give --index INDEX to retrieve some, "
            "--set data.contexts=FOLDER of `ctxner retrieve`, or --set loss.mode=plain"
        )


def doubts(config: Config, examples: Sequence[Example], dev: Sequence[Example], labels: LabelSet) -> list[str]:
    """Warnings about the data, one sentence each; an empty list when nothing looks wrong.

    Args:
        config: Settings of the run; the data, index and run sections are read.
        examples: Training sentences with tags.
        dev: Sentences of the dev split, whose scores choose the model.
        labels: Labels of the model.
    """
    warnings = []
    types = Counter(span.type for example in dev for span in gold_spans(example.sentence))
    if unseen := {type: count for type, count in types.items() if type not in labels.types}:
        told = ", ".join(f"{type} ({count} mentions)" for type, count in sorted(unseen.items()))
        warnings.append(f"dev has types that no training sentence has: {told}; they count as missed")
    if not types:
        warnings.append(
            "dev has no mention, so every model scores 0 on it; the first checkpoint will be taken for the best"
        )
    if config.run.workers > len(examples):
        warnings.append(
            f"run.workers={config.run.workers}, but there are {len(examples)} training sentences: some wait"
        )
    manifests = retrieval_manifests(config.data.contexts)
    versions = {
        split: f"{manifest['index']['version']} of {manifest['index']['num_documents']} passages"
        for split, manifest in manifests.items()
    }
    used = {split: version for split, version in versions.items() if split in ("train", "dev")}
    if len(set(used.values())) > 1:
        warnings.append(
            f"passages of {' and '.join(f'{split} come from {version}' for split, version in used.items())}"
        )
    if manifests and (config.index.folder / "CURRENT").is_file():
        now = read_manifest(config.index.folder)
        stale = [
            split for split, manifest in manifests.items() if manifest["index"]["corpus_sha256"] != now.corpus_sha256
        ]
        if stale:
            warnings.append(
                f"passages of {', '.join(stale)} come from another index than {config.index.folder} holds now "
                f"({versions[stale[0]]}, now {now.version} of {now.num_documents}); run `ctxner retrieve` again if "
                "they should be its own"
            )
    return warnings
