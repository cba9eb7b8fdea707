"""The commands as a user meets them: help with examples, one JSON object, dry runs that write nothing, clear errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
import typer
import typer.core
import typer.main

from jobs.cli import app
from tests.jobs.command_line import Called, listing


def commands(group: typer.core.TyperGroup, path: str = "") -> Iterator[str]:
    """All commands below a group, as they are typed; `index` is one too."""
    for name, command in group.commands.items():
        yield f"{path}{name}"
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, f"{path}{name} ")


def test_the_version_is_one_line_of_what_is_installed_and_loads_nothing_heavy(call: Callable[..., Called]) -> None:
    code, out, err = call("--version")
    assert (code, err) == (0, "")
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "ray", "transformers"))
    assert out == f"ctxner {metadata.version('ctxner')} (Python {sys.version.split()[0]}, {packages})\n"
    heavy = "import sys; sys.argv = ['ctxner', '--version']\nfrom jobs.cli import main\ntry: main()\n"
    heavy += "except SystemExit: print([name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert ended.stdout == f"{out}[]\n"


@pytest.mark.parametrize("command", commands(typer.main.get_group(app)))
def test_help_shows_an_example(command: str, call: Callable[..., Called]) -> None:
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert f"ctxner {command} " in " ".join(out[out.index("Example") :].replace("│", " ").split())


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("train", "-c", "config.yaml"), {"sentences": {"train": 12, "dev": 4, "dev, scored after each epoch": 4}}),
        (("evaluate", "MODEL", "-c", "config.yaml"), {"sentences": 5, "views": ["plain", "context"]}),
        (("tag-text", "MODEL", "We met in Velmora. It rained."), {"sentences": 2}),
        (("tag", "world/dev.conll", "world/t*.conll", "made", "-m", "MODEL"), {"documents": 21, "parts": 21}),
        (("demo", "--out", "made"), {"out": "made"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_dry_run_prints_the_plan_and_writes_nothing(
    command: tuple[str, ...], expected: dict, folder: Path, model: str, call: Callable[..., Called]
) -> None:
    before = listing(folder)
    code, out, _ = call(*(model if word == "MODEL" else word for word in command), "--dry-run", "--json")
    assert code == 0
    assert json.loads(out).items() >= expected.items()
    assert listing(folder) == before


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("index",), "no corpus; give --corpus FILE or set index.corpus"),
        (("index", "build"), "no corpus; give --corpus FILE or set index.corpus"),
        (("index", "add", "--index", "absent"), "no corpus; give --corpus FILE or set index.corpus"),
        (("index", "--out", "absent", "verify"), "options go behind the sub-command: ctxner index verify --help"),
        (("index", "add", "--corpus", "empty.conll", "--index", "absent"), "absent: no such index folder"),
        (("index", "delete", "--index", "absent"), "no id; give ids as arguments or --ids-file FILE"),
        (("index", "delete", "x", "--index", "absent"), "absent: no such index folder"),
        (("index", "verify", "--index", "contexts"), "contexts: no CURRENT: not an index"),
        (("index", "stats", "--index", "absent"), "absent: no such index folder"),
        (("index", "search", "x", "--index", "absent"), "absent: no such index folder"),
        (("index", "--corpus", "config.yaml"), "unknown corpus format"),
        (("index", "--corpus", "shop.csv", "--columns", "name"), "--columns 'name': found 'name', wanted FIELD=COLUMN"),
        (("index", "--corpus", "shop.csv", "--columns", "nmae=Produkt"), "unknown field 'nmae'"),
        (("index", "--columns", "name=Produkt", "verify"), "options go behind the sub-command: ctxner index verify"),
        (("retrieve",), "no data set"),
        (("retrieve", "-c", "config.yaml", "--set", "index.folder=absent"), "absent: no such index folder"),
        (("retrieve", "-c", "config.yaml", "--split", "tset"), "split 'tset' has no file"),
        (("train",), "no sentences for train; give a file: ctxner train FILE (or --set data.train=FILE)"),
        (("train", "world/train.conll"), "no sentences for dev; give --dev FILE (or --set data.dev=FILE)"),
        (("train", "world/train.conll", "--dev", "world/dev.conll"), "give --index INDEX to retrieve some"),
        (("train", "world/train.conll", "--dev", "world/dev.conll", "-i", "absent"), "absent: no such index folder"),
        (("evaluate", "MODEL"), "split 'test' has no file; give --set data.test=FILE"),
        (("train", "-c", "absent.yaml"), "absent.yaml: not a readable YAML file"),
        (("train", "--set", "optim.epoch=3"), "unknown key 'epoch'; valid here: encoder_lr"),
        (("train", "--set", "optim.epochs=0"), "optim.epochs: found 0"),
        (("train", "--set", "epochs"), "wanted key=value"),
        (("train", "-c", "config.yaml", "--set", "data.train=absent.conll"), "absent.conll"),
        (("train", "-c", "config.yaml", "--set", "data.train=empty.conll"), "empty.conll: no sentence in the file"),
        (("train", "-c", "config.yaml", "--set", "data.tag_column=null"), "tag_column"),
        (("train", "-c", "config.yaml", "--set", "model.encoder=absent"), "encoder 'absent' does not load: no folder"),
        (("train", "-c", "config.yaml", "--set", "data.contexts=absent"), "no contexts file"),
        (("evaluate", "absent", "-c", "config.yaml"), "model 'absent': no folder that ctxner saved"),
        (("evaluate", "MODEL", "-c", "config.yaml", "--split", "tset"), "split 'tset' has no file"),
        (
            ("evaluate", "MODEL", "-c", "config.yaml", "--set", "data.test=bare.jsonl", "--set", "data.contexts=null"),
            "no gold tags",
        ),
        (("tag-text", "absent", "Some text."), "model 'absent': no folder that ctxner saved"),
        (("tag-text", "contexts", "Some text."), "model 'contexts': no folder that ctxner saved"),
        (("tag-text", "MODEL", "Some text.", "--index", "absent"), "absent: no such index folder"),
        (("tag", "absent.jsonl", "made", "-m", "MODEL"), "absent.jsonl: no such file"),
        (("tag", "bare.jsonl", "made", "-m", "absent"), "model 'absent': no folder that ctxner saved"),
        (("tag", "empty.conll", "made", "-m", "MODEL"), "empty.conll: no sentence in the file"),
        (("tag", "bad.jsonl", "made", "-m", "MODEL"), "bad.jsonl:2: 'text' is 3; wanted a string"),
        (("tag", "bare.jsonl", "made", "-m", "MODEL", "--view", "auto"), "run `ctxner calibrate"),
        (("tag", "bare.jsonl", "made", "-m", "MODEL", "--view", "context", "-i", "absent"), "absent: no such index"),
        (("tag", "odd://bucket/x", "made", "-m", "MODEL"), "Protocol not known: odd; wanted a path, or s3://"),
        (("tag", "bare.jsonl", "odd://bucket/x", "-m", "MODEL"), "Protocol not known: odd; wanted a path, or s3://"),
        (("demo", "--out", "contexts"), "not empty and not made by an earlier demo"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_a_user_can_mend_is_one_message_on_stderr_and_exit_code_2(
    command: tuple[str, ...], message: str, folder: Path, model: str, call: Callable[..., Called]
) -> None:
    (folder / "empty.conll").write_text("")
    (folder / "shop.csv").write_text("Produkt\n")
    (folder / "bare.jsonl").write_text('{"id": "test-0", "text": "No tags here"}\n')
    (folder / "bad.jsonl").write_text('{"text": "good"}\n{"text": 3}\n')
    before = listing(folder)
    code, out, err = call(*(model if word == "MODEL" else word for word in command))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("error:") == 1
    assert "Traceback" not in err
    assert listing(folder) == before


@pytest.mark.parametrize("command", [("bake",), ("train", "--fast"), ("evaluate",)])
def test_wrong_usage_is_exit_code_2(command: tuple[str, ...], call: Callable[..., Called]) -> None:
    code, out, err = call(*command)
    assert (code, out) == (2, "")
    assert "Usage:" in err


def test_type_that_the_model_lacks_counts_as_missed_and_says_so(
    folder: Path, model: str, call: Callable[..., Called]
) -> None:
    (folder / "alien.conll").write_text("Zorg\tB-alien\nlanded\tO\n")
    settings = ("--set", "data.test=alien.conll", "--json")
    code, out, err = call("evaluate", model, *settings)
    assert code == 0
    assert json.loads(out)["scores"]["plain"]["per_type"]["alien"]["recall"] == 0
    assert "types ['alien'] are in the data but not in the model" in err


def test_evaluate_scores_both_views_by_type(folder: Path, model: str, call: Callable[..., Called]) -> None:
    code, out, _ = call("evaluate", model, "-c", "config.yaml", "--json")
    assert code == 0
    scores = json.loads(out)["scores"]
    assert set(scores) == {"plain", "context"}
    assert scores["plain"]["micro"]["num_gold"] == scores["context"]["micro"]["num_gold"] > 0


def test_a_plan_of_the_demo_is_shown_to_people_without_all_settings(
    tmp_path: Path, call: Callable[..., Called]
) -> None:
    code, out, _ = call("demo", "--out", tmp_path / "made", "--dry-run")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["out", "modes", "encoder"]


def test_demo_never_empties_a_folder_that_it_did_not_make(folder: Path, call: Callable[..., Called]) -> None:
    before = sorted(folder.rglob("*"))
    assert (folder / "world").is_dir()
    code, _, err = call("demo", "--out", ".")
    assert code == 2
    assert "not made by an earlier demo" in err
    assert sorted(folder.rglob("*")) == before


def test_result_of_the_demo_is_shown_to_people_with_its_whole_path(capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.demo import show

    path = "/".join(["a-long-folder"] * 20) + "/report.html"
    result = {"scores": {"plain": {"plain": 0.5, "context": 0.6}}, "report": path, "seconds": 1.5}
    show({**result, "model": f"{path}/model", "index": f"{path}/index", "text": "Haloni sailed"})
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "done in  2 s",
        f"report   {path}",
        f'tag a text: ctxner tag-text {path}/model "Haloni sailed" --index {path}/index',
        f"serve it:   ctxner serve --model {path}/model --index {path}/index",
    ]
