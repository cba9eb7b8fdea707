"""Tagging files on a real local Ray and a real Lucene index: the answers of the tagger itself, whatever the batches."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.ray
ray = pytest.importorskip("ray")

from ctxner.batch.tag import tag  # noqa: E402
from ctxner.config import Config, parse_config  # noqa: E402
from ctxner.demo import World, make_world, write_world  # noqa: E402
from ctxner.files.documents import Document  # noqa: E402
from ctxner.predictions import Prediction  # noqa: E402
from ctxner.predictor import Tagger  # noqa: E402
from ctxner.schema import Example  # noqa: E402
from ctxner.texts import sentences_of  # noqa: E402
from tests.integration.built import build_index  # noqa: E402


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(num_train=30, num_dev=8, num_test=0)


@pytest.fixture(scope="module")
def documents(world: World) -> list[Document]:
    """Texts of two sentences, words, one text of many parts, and odd ones; two have the same id."""
    texts = [" ".join(own.words) for own in world.train]
    pairs = [f"{first}\n\n  {second}" for first, second in zip(texts[::2], texts[1::2], strict=True)]
    odd = ["", " \n", "😀", "\ufffd", "e\u0301 \u200d\u2028x"]
    return [
        *(Document(f"d-{number}", text) for number, text in enumerate([*pairs, *odd, "  \t".join(texts * 8)])),
        *(Document("same", " ".join(own.words), own.words) for own in world.dev),
    ]


@pytest.fixture(scope="module")
def model(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tagger.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def config(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """A started Ray of four logical CPUs and an index that another process built: no JVM before Ray."""
    folder = tmp_path_factory.mktemp("tag")
    write_world(world, folder)
    build_index(folder)
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield parse_config(
        {
            "index": {"folder": str(folder / "index")},
            "retrieval": {"rerank": False, "keep": 2, "threads": 1},
            "tagging": {"actors": 1, "actor_cpus": 0.5, "threads": 1},
        }
    )
    ray.shutdown()


def with_tagging(config: Config, **settings: object) -> Config:
    return config.model_copy(update={"tagging": config.tagging.model_copy(update=settings)})


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "tagged.parquet").to_pylist()


def entities_of(found: list[Prediction]) -> list[tuple[object, ...]]:
    return [
        (one.text, one.type, one.start, one.end, number) for number, own in enumerate(found) for one in own.entities
    ]


def same(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Identical but for confidences and entropies, which may differ by 1e-4."""
    for row, other in zip(rows, others, strict=True):
        for kind, name in (("entities", "confidence"), ("sentences", "entropy")):
            assert [own[name] for own in row[kind]] == pytest.approx([own[name] for own in other[kind]], abs=1e-4)
            for own, one in zip(row[kind], other[kind], strict=True):
                assert {**own, name: 0} == {**one, name: 0}
        assert [row["id"], row["text"], row["error"]] == [other["id"], other["text"], other["error"]]


