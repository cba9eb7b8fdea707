"""`ctxner cost`: only Typer's declarations and the way from options to the work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobs.commands.common import finish
from jobs.options import AsJson

app = typer.Typer(rich_markup_mode="markdown")

_NAMES = ("index", "retrieve", "train", "evaluate", "tag", "serve")


@app.command()
def cost(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT...", help=f"A study or a pipeline (YAML, or its name), or jobs: {', '.join(_NAMES)}."
        ),
    ],
    sentences: Annotated[
        float, typer.Option(min=0, help="Sentences to retrieve for, tag, train on; of serve: requests per second.")
    ] = 0,
    passages: Annotated[float, typer.Option(min=0, help="Passages of the index.")] = 0,
    hosts: Annotated[list[int], typer.Option(min=1, max=10_000, help="Number of hosts; repeatable.")] = [1],  # noqa: B006
    kind: Annotated[str | None, typer.Option(help="Kind of host in the file of hosts (default: its first).")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers per host (default: one per core).")] = None,
    view: Annotated[Literal["plain", "context", "auto"], typer.Option(help="View of tag and serve.")] = "plain",
    looked_up: Annotated[float, typer.Option(min=0, max=1, help="Share that `auto` looks up.")] = 0.5,
    query: Annotated[
        Literal["entries", "mentions", "weighted", "bag"], typer.Option(help="As retrieval.query.")
    ] = "entries",
    rerank: Annotated[bool, typer.Option("--rerank/--no-rerank", help="As retrieval.rerank.")] = True,
    encoder: Annotated[
        Literal["minilm-l6", "bert-base-uncased", "biobert-base-cased-v1.2", "xlm-roberta-base", "xlm-roberta-large"],
        typer.Option(help="Sizes of the tagger's encoder."),
    ] = "minilm-l6",
    pieces: Annotated[
        float | None, typer.Option(min=1, help="Per sentence in the plain view (default: measured).")
    ] = None,
    context_pieces: Annotated[
        float | None, typer.Option(min=1, help="In the context view (default: measured).")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of a training.")] = 10,
    batch: Annotated[int, typer.Option(min=1, help="Sentences per training step.")] = 32,
    costs_file: Annotated[Path | None, typer.Option("--costs", help="Measured costs (default: ctxner's own).")] = None,
    hosts_file: Annotated[Path | None, typer.Option("--hosts-file", help="Kinds of hosts with prices, yours.")] = None,
    json: AsJson = False,
) -> None:
    """Say what jobs, a study or a pipeline would take on given hosts: hours, bytes, memory, what bounds them, price.

    Nothing is run: measured costs per sentence and passage are multiplied, divided by the cores, and the serial parts
    are added. Copy `jobs/cost/hosts.yaml`, put your hosts and prices in, and give it as `--hosts-file`.

    Example: `ctxner cost bc5cdr-500`

    Example: `ctxner cost tag --sentences 100e6 --passages 50e6 --view context --hosts 16 --kind c7i.4xlarge`

    Example: `ctxner cost index retrieve --sentences 1e6 --passages 5e6 --hosts 1 --hosts 4 --json`
    """
    from jobs.cost import report
    from jobs.cost.amounts import ENCODERS, Amounts
    from jobs.cost.files import COSTS, HOSTS, read_costs, read_hosts

    costs, known = read_costs(costs_file or COSTS), read_hosts(hosts_file or HOSTS)
    name = kind or next(iter(known.kinds))
    amounts = Amounts(
        sentences=sentences,
        passages=passages,
        view=view,
        looked_up=looked_up,
        query=query,
        rerank=rerank,
        shape=ENCODERS[encoder],
        pieces=pieces,
        context_pieces=context_pieces,
        epochs=epochs,
        batch=batch,
    )
    make = _jobs(what, amounts, costs) if set(what) <= set(_NAMES) else _file(what, costs)
    fleets = report.fleets(known, name, hosts, workers, costs)
    finish(lambda: report.report(make, fleets, name, costs, known), json, report.show)


def _jobs(names: list[str], amounts: Any, costs: Any) -> Any:
    from jobs.cost.amounts import JOBS

    reads_index = amounts.view != "plain"
    for name in names:
        if name != "index" and not amounts.sentences:
            raise ValueError(f"{name}: found no number of sentences, wanted --sentences N, for example 100e6")
        searches = name in ("index", "retrieve") or (name in ("tag", "serve") and reads_index)
        if searches and not amounts.passages:
            raise ValueError(f"{name}: found no number of passages, wanted --passages M, for example 50e6")
    return lambda fleet: [JOBS[name](amounts, costs, fleet) for name in names]


def _file(names: list[str], costs: Any) -> Any:
    from jobs.commands.experiment import DEFAULT_STORE
    from jobs.cost.study import study_jobs
    from jobs.experiment.store import Store
    from jobs.experiment.study import cells, find_study, read_study
    from jobs.experiment.tasks import tasks_of
    from jobs.pipeline.definition import is_pipeline
    from jobs.pipeline.job import task_of

    if len(names) > 1:
        raise ValueError(f"{' '.join(names)}: wanted one study or pipeline, or jobs: {', '.join(_NAMES)}")
    if is_pipeline(names[0]):
        return lambda fleet: study_jobs([task_of(names[0])], costs, fleet)
    study = read_study(find_study(names[0]))
    tasks, missing = tasks_of(study, cells(study), Store(DEFAULT_STORE.absolute()))
    told = tuple(f"{len(missing)} cells left out: {reason}" for reason in dict.fromkeys(missing.values()))

    def make(fleet: Any) -> Any:
        first, *rest = study_jobs(tasks, costs, fleet)
        return [replace(first, notes=(*first.notes, *told)), *rest]

    return make
