"""Dependencies point one way, and importing the library is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Layers of DESIGN, lowest first; a module imports only from lower layers and from its own package.
LAYERS = (
    {
        "ctxner.schema",
        "ctxner.files.compression",
        "ctxner.files.unique_ids",
        "ctxner.batch.ordered_rows",
        "ctxner.client.messages",
    },
    {"ctxner.batch.job_folder", "ctxner.client.http"},
    {"ctxner.files.words", "ctxner.labels"},
    {"ctxner.files.lines"},
    {"ctxner.files.records", "ctxner.files.columns", "ctxner.files.paths"},
    {"ctxner.files.jsonl", "ctxner.files.text", "ctxner.files.parquet"},
    {
        "ctxner.files.sentences",
        "ctxner.files.documents",
        "ctxner.retrieval",
        "ctxner.model",
        "ctxner.evaluation.scores",
        "ctxner.demo",
    },
    {
        "ctxner.config",
        "ctxner.views",
        "ctxner.files.contexts",
        "ctxner.evaluation.calibration",
        "ctxner.model.calibration_file",
        "ctxner.spacy_docs",
        "ctxner.evaluation.errors",
    },
    {
        "ctxner.predictor",
        "ctxner.training.step",
        "ctxner.training.checkpoints.files",
        "ctxner.training.observe.progress",
        "ctxner.training.observe.phase_timer",
        "ctxner.training.estimate.memory",
        "ctxner.training.observe.mlflow",
        "ctxner.training.export.card",
        "ctxner.training.data.view_key",
        "ctxner.batch.retrieval_files",
        "ctxner.batch.tagging_files",
        "ctxner.batch.pools",
        "ctxner.retriever",
    },
    {
        "ctxner.training.export.provenance",
        "ctxner.training.estimate.capacity",
        "ctxner.training.checkpoints.recovery",
        "ctxner.training.data.view_arrays",
    },
    {"ctxner.training.data.view_store", "ctxner.training.estimate.step_time", "ctxner.training.data.warnings"},
    {"ctxner.training.data.epoch_views"},
    {
        "ctxner.batch.retrieve",
        "ctxner.batch.tagging_actors",
        "ctxner.batch.tag",
        "ctxner.batch.index_shards",
        "ctxner.spacy_component",
        "ctxner.training.worker",
        "ctxner.training.plan",
        "ctxner.training.checkpoints.resume",
        "ctxner.training.deepspeed_engine",
        "ctxner.training.failures",
        "ctxner.training.checkpoints.writer",
        "ctxner.training.estimate.report",
        "ctxner.training.observe.recorder",
        "ctxner.training.export.model_folder",
    },
    {"jobs", "serving"},
)
CONFIG_ALLOWED = {
    "ctxner.retriever",
    "ctxner.batch.retrieve",
    "ctxner.batch.tagging_actors",
    "ctxner.batch.tag",
    "ctxner.training.worker",
    "ctxner.training.plan",
    "ctxner.training.data.warnings",
    "ctxner.training.checkpoints.resume",
    "ctxner.training.deepspeed_engine",
    "ctxner.training.failures",
    "ctxner.training.checkpoints.writer",
    "ctxner.training.estimate.report",
    "ctxner.training.observe.recorder",
    "ctxner.training.export.model_folder",
    "jobs",
    "serving",
}
WITHIN_A_LAYER = {
    *(
        ("ctxner.training.worker", f"ctxner.training.{name}")
        for name in (
            "plan",
            "checkpoints.resume",
            "deepspeed_engine",
            "failures",
            "checkpoints.writer",
            "observe.recorder",
            "export.model_folder",
        )
    ),
    ("ctxner.model.calibration_file", "ctxner.evaluation.calibration"),
    ("ctxner.batch.tagging_actors", "ctxner.batch.retrieve"),
    ("ctxner.batch.tag", "ctxner.batch.retrieve"),
    ("ctxner.batch.tag", "ctxner.batch.tagging_actors"),
    ("ctxner.training.checkpoints.writer", "ctxner.training.deepspeed_engine"),
    ("ctxner.training.checkpoints.writer", "ctxner.training.export.model_folder"),
    ("ctxner.training.plan", "ctxner.training.estimate.report"),
}
RAY_ALLOWED = {
    "ctxner.batch.retrieve",
    "ctxner.batch.tag",
    "ctxner.batch.pools",
    "ctxner.batch.index_shards",
    "ctxner.training.worker",
    "ctxner.training.deepspeed_engine",
    "ctxner.training.checkpoints.writer",
    "ctxner.training.observe.progress",
    "jobs",
    "serving",
}


def _modules() -> list[tuple[str, Path]]:
    files = [path for package in ("ctxner", "jobs", "serving") for path in (ROOT / package).rglob("*.py")]
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path) for path in files]


def _imports(path: Path) -> set[str]:
    """Modules imported anywhere in a file, `TYPE_CHECKING` blocks included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _unit(module: str) -> str | None:
    """The entry of LAYERS that a module belongs to."""
    units = [unit for layer in LAYERS for unit in layer if module == unit or module.startswith(unit + ".")]
    return max(units, key=len, default=None)


def _rank(unit: str) -> int:
    return next(rank for rank, layer in enumerate(LAYERS) if unit in layer)


@pytest.mark.parametrize(("module", "path"), _modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_only_to_lower_layers(module, path):
    unit = _unit(module)
    if unit is None:
        assert path.name == "__init__.py", f"{module} has no place in LAYERS"
        return
    for imported in _imports(path):
        other = _unit(imported)
        if other is not None and other != unit and (unit, other) not in WITHIN_A_LAYER:
            assert _rank(other) < _rank(unit), f"{module} imports {imported}: not to its left"
        assert other != "ctxner.config" or unit in CONFIG_ALLOWED, (
            f"{module} imports the config: give it plain arguments"
        )


@pytest.mark.parametrize(("module", "path"), _modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_ray_and_deepspeed_stay_at_the_edge_and_lucene_in_retrieval(module, path):
    roots = {name.split(".")[0] for name in _imports(path)}
    if _unit(module) not in RAY_ALLOWED:
        assert not roots & {"ray", "deepspeed"}
    if not module.startswith("ctxner.retrieval"):
        assert not roots & {"jnius", "pyserini"}


@pytest.mark.parametrize(
    "statement",
    [
        "import ctxner, ctxner.schema, ctxner.labels, ctxner.files.sentences, ctxner.evaluation.scores, ctxner.config",
        "import ctxner.evaluation.errors, ctxner.evaluation.calibration, ctxner.retrieval.measure",
        "import ctxner.retrieval.measure.leakage, ctxner.retrieval.measure.coverage",
        "import jobs.cli",
    ],
)
def test_importing_loads_neither_java_nor_ray_nor_torch(statement):
    heavy = ("ray", "jnius", "pyserini", "torch", "transformers", "deepspeed", "pyarrow")
    assert _loaded(statement, heavy) == "[]"


def test_importing_the_tagger_starts_neither_java_nor_ray_nor_spacy():
    assert _loaded("from ctxner import Tagger", ("ray", "jnius", "deepspeed", "spacy")) == "[]"


def _loaded(statement: str, names: tuple[str, ...]) -> str:
    code = f"{statement}; import sys; print([name for name in {names} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