@pytest.fixture(scope="module")
def plain(config: Config, model: str, documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a job that was stopped when its rows were there, and called again: then it tags nothing."""
    import ctxner.batch.tag

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctxner.batch.tag, "publish_documents", stopped)
        with pytest.raises(KeyboardInterrupt):
            tag(documents, config, model, folder)
    found = tag(documents, config, model, folder, formats=["parquet", "jsonl"])
    assert found["resumed_from"] > len(documents), "some are cut into parts"
    return folder


def test_documents_come_out_in_order_with_the_tags_of_the_tagger(
    plain: Path, model: str, documents: list[Document]
) -> None:
    tagger, rows = Tagger.from_pretrained(model), rows_of(plain)
    assert [(row["id"], row["text"], row["error"]) for row in rows] == [(own.id, own.text, None) for own in documents]
    for row, document in zip(rows, documents, strict=True):
        sentences = sentences_of(document.text if document.words is None else document.words, "s")
        found = tagger.predict([Example(own) for own in sentences], view="plain")
        given = [(*(own[name] for name in ("text", "type", "start", "end", "sentence")),) for own in row["entities"]]
        assert given == entities_of(found)
        expected = [one.confidence for own in found for one in own.entities]
        assert [own["confidence"] for own in row["entities"]] == pytest.approx(expected, abs=1e-4)
        assert all(row["text"][own["start"] : own["end"]] == own["text"] for own in row["entities"])
    assert sum(len(row["entities"]) for row in rows) > 100
    lines = [json.loads(line) for line in (plain / "tagged.jsonl").read_text().split("\n") if line]
    assert [own["entities"] for own in lines] == [row["entities"] for row in rows]
    success = json.loads((plain / "_SUCCESS").read_text())
    assert (success["documents"], success["errors"]) == (len(documents), 0)
    assert success["views"] == {"plain": success["sentences"]}
    assert {path.name for path in plain.iterdir()} == {"tagged.parquet", "tagged.jsonl", "_SUCCESS"}


@pytest.mark.slow
def test_batches_and_actors_leave_no_trace(
    config: Config, model: str, documents: list[Document], plain: Path, tmp_path: Path
) -> None:
    settings = {"actors": 4, "actor_cpus": 0.25, "batch_documents": 7, "window": 3, "batch_pieces": 512}
    tag(documents, with_tagging(config, **settings), model, tmp_path)
    same(rows_of(tmp_path), rows_of(plain))


@pytest.fixture(scope="module")
def context(config: Config, model: str, documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("context")
    tag(documents, with_tagging(config, view="context", passages=True, n_best=2), model, folder, formats=["parquet"])
    return folder


def test_the_context_view_is_that_of_a_text_looked_up_alone(
    context: Path, config: Config, model: str, documents: list[Document]
) -> None:
    rows = rows_of(context)
    chosen = [number for number, own in enumerate(documents) if own.words is None and own.text.strip()]
    command = [sys.executable, "-m", "jobs", "tag-text", model, *(documents[n].text for n in chosen)]
    command += ["--index", str(config.index.folder), "--json"]
    command += ["--set", "retrieval.rerank=false", "--set", "retrieval.keep=2"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for number, alone in zip(chosen, json.loads(done.stdout)["texts"], strict=True):
        row = rows[number]
        names = ("text", "type", "start", "end")
        assert [[own[name] for name in names] for own in row["entities"]] == [
            [own[name] for name in names] for own in alone["entities"]
        ]
        given = [passage["id"] for own in row["sentences"] for passage in own["passages"]]
        assert given == [passage["id"] for passage in alone["passages"]]
    sentences = [own for row in rows for own in row["sentences"]]
    for sentence in sentences:
        has_read = bool(sentence["passages"])
        assert (sentence["view"], sentence["reason"]) == (("context", None) if has_read else ("plain", "no_hits"))
    assert sum(bool(own["passages"]) for own in sentences) > 30
    for own in sentences:
        probabilities = [one["probability"] for one in own["alternatives"]]
        assert 0 < len(probabilities) <= 2
        assert probabilities == sorted(probabilities, reverse=True)


def test_auto_looks_up_what_the_plain_view_is_unsure_of_and_nothing_else(
    config: Config, model: str, documents: list[Document], plain: Path, context: Path, tmp_path: Path
) -> None:
    entropies = sorted(own["entropy"] for row in rows_of(plain) for own in row["sentences"])
    middle = pairwise(entropies[len(entropies) // 3 : -len(entropies) // 3])
    below, above = max(middle, key=lambda own: own[1] - own[0])
    threshold = (below + above) / 2  # far from every entropy, since other batches change its last digits
    settings = {"view": "auto", "threshold": threshold, "actors": None, "actor_cpus": 1.0}
    settings |= {"batch_documents": 7, "window": 3, "batch_pieces": 512}
    found = tag(documents, with_tagging(config, **settings), model, tmp_path)
    rows = rows_of(tmp_path)
    for row, plain_row, context_row in zip(rows, rows_of(plain), rows_of(context), strict=True):
        for number, own in enumerate(row["sentences"]):
            unsure = plain_row["sentences"][number]["entropy"] > threshold
            source = context_row if unsure else plain_row
            assert own["view"] == source["sentences"][number]["view"]
            assert own["reason"] == (source["sentences"][number]["reason"] if unsure else "confident")
            ours, theirs = ([one for one in of["entities"] if one["sentence"] == number] for of in (row, source))
            assert [{**one, "confidence": 0} for one in ours] == [{**one, "confidence": 0} for one in theirs]
            expected = [one["confidence"] for one in theirs]
            assert [one["confidence"] for one in ours] == pytest.approx(expected, abs=1e-4), "whatever the batches"
    looked_up = [sentence for row in rows for sentence in row["sentences"] if sentence["reason"] != "confident"]
    assert len(looked_up) == sum(entropy > threshold for entropy in entropies) > 20
    assert found["views"]["context"] == sum(sentence["view"] == "context" for sentence in looked_up)
    assert found["threshold"] == threshold


def test_bad_requests_are_refused_before_anything_is_tagged(config: Config, model: str, tmp_path: Path) -> None:
    some = [Document("a", "One.")]
    with pytest.raises(
        ValueError, match=r"view 'auto' needs a threshold .* run `ctxner calibrate .* or give a threshold"
    ):
        tag(some, with_tagging(config, view="auto"), model, tmp_path / "out")
    with pytest.raises(ValueError, match=r"the actors want 6 CPUs: 8 x 0.5 \(TagPlain, tagging.actors=8\) and 2 for"):
        tag(some, with_tagging(config, actors=8), model, tmp_path / "out")
    with pytest.raises(ValueError, match="no documents to tag"):
        tag([], config, model, tmp_path / "out")
    absent = config.model_copy(update={"index": config.index.model_copy(update={"folder": tmp_path / "absent"})})
    with pytest.raises(FileNotFoundError, match="no such index folder"):
        tag(some, with_tagging(absent, view="context"), model, tmp_path / "out")
