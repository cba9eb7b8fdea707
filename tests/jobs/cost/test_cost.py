"""`ctxner cost`: its files, its jobs, and what it says to people and to programs."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ctxner.demo import make_world, write_world
from jobs.cost.amounts import ENCODERS, JOBS, Amounts
from jobs.cost.files import COSTS, HOSTS, read_costs, read_hosts
from jobs.cost.model import Fleet, bound, driver_bytes, host_bytes, total_seconds
from jobs.cost.study import study_jobs
from jobs.experiment.store import Store
from jobs.experiment.study import Study, cells
from jobs.experiment.tasks import tasks_of

KINDS = read_hosts()
AMOUNTS = Amounts(sentences=100e6, passages=50e6, view="context")


def fleet(hosts: int = 1, kind: str = "c7i.4xlarge") -> Fleet:
    each = KINDS.kind(kind)
    return Fleet(each, hosts, each.cores, KINDS.storage_gbit)


def test_each_figure_has_its_source():
    """The project's own files are whole: a machine, a date and a command for each stage that a job passes."""
    costs = read_costs()
    asked = [
        replace(AMOUNTS, view=view, query=query)
        for view in ("plain", "context")
        for query in ("entries", "mentions", "weighted", "bag")
    ]
    named = {row.stage for amounts in asked for job in JOBS.values() for row in job(amounts, costs, fleet()).rows}
    assert named == set(costs.stages)
    for source in costs.sources.values():
        assert source.machine
        assert source.command
        assert source.date[:4] == "2026"


@pytest.mark.parametrize("name", JOBS)
def test_no_job_is_faster_with_more_to_do(name):
    costs = read_costs()
    seconds = [total_seconds([JOBS[name](replace(AMOUNTS, sentences=size, passages=size / 2), costs, fleet())], costs)
               for size in (1e4, 1e6, 1e8)]  # fmt: skip
    assert seconds == sorted(seconds)
    assert seconds[0] < seconds[-1]


def test_auto_lies_between_the_views():
    """Half of the sentences looked up: all of the plain view's stages, and half of the context view's look-ups."""
    costs = read_costs()
    plain, auto, context = (
        {row.stage: row for row in JOBS["tag"](replace(AMOUNTS, view=view), costs, fleet()).rows}
        for view in ("plain", "auto", "context")
    )
    assert auto["tag.plain"] == plain["tag.plain"]
    assert auto["tag.context"].units == context["tag.context"].units / 2
    assert auto["search.entries"].units == 50e6
    assert "search.entries" not in plain


def test_a_larger_encoder_costs_by_its_operations():
    """XLM-R-large has 24 layers of 1024 against MiniLM's 6 of 384: 28 times the weights of the layers."""
    costs = read_costs()
    small, large = (
        JOBS["tag"](Amounts(1e6, shape=ENCODERS[name], pieces=30), costs, fleet()).rows[1].cpu_seconds
        for name in ("minilm-l6", "xlm-roberta-large")
    )
    rows = 1e6 * costs.stages["tag.plain"].cpu_s
    assert (large - rows) / (small - rows) == pytest.approx(28.4, rel=0.02)


