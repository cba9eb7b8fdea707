"""Commands that make and use a model: `train`, `evaluate`, `calibrate`, `tag`, `tag-text`, and the demo of all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ctxner.config import DEMO_MODES, load_config
from ctxner.files.uris import path_or_uri
from jobs import console as terminal
from jobs.commands.common import finish, with_given
from jobs.model_settings import renew_contexts, settings_for
from jobs.options import (
    NONE,
    AsJson,
    ConfigFile,
    DryRun,
    IndexFolder,
    Model,
    Overrides,
    Written,
)
from jobs.summaries import of_tag

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
def train(
    sentences: Annotated[
        Path | None,
        typer.Argument(
            metavar="TRAIN", parser=path_or_uri, help="Tagged sentences: a file, folder, quoted pattern or URI."
        ),
    ] = None,
    dev: Annotated[
        Path | None, typer.Option(parser=path_or_uri, help="Tagged sentences that choose the best model.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(parser=path_or_uri, help="Tagged sentences for `ctxner evaluate`, not trained on.")
    ] = None,
    folder: IndexFolder = None,
    name: Annotated[str | None, typer.Option("--name", "-n", help="Folder of the run, in run.storage.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="With --dry-run: ZeRO stages and other hardware.")] = False,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Train a tagger on both views by cooperative learning.

    With an index and no data.contexts, passages are retrieved into the run's folder where they are missing or stale.

    Example: `ctxner train train.jsonl --dev dev.jsonl --test test.jsonl --index runs/index --name first`

    Example: `ctxner train -c jobs/configs/wnut17-small.yaml --set run.workers=2`
    """
    from jobs import train as job

    settings = with_given(load_config(config, overrides), "data", {"train": sentences, "dev": dev, "test": test})
    settings = with_given(with_given(settings, "index", {"folder": folder}), "run", {"name": name})
    finish(
        lambda: job.plan(settings) if dry_run else job.run(settings),
        json,
        show=lambda result: job.show(settings, result, dry_run=dry_run, verbose=verbose),
    )


@app.command()
def evaluate(
    model: Model,
    split: Annotated[str, typer.Option(help="Which file of the data section.")] = "test",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            parser=path_or_uri,
            help="HTML page or its URI (default: evaluation-SPLIT.html, or -2.html, ..., beside the model).",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Of the view auto: entropy in nats above which a sentence is looked up (default: the model's)."
        ),
    ] = None,
    against: Annotated[str | None, typer.Option(help="Another model, to compare each view with.")] = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Score all views of a model against gold tags: what it gets wrong and where, and what the passages change.

    Without --config, the data, contexts and index are those that the model was trained with.

    Example: `ctxner evaluate runs/first/model`

    Example: `ctxner evaluate runs/wnut17/small/model -c jobs/configs/wnut17-small.yaml`
    """
    from jobs import evaluate as job

    settings = settings_for(model, config, overrides)

    def result() -> dict[str, Any]:
        page = out or job.default_page(settings, model, split, threshold=threshold, against=against)
        if dry_run:
            return job.plan(settings, model, split, out=page, threshold=threshold, against=against)
        renew_contexts(settings, model, split, config)
        return job.run(settings, model, split, out=page, threshold=threshold, against=against)

    finish(
        result,
        json,
        show=terminal.show if dry_run else job.show,
    )


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="Model folder or its URI; calibration.json is written into it.")],
    split: Annotated[str, typer.Option(help="Which file of the data section; not the one to report on.")] = "dev",
    share: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Part of the sentences to look up, as near as equal entropies allow; 0.5 by default."
        ),
    ] = None,
    f1: Annotated[float | None, typer.Option(min=0, max=1, help="F1 to reach, looking up as few as can be.")] = None,
    gain: Annotated[
        float | None, typer.Option(min=0, max=1, help="Part of the context view's gain in F1 to keep, e.g. 0.9.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            parser=path_or_uri,
            help="HTML page or its URI (default: calibration-SPLIT.html beside the model).",
        ),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Make a model's confidences true on dev, and choose which sentences `--view auto` looks up.

    Without --config, the data, contexts and index are those that the model was trained with.

    Example: `ctxner calibrate runs/wnut17/small/model -c jobs/configs/wnut17-small.yaml --share 0.5`
    """
    from jobs import calibrate as job
    from jobs.pages.page import page_beside

    settings = settings_for(model, config, overrides)
    page = out or page_beside(model, "model", f"calibration-{split}")
    wanted = job.Wanted(0.5 if (share, f1, gain) == (None, None, None) else share, f1, gain)

    def result() -> dict[str, Any]:
        if not dry_run:
            renew_contexts(settings, model, split, config)
        return (job.plan if dry_run else job.run)(settings, model, split, wanted, out=page)

    finish(result, json, summary=None if dry_run else job.summary)


