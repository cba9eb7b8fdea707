"""Dependencies point one way, and importing the library is cheap."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Rooms, lowest first: a room imports only from lower layers. A room is a folder or a module of ctxner, or a package.
LAYERS = (
    {"ctxner.schema", "ctxner.encoders", "ctxner.control_pieces", "ctxner.languages", "ctxner.client"},
    {"ctxner.schemes", "ctxner.views", "ctxner.predictions", "ctxner.spacy_docs"},
    {"ctxner.labels"},
    {"ctxner.files", "ctxner.evaluation"},
    {"ctxner.retrieval", "ctxner.model", "ctxner.demo", "ctxner.config", "ctxner.texts"},
    {"ctxner.predictor"},
    {"ctxner.retriever", "ctxner.spacy_component"},
    {"ctxner.batch", "ctxner.training"},
    {"jobs", "serving"},
)
# The same within a room.
INNER_LAYERS = {
    "ctxner.client": ({"messages"}, {"http"}, {"blocking"}),
    "ctxner.config": ({"section", "text"}, {"data", "retrieval", "training"}),
    "ctxner.retrieval": (
        {"text", "near_duplicates"},
        {"corpus", "lucene"},
        {"index"},
        {"search"},
        {"rerank", "measure"},
    ),
    "ctxner.training": (
        {"step", "failures", "process_group"},
        {"export", "estimate", "observe"},
        {"data", "build", "deepspeed_engine"},
        {"automatic"},
        {"checkpoints", "plan"},
        {"loop"},
        {"worker"},
    ),
    "ctxner.views": ({"view", "shown"}, {"builder", "batches"}),
    "serving": (
        {"errors", "policy", "answers", "settings", "api", "batching", "addresses", "front", "ending"},
        {"edge", "meters", "latency", "admission", "bodies", "draining", "passage_cache", "turns"},
        {"group", "work"},
        {"routing"},
        {"service"},
        {"streams", "guard"},
        {"web"},
        {"replicas"},
        {"deployments"},
        {"app"},
        {"plan"},
        {"trial"},
        {"local"},
        {"cli"},
    ),
}
# Prefixes of the modules that may import each; the longest that fits decides.
CONFIG = {"ctxner.config", "ctxner.retriever", "ctxner.batch", "ctxner.training", "jobs", "serving"}
NO_CONFIG = {"ctxner.training.step", "ctxner.training.estimate", "ctxner.training.observe.phase_timer"}
RAY = {
    "ctxner.batch",
    "ctxner.training.worker",
    "ctxner.training.deepspeed_engine",
    "ctxner.training.checkpoints.writer",
    "ctxner.training.observe.progress",
    "ctxner.training.process_group",
    "jobs",
    "serving",
}
JAVA = {"ctxner.retrieval.lucene"}
LOCKS = {"ctxner.files.locks", "ctxner.training.data.view_store"}  # the latter for shared locks on open stores


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


def _within(module: str, prefixes: Iterable[str]) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def _room(module: str) -> str:
    """`ctxner.files` of `ctxner.files.paths`, `jobs` of `jobs.cli`, `ctxner` of the package itself."""
    return ".".join(module.split(".")[: 2 if module.startswith("ctxner.") else 1])


def _rank(room: str, layers: Sequence[set[str]]) -> int:
    ranks = [rank for rank, layer in enumerate(layers) if room in layer]
    assert len(ranks) == 1, f"{room} stands in {len(ranks)} layers: give it one place"
    return ranks[0]


MODULES = pytest.mark.parametrize(
    ("module", "path"), _modules(), ids=lambda value: value if isinstance(value, str) else ""
)


@MODULES
def test_imports_point_only_to_lower_rooms(module, path):
    if module == "ctxner":  # the door: `from ctxner import Tagger`
        return
    names = {name for name, _ in _modules()}
    for imported in _imports(path) & names - {"ctxner"}:
        room, other = _room(module), _room(imported)
        if other != room:
            assert _rank(other, LAYERS) < _rank(room, LAYERS), f"{module} imports {imported}: not from a lower room"
        elif room in INNER_LAYERS and room not in (module, imported):
            inner, below = (name.split(".")[room.count(".") + 1] for name in (module, imported))
            ranks = [_rank(name, INNER_LAYERS[room]) for name in (below, inner)]
            assert inner == below or ranks[0] < ranks[1], f"{module} imports {imported}: not from a lower room"


@MODULES
def test_config_ray_java_and_locks_stay_where_they_belong(module, path):
    imports = _imports(path)
    if not _within(module, CONFIG) or _within(module, NO_CONFIG):
        assert not any(_within(name, {"ctxner.config"}) for name in imports), f"{module}: give it plain arguments"
    roots = {name.split(".")[0] for name in imports}
    assert _within(module, RAY) or not roots & {"ray", "deepspeed"}
    assert _within(module, JAVA) or not roots & {"jnius", "pyserini"}
    assert _within(module, LOCKS) or "fcntl" not in roots, f"{module}: use ctxner.files.locks"


def test_jobs_and_serving_do_not_know_each_other_and_the_client_knows_nothing():
    for module, path in _modules():
        others = {"jobs": ("serving",), "serving": ("jobs",), "ctxner": ("jobs", "serving")}[module.split(".")[0]]
        assert not any(_within(name, others) for name in _imports(path)), module
        if _room(module) == "ctxner.client":
            assert all(_room(name) == "ctxner.client" for name in _imports(path) if name.startswith("ctxner.")), module


@pytest.mark.parametrize(
    "statement",
    [
        "import ctxner, ctxner.schema, ctxner.labels, ctxner.files.sentences, ctxner.evaluation.scores, ctxner.config",
        "import ctxner.evaluation.errors, ctxner.evaluation.calibration, ctxner.retrieval.measure",
        "import ctxner.retrieval.measure.leakage, ctxner.retrieval.measure.coverage, ctxner.retrieval.measure.entries",
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