def test_a_server_needs_as_many_routers_and_hosts_as_its_load():
    """500 requests per second of 3.8 ms keep 1.9 routers busy: three at 70% load."""
    costs = read_costs()
    router = costs.stages["serve.router"].driver_s
    job = JOBS["serve"](Amounts(sentences=500), costs, fleet())
    cores = sum(row.cpu_seconds for row in job.rows) / 3600
    hosts = -(-cores // (0.7 * fleet(1).cores))
    assert job.notes[0].startswith(f"{hosts:.0f} hosts and {-(-500 * router // 0.7):.0f} routers")
    assert -(-500 * router // 0.7) == 3


def test_gradients_of_a_small_batch_bound_a_training_on_several_hosts():
    """XLM-R-large on one GPU computes; on two hosts a step of 32 sentences waits for 2.2 GB of gradients."""
    costs = read_costs()
    amounts = Amounts(sentences=1e6, shape=ENCODERS["xlm-roberta-large"])
    bounds = [JOBS["train"](replace(amounts, batch=batch), costs, fleet(hosts, "g6.8xlarge")).rows[0].bound
              for hosts, batch in ((1, 32), (2, 32), (2, 32_000))]  # fmt: skip
    assert bounds == ["gpu", "network", "gpu"]


def test_what_does_not_fit_is_bound_by_memory():
    costs = read_costs()
    jobs = [JOBS["tag"](replace(AMOUNTS, passages=1e9), costs, fleet())]
    assert host_bytes(jobs[0], fleet(), costs) > 32 * 2**30
    assert bound(jobs, fleet(), costs) == "memory"
    assert bound([JOBS["tag"](AMOUNTS, costs, fleet())], fleet(), costs) == "cpu"


def test_the_drivers_memory_grows_with_the_sentences():
    costs = read_costs()
    small, large = (
        driver_bytes(JOBS["retrieve"](replace(AMOUNTS, sentences=n), costs, fleet()), costs) for n in (1e6, 1e9)
    )
    each = max(costs.stages[name].driver_bytes for name in ("retrieve.stage", "retrieve.join"))
    assert large - small == pytest.approx(each * (1e9 - 1e6))
    assert each >= 8, "a hash per id"


def test_hosts_and_prices_are_the_users(tmp_path, call):
    tree = yaml.safe_load(HOSTS.read_text())
    tree["currency"], tree["kinds"] = "EUR", {"ours": {"cores": 4, "memory_gib": 16, "network_gbit": 1, "price": 2.5}}
    path = tmp_path / "hosts.yaml"
    path.write_text(yaml.safe_dump(tree))
    code, out, _ = call("cost", "tag", "--sentences", "1e6", "--hosts", 3, "--hosts-file", path, "--json")
    (plan,) = json.loads(out)["plans"]
    assert code == 0
    assert plan["price"] == pytest.approx(plan["hours"] * 3 * 2.5)
    stages = [stage for job in plan["jobs"] for stage in job["stages"]]
    assert plan["hours"] == pytest.approx(sum(stage["hours"] for stage in stages) + read_costs().ray_start_s / 3600)
    assert plan["workers"] == 4


def test_one_table_for_each_number_of_hosts(call):
    code, out, _ = call("cost", "index", "tag", "--sentences", "1e6", "--passages", "1e6", "--hosts", 1, "--hosts", 4)
    assert code == 0
    for text in ("1 x measured, 2 workers each", "4 x measured", "index.write", "tag.plain", "hours", "bound by"):
        assert text in out


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_job_and_every_known_encoder_can_be_asked_for(encoder, call):
    code, _, err = call("cost", *JOBS, "--sentences", "1e3", "--passages", "1e3", "--encoder", encoder)
    assert (code, err) == (0, "")


def test_stages_stay_whole_in_a_narrow_terminal(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = call("cost", "tag", "--sentences", "1e6", "--passages", "1e6", "--view", "context", "--query", "bag")
    for stage in ("tag.stage", "search.bag", "rerank", "tag.context", "tag.move", "tag.join"):
        assert re.search(rf"^ +{re.escape(stage)} +1,000,000 ", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tag"], "tag: found no number of sentences, wanted --sentences N"),
        (["retrieve", "--sentences", "5"], "retrieve: found no number of passages, wanted --passages M"),
        (["tag", "--sentences", "5", "--kind", "none"], "no such kind of host; there are measured"),
        (["tagg", "--sentences", "5"], "tagg: no such study; give a YAML file, or one of"),
        (["tag", "bc5cdr-500"], "wanted one study or pipeline, or jobs: index"),
    ],
)
def test_what_is_missing_is_said(arguments, message, call):
    code, out, err = call("cost", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda tree: tree["stages"]["tag.plain"].update(cpu=1), "stages.tag.plain.cpu: unknown key 'cpu'; valid here"),
        (lambda tree: tree["stages"]["tag.plain"].update(cpu_s=-1), "stages.tag.plain.cpu_s: found -1"),
        (lambda tree: tree["stages"]["tag.plain"].update(source="none"), "tag.plain: source 'none' is not among"),
        (lambda tree: tree.pop("text"), "text: "),
    ],
)
def test_a_wrong_file_of_costs_is_refused(break_it: Callable[[dict], object], message: str, tmp_path: Path):
    tree = copy.deepcopy(yaml.safe_load(COSTS.read_text()))
    break_it(tree)
    path = tmp_path / "costs.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ValueError, match=message) as caught:
        read_costs(path)
    assert str(caught.value).startswith(f"{path}:")


def test_a_gpu_needs_its_speed(tmp_path):
    path = tmp_path / "hosts.yaml"
    kind = {"cores": 4, "memory_gib": 16, "network_gbit": 1, "price": 1, "gpus": 1}
    path.write_text(yaml.safe_dump({"currency": "EUR", "storage_gbit": 1, "kinds": {"ours": kind}}))
    with pytest.raises(ValueError, match="give both or neither"):
        read_hosts(path)


def test_a_study_counts_each_step_once(tmp_path):
    """Two seeds and two modes: one index, one retrieval, four trainings; two hosts train twice as many at once."""
    write_world(make_world(num_train=60, num_dev=20, num_test=20), tmp_path / "world")
    grid = {"mode": ["plain", "cl-kl"], "seed": [0, 1]}
    study = Study.model_validate({"name": "study", "base": "demo", "grid": grid})
    files = [f"data.{split}={tmp_path / 'world' / split}.conll" for split in ("train", "dev", "test")]
    made = cells(
        study, [*files, f"index.corpus=[{tmp_path / 'world' / 'corpus.jsonl'}]", "run.workers=1", "run.threads=2"]
    )
    tasks, _ = tasks_of(study, made, Store(tmp_path))
    costs = read_costs()
    jobs = {job.name: job for job in study_jobs(tasks, costs, fleet(kind="measured"))}
    assert list(jobs) == ["1 x index", "1 x contexts", "4 x train", "4 x score"]
    sentences = (tmp_path / "world" / "train.conll").stat().st_size / costs.text.sentence_bytes
    assert jobs["4 x train"].rows[0].units == pytest.approx(4 * sentences * made[0].config.optim.epochs)
    twice = {job.name: job for job in study_jobs(tasks, costs, fleet(2, kind="measured"))}
    ratio = jobs["4 x train"].rows[0].seconds / twice["4 x train"].rows[0].seconds
    assert ratio == pytest.approx(2)
