"""Settings: every bad one is refused with what would be right, and the digest stands for all of them."""

import json
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from ctxner.config import Config, ModelConfig, load_config, parse_config
from ctxner.encoders import packaged_encoder
from ctxner.retriever import decided


def _write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "job.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _leaves(section: BaseModel, prefix: tuple[str, ...] = ()):
    for name, value in section:
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


OTHER_VALUES = {
    "data.train": "a", "data.dev": "a", "data.test": "a", "data.contexts": "a", "data.scheme": "BIOES",
    "data.encoding": "cp1252",
    "data.tag_column": 3, "index.corpus": ["a"], "index.folder": "a", "index.language": "de", "index.unit": "sentence",
    "index.columns": {"name": "a"}, "data.overlaps": "refuse",
    "data.dev_sentences": 3, "optim.batch_pieces": 512, "model.attention_dropout": 0.0,
    "retrieval.query": "bag", "index.source": "a", "retrieval.threads": 3, "retrieval.tagger": "a",
    "retrieval.encoder": "a", "retrieval.layer": 2, "retrieval.dtype": "bfloat16", "retrieval.cache": "a",
    "tagging.view": "auto", "tagging.threshold": 0.5, "tagging.threads": 3, "tagging.work": "a",
    "tagging.precision": "bfloat16", "tagging.actors": 3, "tagging.batch_pieces": 512,
    "model.encoder": "a", "model.warm_start": "a", "data.also": ({"train": "a"},),
    "data.unlabelled": "a", "data.cache": "a", "data.labels": ["O"], "data.train_sentences": 3,
    "model.encoder_dropout": 0.0,
    "loss.mode": "plain", "loss.preset": "released_code", "loss.kl": "marginal", "loss.temperature": 0.5,
    "run.storage": "a", "run.name": "a", "run.threads": 3, "run.precision": "bfloat16",
    "run.checkpoint_steps": 3, "run.checkpoint_minutes": 0.5, "run.mlflow": "a", "run.dev_views": "both",
}  # fmt: skip
NEEDED = {"run.offload": {"zero_stage": 1}}  # what must be set besides


def _another(name: str, value: object) -> object:
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value * 0.5 + 0.1


@pytest.mark.parametrize(("path", "value"), list(_leaves(Config())), ids=lambda item: str(item)[:40])
def test_the_digest_changes_with_any_setting(path, value):
    section, name = path
    needed = NEEDED.get(f"{section}.{name}", {})
    changed = parse_config({section: {**needed, name: _another(f"{section}.{name}", value)}})
    assert getattr(getattr(changed, section), name) != value
    assert changed.digest() != parse_config({section: needed}).digest()


def test_the_digest_does_not_depend_on_how_a_config_was_given(tmp_path):
    path = _write(tmp_path, "optim: {epochs: 9}\nmodel: {dropout: 0.2}\n")
    overridden = load_config(None, ["model.dropout=0.2", "optim.epochs=9"])
    assert load_config(path).digest() == overridden.digest() == parse_config(overridden.model_dump()).digest()


def test_an_unknown_key_lists_every_valid_one(tmp_path):
    path = _write(tmp_path, "model:\n  droput: 0.2\n")
    with pytest.raises(ValueError, match=r"model\.droput: unknown key 'droput'") as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert all(name in str(caught.value) for name in ModelConfig.model_fields)


def test_an_unknown_section_lists_the_sections():
    with pytest.raises(
        ValueError, match="unknown key 'modle'; valid here: data, index, retrieval, tagging, model, loss, optim"
    ):
        load_config(None, ["modle.dropout=0.2"])


def test_every_problem_of_a_config_is_told_at_once():
    with pytest.raises(ValueError, match="epochs") as caught:
        load_config(None, ["optim.epochs=0", "loss.mode=cl-l3", "run.sede=1"])
    assert [line.split(":")[1].strip() for line in str(caught.value).splitlines()] == [
        "loss.mode", "optim.epochs", "run.sede",
    ]  # fmt: skip
    assert "found 'cl-l3'" in str(caught.value)


def test_overrides_are_yaml_and_win_over_the_file_and_earlier_ones(tmp_path):
    path = _write(tmp_path, "optim: {encoder_lr: 1, epochs: 2}\nindex: {corpus: [x]}\nrun:\nmodel: {encoder: e}\n")
    config = load_config(
        path,
        ["optim.encoder_lr=1e-4", "index.corpus=[a, b]", "run.resume=true", "model.encoder=null", "run.name=a=b"]
        + ["optim.epochs=4", "optim.epochs=5"],
    )
    assert (config.optim.encoder_lr, config.optim.epochs) == (1e-4, 5)
    assert config.index.corpus == (Path("a"), Path("b"))
    assert (config.run.resume, config.model.encoder, config.run.name) == (True, None, "a=b")


def test_rows_depend_on_all_but_where_and_how_fast_the_work_is_done():
    settings = Config().retrieval
    how = {"cache": None, "cache_gib": 1.0, "search_actors": 4, "rerank_actors": 8, "actor_cpus": 4.0, "threads": 4}
    elsewhere = settings.model_copy(update={**how, "gpus": 1.0})
    assert elsewhere.results_settings() == settings.results_settings()
    assert set(settings.model_dump()) - set(settings.results_settings()) == {*how, "gpus"}


def test_rows_of_a_tagging_job_do_not_depend_on_how_many_may_fail():
    """So that a job that was refused can be called again with a larger share."""
    assert "max_errors" not in Config().tagging.results_settings()
    with pytest.raises(ValueError, match=r"max_errors"):
        parse_config({"tagging": {"max_errors": 1.5}})


