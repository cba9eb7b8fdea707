"""The commands as a user meets them: help with examples, one JSON object, dry runs that write nothing, clear errors."""

from __future__ import annotations

import gzip
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

from ctxner.demo import World, make_world, write_world
from ctxner.files.contexts import Context
from ctxner.schema import ScoredPassage
from jobs.cli import app
from tests.contexts_files import write_contexts

Called = tuple[int, str, str]  # exit code, stdout, stderr


def commands(group: typer.core.TyperGroup, path: str = "") -> Iterator[str]:
    """All commands below a group, as they are typed; `index` is one too."""
    for name, command in group.commands.items():
        yield f"{path}{name}"
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, f"{path}{name} ")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(num_train=12, num_dev=4, num_test=5)


@pytest.fixture
def folder(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: the world's files and contexts for all of its sentences."""
    write_world(world, tmp_path / "world")
    for split in ("train", "dev", "test"):
        passage = ScoredPassage(world.corpus[0], 1.0, 1)
        rows = {f"{split}-{n}": Context(own.words, "q", (passage,)) for n, own in enumerate(getattr(world, split))}
        write_contexts(rows, tmp_path / "contexts" / f"{split}.parquet")
    (tmp_path / "config.yaml").write_text(
        "data: {train: world/train.conll, dev: world/dev.conll, test: world/test.conll, contexts: contexts}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def model(world: World, minilm: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved tagger with random weights: what it finds is chance, where it finds it is not."""
    import torch
    from transformers import BertConfig

    from ctxner.encoders import load_tokenizer
    from ctxner.model.tagger import EncoderCRF, EncoderCRFConfig
    from ctxner.predictor import Tagger

    torch.manual_seed(0)
    encoder = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    tagger = EncoderCRF(EncoderCRFConfig(encoder=encoder.to_dict(), types=list(world.types)))
    torch.nn.init.normal_(tagger.head.weight, std=2.0)
    path = tmp_path_factory.mktemp("model")
    Tagger(tagger, load_tokenizer(minilm)).save_pretrained(path)
    return str(path)


def call_apart(*arguments: object, stdin: str | None = None) -> Called:
    """Run a command in a process of its own, as what starts a JVM has to."""
    ended = subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout, ended.stderr


def listing(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


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


def test_index_prints_exactly_one_json_object_and_the_rest_on_stderr(folder: Path) -> None:
    code, out, err = call_apart("index", "--corpus", "world/corpus.jsonl", "--out", "runs/index", "--json")
    assert (code, out.count("\n")) == (0, 1)
    found = json.loads(out)
    assert found["num_documents"] == len((folder / "world/corpus.jsonl").read_text().splitlines())
    assert found["folder"] == "runs/index"
    assert (folder / "runs/index/CURRENT").read_text() == "v000001\n"
    assert "indexing passages" in err


def test_dry_run_of_index_counts_passages_and_writes_nothing(folder: Path) -> None:
    before = listing(folder)
    code, out, _ = call_apart("index", "--corpus", "world/corpus.jsonl", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["num_passages"] == len((folder / "world/corpus.jsonl").read_text().splitlines())
    assert listing(folder) == before


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
        (("tag", "odd://bucket/x", "made", "-m", "MODEL"), "Protocol not known: odd; wanted a path, or a URI that"),
        (("tag", "bare.jsonl", "odd://bucket/x", "-m", "MODEL"), "Protocol not known: odd; wanted a path, or a URI"),
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


def test_an_index_is_built_changed_searched_and_checked_by_its_commands(folder: Path) -> None:
    (folder / "more.jsonl").write_text('{"id": "new", "contents": "A zyxwv came.", "title": "Zyxwv", "source": "more"}')
    (folder / "ids.txt").write_text("new\n\nunheard-of\n")

    def result(*arguments: str) -> dict:
        code, out, err = call_apart("index", *arguments, "--json")
        assert (code, out.count("\n")) == (0, 1), err
        return json.loads(out)

    built = result("build", "--corpus", "world/corpus.jsonl", "--out", "made", "--set", "index.language=en")
    before = listing(folder)
    planned = result("add", "--corpus", "more.jsonl", "--index", "made", "--dry-run")
    assert (planned["num_added"], planned["num_replaced"]) == (1, 0)
    assert listing(folder) == before
    assert result("add", "--corpus", "more.jsonl", "--index", "made")["num_documents"] == built["num_documents"] + 1
    found = result("search", "They met Zyxwv.", "--index", "made", "--depth", "2")
    assert (found["hits"][0]["id"], found["hits"][0]["title"]) == ("new", "Zyxwv")
    assert found["hits"][0]["score"] > 0
    assert result("stats", "--index", "made")["sources"]["more"] == 1
    before = listing(folder)
    assert result("delete", "--ids-file", "ids.txt", "-i", "made", "--dry-run")["unknown_ids"] == ["unheard-of"]
    assert listing(folder) == before
    assert result("delete", "--ids-file", "ids.txt", "-i", "made")["corpus_sha256"] == built["corpus_sha256"]
    assert result("verify", "--index", "made")["num_documents"] == built["num_documents"]


def test_columns_of_a_csv_file_are_named_on_the_command_line_or_in_the_config(folder: Path) -> None:
    (folder / "shop.csv").write_text("Produkt,Synonyme\nVelmora 3,Blue Glow|V-300\n")
    (folder / "more.csv").write_text("label,type\nHator,chair\n")

    def result(*arguments: object) -> dict:
        code, out, err = call_apart("index", *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    corpus = ("--corpus", "shop.csv", "--columns", "name=Produkt, aliases = Synonyme")
    assert result(*corpus, "--dry-run")["num_passages"] == 1
    assert result(*corpus, "--out", "made")["num_names"] == 3
    more = ("add", "--corpus", "more.csv", "--index", "made")
    assert result(*more, "--columns", "name=label", "--dry-run")["num_added"] == 1
    assert result(*more, "--set", "index.columns.name=label")["num_names"] == 4
    code, _, err = call_apart("index", *more)
    assert code == 2
    assert "more.csv:1: the header, split at ',', has ['label', 'type']; wanted at least one of name, title" in err


def test_verifying_a_damaged_index_is_exit_code_2_and_one_message(folder: Path) -> None:
    assert call_apart("index", "--corpus", "world/corpus.jsonl", "--out", "made")[0] == 0
    (largest,) = sorted((folder / "made/v000001/shard-000").iterdir(), key=lambda path: path.stat().st_size)[-1:]
    content = largest.read_bytes()
    largest.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    code, out, err = call_apart("index", "verify", "--index", "made")
    assert (code, out) == (2, "")
    assert "error: made/v000001/shard-000: " in err
    assert "build the index again" in err
    assert "Traceback" not in err


def test_faulty_files_are_left_out_of_a_tagging_job_and_listed_if_asked_for(folder: Path, model: str, call) -> None:
    (folder / "bad.jsonl").write_bytes(b'{"text": "Gr\xf6\xdfe"}\n')
    (folder / "good.jsonl").write_text('{"text": "We met."}\n')
    arguments = ("tag", "bad.jsonl", "good.jsonl", "made", "-m", model, "--dry-run", "--json")
    code, _, err = call(*arguments)
    assert (code, "bad.jsonl:1: not UTF-8" in err) == (2, True)
    code, out, _ = call(*arguments, "--on-error", "skip")
    result = json.loads(out)
    assert (code, result["documents"], result["skipped_files"]) == (0, 1, 1)
    assert result["skipped"][0]["file"] == "bad.jsonl"
    assert "not UTF-8" in result["skipped"][0]["error"]


def test_a_file_that_expands_beyond_reason_is_left_out_and_the_others_are_read(folder: Path, model: str, call) -> None:
    with (folder / "bomb.jsonl.gz").open("wb") as file:
        file.write(gzip.compress(b'{"text": "We met."}\n{"text": "'))
        file.write(gzip.compress(b"a" * (1 << 24)) * 20)
    for name in ("a.jsonl", "c.jsonl"):
        (folder / name).write_text('{"text": "We met."}\n{"text": "In Paris."}\n')
    arguments = ("tag", "a.jsonl", "bomb.jsonl.gz", "c.jsonl", "made", "-m", model, "--dry-run", "--json")
    code, _, err = call(*arguments)
    assert (code, "bomb.jsonl.gz:2: expands to more than 500 times its size" in err) == (2, True)
    code, out, _ = call(*arguments, "--on-error", "skip")
    result = json.loads(out)
    assert (code, result["documents"], result["skipped_files"]) == (0, 4, 1)
    assert result["skipped"][0]["file"] == "bomb.jsonl.gz"


@pytest.mark.parametrize("cut", ["*.fdm", "segments_1"])
def test_searching_a_damaged_index_says_what_to_do_without_a_java_stack(folder: Path, cut: str) -> None:
    assert call_apart("index", "--corpus", "world/corpus.jsonl", "--out", "made")[0] == 0
    (path,) = (folder / "made/v000001/shard-000").glob(cut)
    path.write_bytes(path.read_bytes()[:-9])
    code, out, err = call_apart("index", "search", "Velmora", "--index", "made")
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert "made/v000001/shard-000: Lucene cannot open or read the index (CorruptIndexException: " in line
    assert "`ctxner index verify --index made` says what is damaged; build the index again with `ctxner index" in line
    assert ".java:" not in err


def test_a_search_is_shown_to_people_too(folder: Path, world: World) -> None:
    assert call_apart("index", "--corpus", "world/corpus.jsonl", "--out", "made")[0] == 0
    code, out, _ = call_apart("index", "search", f"I saw {world.corpus[0].title}", "--index", "made")
    assert code == 0
    assert world.corpus[0].title in out


def test_missing_corpus_file_is_one_message_and_leaves_no_index(folder: Path) -> None:
    before = listing(folder)
    code, out, err = call_apart("index", "--corpus", "absent.jsonl", "--out", "index", "--json")
    assert (code, out) == (2, "")
    assert "error: absent.jsonl: no such corpus file\n" in err
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


TEXT = "We met Zorblat in Velmora. Then the Quodun sank, sadly."


def test_tag_gives_entities_with_offsets_into_the_text(model: str, call: Callable[..., Called]) -> None:
    code, out, _ = call("tag-text", model, TEXT, "Second text here.", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["view"] == "plain"
    assert [own["text"] for own in found["texts"]] == [TEXT, "Second text here."]
    entities = [(own["text"], entity) for own in found["texts"] for entity in own["entities"]]
    assert entities
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for text, entity in entities)
    assert all(0 <= entity["confidence"] <= 1 for _, entity in entities)


def test_tag_reads_a_passage_at_hand_in_the_context_view(model: str, call: Callable[..., Called]) -> None:
    code, out, _ = call("tag-text", model, "We met in Velmora.", "--passage", "Velmora is a village.", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["view"] == "context"
    assert [passage["text"] for passage in found["texts"][0]["passages"]] == ["Velmora is a village."]


def test_tag_shows_its_entities_to_people_too(model: str, call: Callable[..., Called]) -> None:
    code, out, _ = call("tag-text", model, TEXT)
    assert code == 0
    assert "Zorblat" in out


def test_tag_reads_lines_of_stdin_and_looks_them_up_in_an_index(folder: Path, model: str, world: World) -> None:
    assert call_apart("index", "--corpus", "world/corpus.jsonl", "--out", "index")[0] == 0
    name = world.corpus[0].title
    code, out, err = call_apart("tag-text", model, "--index", "index", "--json", stdin=f"I think about {name}.\n😀\n\n")
    assert (code, out.count("\n")) == (0, 1), err
    found = json.loads(out)
    assert found["view"] == "context"
    about, emoji, empty = found["texts"]
    ids = {passage.id for passage in world.corpus}
    assert any(name in passage["text"] and passage["id"] in ids for passage in about["passages"])
    assert emoji["passages"] == []
    assert (empty["entities"], empty["passages"]) == ([], [])


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
        f"done in 2 s; the report: {path}",
        f'tag a text: ctxner tag-text {path}/model "Haloni sailed" --index {path}/index',
        f"serve it:   ctxner serve --model {path}/model --index {path}/index",
    ]
