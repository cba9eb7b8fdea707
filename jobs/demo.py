"""`ctxner demo`: the whole path on an invented world, offline: index, contexts, training in each mode, report."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from ctxner import __version__
from ctxner.config import MODES, SPLITS, Config, load_config
from ctxner.encoders import packaged_encoder
from jobs import calibrate as calibrate_job
from jobs import index as index_job
from jobs import retrieve as retrieve_job
from jobs.cluster import connect
from jobs.console import console, progress
from jobs.console import show as show_result
from jobs.pages.charts import EpochPoint
from jobs.pages.demo import TaggedSentence, outcome, write_report

if TYPE_CHECKING:
    from ctxner.schema import Entity, Example, Sentence

SETTINGS = Path(__file__).parent / "configs" / "demo.yaml"
_MARK = ".ctxner-demo"
_OTHER_WORLD = 1000  # added to the seed: a world whose names the demo's index lacks
_SHOWN = 2  # sentences printed at the end, each with its best passage
_AUTO = calibrate_job.Wanted(share=0.5)
# The paper's CL-L2 sums over a vector's 384 entries; here it outweighs the losses of the tags: F1 is 18 in both views.
_LOSS = {"cl-l2": {"preset": "released_code"}}


def run(out: Path, seed: int, modes: Sequence[str]) -> dict[str, Any]:
    """Run everything into `out`; returns the test F1 by mode and view, and the report's path."""
    check_modes(modes)
    from ctxner.demo import make_world, write_world

    started, timings = time.perf_counter(), {}
    _clear(out)
    connect()  # before the index: Ray's signal handlers must not replace a running JVM's
    world = make_world(seed=seed)
    write_world(world, out / "world")
    config = settings(out, seed)
    manifest = index_job.run(config)
    timings["index"] = manifest["seconds"]
    retrieved = retrieve_job.run(config, SPLITS)
    timings["retrieve"] = retrieved["seconds"]
    scores: dict[str, Any] = {}
    curves: list[EpochPoint] = []
    tagged: list[TaggedSentence] = []
    for mode in modes:
        mode_started = time.perf_counter()
        scores[mode], history, tagged = _train_and_test(config, mode, seed)
        curves += [EpochPoint(mode, entry["epoch"], entry["losses"], entry["dev_f1"]) for entry in history]
        timings[f"train and test {mode}"] = round(time.perf_counter() - mode_started, 1)
        if mode.startswith("cl-"):  # `auto` needs a threshold to choose the sentences to look up
            calibrate_job.run(config, str(out / mode / "model"), "dev", _AUTO, out=out / f"{mode}-calibration.html")
    facts = {
        "ctxner": __version__,
        "encoder": "MiniLM-L6 (packaged)",
        "sentences": ", ".join(f"{split} {len(getattr(world, split))}" for split in SPLITS),
        "passages": str(manifest["num_documents"]),
        "corpus sha256": manifest["corpus_sha256"][:16],
        "config": config.digest(),
        "seconds": ", ".join(f"{name} {seconds}" for name, seconds in timings.items()),
    }
    report = write_report(
        out / "report.html", title="ctxner demo", scores=_micro(scores), curves=curves, sentences=tagged, facts=facts
    )
    _show(scores, tagged)
    learnt = _add_knowledge(config, str(out / modes[-1] / "model"), seed)
    result = {
        "scores": {
            mode: {view: scores_of_view["micro"]["f1"] for view, scores_of_view in score.items()}
            for mode, score in scores.items()
        },
        "report": str(report),
        "new_names": learnt,
        "model": str(out / modes[-1] / "model"),
        "index": str(config.index.folder),
        "text": " ".join(tagged[0].words),
        "seconds": round(time.perf_counter() - started, 1),
    }
    (out / "result.json").write_text(json.dumps({**result, "details": scores}, indent=1))
    return result


def show(result: dict[str, Any]) -> None:
    """Print a plan or a result for people; `run` has already shown the scores."""
    if "config" in result:  # a plan
        show_result({name: value for name, value in result.items() if name != "config"})
        return
    model, index, text = result["model"], result["index"], result["text"]
    commands = {
        "tag a text": f'ctxner tag-text {model} "{text}" --index {index}',
        "serve it": f"ctxner serve --model {model} --index {index}",
    }
    show_result({"done in": f"{result['seconds']:.0f} s", "report": result["report"], "next": commands})


def check_modes(modes: Sequence[str]) -> None:
    """Raise ValueError if there is no mode, an unknown mode or a repeated mode."""
    if not modes or set(modes) - set(MODES) or len(set(modes)) < len(modes):
        raise ValueError(f"--mode {' '.join(modes)}: wanted some of {', '.join(MODES)}, each once")


def plan(out: Path, seed: int, modes: Sequence[str]) -> dict[str, Any]:
    """What `run` would do."""
    check_modes(modes)
    config = settings(out, seed)
    return {
        "out": str(out),
        "modes": list(modes),
        "encoder": packaged_encoder(),
        "config": config.model_dump(mode="json"),
    }


def settings(out: Path, seed: int) -> Config:
    """The demo's config with its paths under `out`."""
    files = [f"data.{split}={out / 'world' / split}.conll" for split in SPLITS]
    places = [
        f"data.contexts={out / 'contexts'}",
        f"data.cache={out / 'views'}",
        f"index.folder={out / 'index'}",
        f"run.storage={out}",
    ]
    return load_config(
        SETTINGS, [*files, *places, f"index.corpus=[{out / 'world' / 'corpus.jsonl'}]", f"run.seed={seed}"]
    )