def test_the_automatic_dtype_is_decided_once_and_a_given_one_stays():
    settings = decided(Config().retrieval)
    assert settings.dtype in ("float32", "bfloat16")
    assert decided(settings) is settings
    other = load_config(None, ["retrieval.dtype=float32"]).retrieval
    assert decided(other) is other


@pytest.mark.parametrize("item", ["optim.epochs", "=3", "optim.=3", "", ".=1"])
def test_an_override_that_is_no_assignment_says_what_one_looks_like(item):
    with pytest.raises(ValueError, match="wanted key=value"):
        load_config(None, [item])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("epochs=3", "unknown key 'epochs'; valid here: data, index"),
        ("data.also=[{trian: a}]", "unknown key 'trian'; valid here: .*train"),
        ("optim.epochs=[1", "the value is not YAML"),
        ("optim.epochs.x=3", r"optim\.epochs: found \{'x': 3\}"),
        ("optim.epochs=!!python/object/apply:os.getpid []", "the value is not YAML"),
    ],
)
def test_an_override_with_a_bad_value_is_refused(item, message):
    with pytest.raises(ValueError, match=message):
        load_config(None, [item])


def test_an_override_below_a_value_of_the_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'epochs' is a value, not a section"):
        load_config(_write(tmp_path, "optim: {epochs: 3}"), ["optim.epochs.x=3"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("optim: [1", "not a readable YAML file"),
        (b"\xff\xfe\x00binary", "not a readable YAML file"),
        ("- optim\n- model\n", "found list, wanted sections"),
        ("just words", "found str, wanted sections"),
        ("optim:\n", "optim: found None"),
        ("1: 2\n", "Keys should be strings"),
    ],
)
def test_a_file_that_is_no_tree_of_sections_is_refused(tmp_path, content, message):
    path = _write(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")


def test_an_empty_file_means_the_defaults(tmp_path):
    assert load_config(_write(tmp_path, "# nothing\n")) == Config() == load_config()


def test_yaml_with_python_tags_runs_nothing(tmp_path):
    made = tmp_path / "made"
    path = _write(tmp_path, f"run:\n  name: !!python/object/apply:os.mkdir ['{made}']\n")
    with pytest.raises(ValueError, match="not a readable YAML file"):
        load_config(path)
    assert not made.exists()


def test_settings_cannot_be_changed_after_they_are_made():
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.optim.epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.optim = config.optim


def test_the_shipped_configs_load():
    paths = sorted((Path(__file__).parents[1] / "jobs" / "configs").glob("*.yaml"))
    assert paths
    assert all(load_config(path) for path in paths)


def test_the_papers_config_has_the_dropout_of_its_released_code():
    """All four released configs of WNUT-17 and NCBI have no dropout, and a word dropout of 0.1."""
    config = load_config(Path(__file__).parents[1] / "jobs" / "configs" / "wnut17.yaml")
    assert (config.model.dropout, config.model.word_dropout) == (0.0, 0.1)


def test_offload_without_anything_shared_is_refused():
    with pytest.raises(ValueError, match=r"run\.zero_stage=0 shares nothing; --set run\.zero_stage=1"):
        load_config(None, ["run.offload=true"])
    assert load_config(None, ["run.offload=true", "run.zero_stage=1"]).run.offload


def test_a_split_without_a_file_says_which_setting_is_missing():
    with pytest.raises(ValueError, match=r"set data\.dev"):
        Config().data.path("dev")
    with pytest.raises(ValueError, match="splits: train, dev, test"):
        Config().data.path("scheme")


def test_the_packaged_encoder_is_a_folder_with_safe_weights():
    assert (Path(packaged_encoder()) / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("mode", "dev_views", "views", "trained"),
    [
        ("plain", "trained", ("plain",), ("plain",)),
        ("context", "trained", ("context",), ("context",)),
        ("cl-kl", "trained", ("plain", "context"), ("plain", "context")),
        ("cl-l2", "trained", ("plain", "context"), ("plain", "context")),
        ("plain", "both", ("plain", "context"), ("plain",)),
        ("context", "both", ("plain", "context"), ("context",)),
    ],
)
def test_dev_is_scored_in_the_views_that_are_trained_unless_both_are_asked_for(mode, dev_views, views, trained):
    config = parse_config({"loss": {"mode": mode}, "run": {"dev_views": dev_views}})
    assert (config.dev_views(), config.trained_views()) == (views, trained)


def test_uris_stay_whole_in_settings_and_in_their_json(tmp_path):
    (tmp_path / "c.yaml").write_text("data: {train: 's3://b/train.conll'}\nindex: {corpus: ['gs://b/c.jsonl', here]}\n")
    config = load_config(tmp_path / "c.yaml", ["run.storage=s3://b/runs", "data.dev=dev.conll"])
    for read in (config, parse_config(json.loads(config.model_dump_json()))):
        assert (str(read.data.train), read.data.dev) == ("s3://b/train.conll", Path("dev.conll"))
        assert [str(path) for path in read.index.corpus] == ["gs://b/c.jsonl", "here"]
        assert str(read.run.storage / "first") == "s3://b/runs/first"


@pytest.mark.parametrize("storage", ["runs/here", "s3://bucket/runs"])
def test_places_come_back_from_json(storage):
    config = parse_config({"run": {"storage": storage}})
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert str(config.run.storage) == storage