@app.command()
def tag(
    sources: Annotated[
        list[str], typer.Argument(metavar="IN...", help="Files, folders, quoted patterns; or URIs of such.")
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder for the result, or its URI.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Model folder that `ctxner train` wrote, or a hub id.")],
    view: Annotated[
        Literal["plain", "context", "auto"] | None,
        typer.Option(help="auto: passages only where the plain view is unsure (default: tagging.view)."),
    ] = None,
    format: Annotated[
        Literal["auto", "columns", "jsonl", "parquet", "text", "files"],
        typer.Option(help="Of IN; auto goes by suffix, text is one document per line, files one document per file."),
    ] = "auto",
    to: Annotated[
        list[Written], typer.Option("--to", help="What to write; repeatable; four are for annotation tools.")
    ] = [Written.parquet],  # noqa: B006
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option(help="A file of another encoding, or with a fault: stop before tagging, or leave it out."),
    ] = "stop",
    folder: IndexFolder = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Tag files of documents on Ray: entities with character offsets, one row per document, in order; resumable.

    Without --config, the index and the settings of retrieval are those that the model was trained with.

    Example: `ctxner tag "posts/*.jsonl.gz" runs/posts --model runs/demo/cl-kl/model --to parquet --to jsonl`

    Example: `ctxner tag s3://bucket/posts s3://bucket/tagged -m runs/model --view auto --index runs/index`
    """
    from jobs import tag as job

    settings = with_given(settings_for(model, config, overrides), "index", {"folder": folder})
    settings = with_given(settings, "tagging", {"view": view})
    act = job.plan if dry_run else job.run
    kind = None if format == "auto" else format
    finish(
        lambda: act(
            settings,
            model,
            sources,
            out,
            kind=kind,
            formats=tuple(dict.fromkeys(kind.value for kind in to)),
            skip_faulty=on_error == "skip",
        ),
        json,
        summary=None if dry_run else of_tag,
    )


@app.command()
def tag_text(
    model: Model,
    text: Annotated[list[str], typer.Argument(help="Texts; without any, lines of standard input.")] = [],  # noqa: B006
    index: Annotated[
        Path | None, typer.Option(parser=path_or_uri, help="Index, or its URI, to look things up in: the context view.")
    ] = None,
    passage: Annotated[list[str], typer.Option(help="A passage at hand, instead of an index; repeatable.")] = [],  # noqa: B006
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Tag a text or a few, and show the entities.

    Example: `ctxner tag-text runs/demo/cl-kl/model "We met in Velmora." --index runs/demo/index`
    """
    from jobs import tag_text as job

    settings = settings_for(model, config, overrides)
    texts = text or [line.rstrip("\n") for line in sys.stdin]
    act = job.plan if dry_run else job.run
    finish(lambda: act(settings, model, texts, index=index, passages=passage), json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that the demo makes.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the invented world and of training.")] = 0,
    mode: Annotated[list[str], typer.Option(help="plain, context, cl-l2 or cl-kl; repeatable.")] = list(DEMO_MODES),  # noqa: B006
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Invent a small world, index it, retrieve, train in several modes and compare; offline, minutes on two cores.

    Example: `ctxner demo --mode plain --mode cl-l2 --mode cl-kl`
    """
    from jobs import demo as job

    finish(lambda: job.plan(out, seed, mode) if dry_run else job.run(out, seed, mode), json, show=job.show)