def _clear(out: Path) -> None:
    """Make `out` an empty folder with the demo's mark; a folder with other files and no mark is refused."""
    if out.exists() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise ValueError(f"{out}: not empty and not made by an earlier demo; give another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARK).touch()


def _train_and_test(config: Config, mode: str, seed: int) -> tuple[dict[str, Any], list[dict], list[TaggedSentence]]:
    """Train one mode; returns test scores by view, the history, and the test sentences as both views tag them."""
    from ctxner.evaluation.scores import count_spans
    from ctxner.labels import gold_spans
    from ctxner.predictor import Tagger
    from ctxner.schema import VIEWS
    from ctxner.training.data.training_set import load_split
    from ctxner.training.observe.progress import Watcher
    from ctxner.training.worker import train

    run = config.run.model_copy(update={"name": mode})
    loss = config.loss.model_copy(update={"mode": mode, **_LOSS.get(mode, {})})
    with progress(f"training {mode}", None) as done:
        result = train(config.model_copy(update={"run": run, "loss": loss}), watcher=Watcher(on_step=done))
    tagger, test = Tagger.from_pretrained(result.model), load_split(config.data, "test")
    gold = [gold_spans(example.sentence) for example in test]
    predictions = {view: tagger.predict(test, view=view) for view in VIEWS}
    scores: dict[str, Any] = {
        view: count_spans(gold, [prediction.spans for prediction in predictions[view]]).scores().to_dict()
        for view in VIEWS
    }
    tagged = [
        TaggedSentence(
            example.sentence.id, example.sentence.words, spans, plain.entities, context.entities, context.passages
        )
        for example, spans, plain, context in zip(test, gold, predictions["plain"], predictions["context"], strict=True)
    ]
    return scores, result.history, tagged


def _add_knowledge(config: Config, model: str, seed: int) -> dict[str, float]:
    """Tag sentences about names that the index lacks, add entries for them to the index, and tag them again.

    Prints one of the sentences, before and after. Returns the F1 of the context view before and after.
    """
    from ctxner.demo import make_world, write_passages
    from ctxner.evaluation.scores import count_spans
    from ctxner.labels import gold_spans
    from ctxner.predictor import Tagger

    world, path = make_world(seed=seed + _OTHER_WORLD), config.index.corpus[0].with_name("new-names.jsonl")
    names = {" ".join(s.words[span.start : span.end]) for s in world.test for span in gold_spans(s)}
    entries = [replace(entry, id=f"new-{entry.id}") for entry in world.corpus if entry.title in names]
    write_passages(entries, path)
    gold = [gold_spans(sentence) for sentence in world.test]
    tagger = Tagger.from_pretrained(model)
    before = tagger.predict(_looked_up(config, world.test), view="context")
    add = config.index.model_copy(update={"corpus": (path,)})
    num_added = index_job.add(config.model_copy(update={"index": add}))["num_added"]
    after = tagger.predict(_looked_up(config, world.test), view="context")
    f1 = [count_spans(gold, [answer.spans for answer in answers]).scores().f1 for answers in (before, after)]
    changed = [n for n, spans in enumerate(gold) if spans and set(before[n].spans) != set(spans) == set(after[n].spans)]
    console.print(Text(f"{len(names)} names that the index lacked; {num_added} entries added, nothing trained:"))
    console.print(Text(f"  context view F1 {100 * f1[0]:.1f} before, {100 * f1[1]:.1f} after", style="bold"))
    for n in changed[:1]:
        console.print(Text(" ".join(world.test[n].words), style="bold"))
        for when, answer in (("before", before[n]), ("after", after[n])):
            console.print(Text(f"  {when:8}{_marks(answer.entities)}"))
        console.print(Text(f"  added   {after[n].passages[0].passage.text}", style="dim"))
    return {"before": round(f1[0], 4), "after": round(f1[1], 4)}


def _looked_up(config: Config, sentences: Sequence[Sentence]) -> list[Example]:
    """The sentences with the passages of the index's current version."""
    from ctxner.retriever import Retriever
    from ctxner.schema import Example

    passages = Retriever(config.retrieval, folder=config.index.folder).retrieve(sentences)
    return [Example(*pair) for pair in zip(sentences, passages, strict=True)]


def _marks(entities: Sequence[Entity]) -> str:
    return ", ".join(f"{entity.text} = {entity.type} ({entity.confidence:.2f})" for entity in entities) or "nothing"


def _micro(scores: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    return {mode: {view: view_scores["micro"] for view, view_scores in score.items()} for mode, score in scores.items()}


def _show(scores: dict[str, Any], tagged: Sequence[TaggedSentence]) -> None:
    """Print the test F1 of each mode, and sentences that only the context view tags right."""
    table = Table("trained as", "plain view F1", "context view F1", title="test F1, names never seen in training")
    for mode, score in scores.items():
        table.add_row(mode, *(f"{100 * score[view]['micro']['f1']:.1f}" for view in ("plain", "context")))
    console.print(table)
    for sentence in [sentence for sentence in tagged if outcome(sentence) == "fixed"][:_SHOWN]:
        console.print(Text(" ".join(sentence.words), style="bold"))
        for view, entities in (("plain", sentence.plain), ("context", sentence.context)):
            console.print(Text(f"  {view:8}{_marks(entities)}"))
        for scored in [scored for scored in sentence.passages if scored.dropped is None][:1]:
            console.print(Text(f"  read    {scored.passage.text}", style="dim"))
