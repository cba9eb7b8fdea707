"""Retrieval on a real local Ray over a real Lucene index: one row a sentence, in order, and the same every time."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.ray
ray = pytest.importorskip("ray")

from ctxner.batch.retrieve import retrieve  # noqa: E402
from ctxner.config import Config, parse_config  # noqa: E402
from ctxner.demo import World, make_world, write_world  # noqa: E402
from ctxner.files.contexts import join_contexts, read_contexts  # noqa: E402
from ctxner.predictor import Tagger  # noqa: E402
from ctxner.retrieval.rerank.reranker import SCORE_DECIMALS  # noqa: E402
from ctxner.retriever import Retriever, decided  # noqa: E402
from ctxner.schema import Sentence, context_schema  # noqa: E402
from ctxner.schemes import tags_to_spans  # noqa: E402
from tests.closeness import assert_same_ranking  # noqa: E402
from tests.integration.built import build_index  # noqa: E402


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(num_train=30, num_dev=8, num_test=0)


@pytest.fixture(scope="module")
def config(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """A started Ray of four logical CPUs and an index of the world's corpus.

    The index is built by the command, in another process: a JVM must not start before Ray does.
    """
    folder = tmp_path_factory.mktemp("pipelines")
    write_world(world, folder)
    build_index(folder)
    assert not ray.is_initialized()
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    retrieval = {"query": "mentions", "depth": 8, "keep": 2, "cache": str(folder / "cache")}
    yield parse_config({"index": {"folder": str(folder / "index")}, "retrieval": retrieval})
    ray.shutdown()


def splits_of(world: World) -> dict[str, Sequence[Sentence]]:
    """The world's sentences and three odd ones: of no searchable word, and a known name beside a lone surrogate."""
    known = world.corpus[0].title.split()[0]
    odd = (
        Sentence("emoji", ("😀", "🎉🎉")),
        Sentence("surrogate", ("\ud83d",)),
        Sentence("half", ("Sailors", "on", "\udc00", known)),
    )
    return {"train": (*world.train, *odd), "dev": world.dev}


@pytest.fixture(scope="module")
def contexts(config: Config, world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that one retrieval run wrote; the number of sentences done was reported on the way."""
    folder, done = tmp_path_factory.mktemp("contexts"), []
    manifest = retrieve(splits_of(world), config, folder, on_progress=done.append)
    assert done[-1] == manifest["sentences"] == 30 + 3 + 8
    return folder


def test_every_sentence_has_one_row_in_order(contexts: Path, world: World) -> None:
    for split, sentences in splits_of(world).items():
        table = pq.read_table(contexts / f"{split}.parquet")
        assert table.schema.names == context_schema().names
        assert table["sentence_id"].to_pylist() == [sentence.id for sentence in sentences]
        assert len(join_contexts(sentences, read_contexts(contexts / f"{split}.parquet"))) == len(sentences)
    assert {path.name for path in contexts.iterdir()} == {
        "train.parquet",
        "dev.parquet",
        "_SUCCESS",
    }


def test_kept_passages_are_the_index_own_and_carry_their_scores(contexts: Path, world: World) -> None:
    corpus = {passage.id: passage for passage in world.corpus}
    num_kept = 0
    for context in read_contexts(contexts / "dev.parquet").values():
        kept = [scored for scored in context.passages if scored.dropped is None]
        num_kept += len(kept)
        assert len(kept) <= 2
        scores = [round(scored.rerank_score, SCORE_DECIMALS) for scored in kept]
        assert scores == sorted(scores, reverse=True)
        for scored in context.passages:
            source = corpus[scored.passage.id]
            assert (scored.passage.source, scored.passage.text) == (source.source, source.text)
            assert scored.bm25_score > 0
            assert scored.bm25_rank >= 1
    assert num_kept > 8


def test_passages_of_a_sentence_that_names_someone_name_them(contexts: Path, world: World) -> None:
    found = read_contexts(contexts / "dev.parquet")
    mentions = [
        (own.id, word) for own in world.dev for word, tag in zip(own.words, own.tags, strict=True) if tag != "O"
    ]
    told = [any(word in scored.passage.text for scored in found[id].passages) for id, word in mentions]
    assert sum(told) / len(told) > 0.9


def test_files_and_manifest_hold_no_gold_tags(contexts: Path, world: World) -> None:
    tags = {tag for sentence in world.train for tag in sentence.tags} - {"O"}
    for split in ("train", "dev"):
        rows = pq.read_table(contexts / f"{split}.parquet").to_pylist()
        values = {str(value) for row in rows for value in (*row.values(), *row["words"])}
        assert not tags & values
        assert "tags" not in rows[0]
    assert not any(tag in (contexts / "_SUCCESS").read_text() for tag in tags)


def test_manifest_says_what_was_searched_and_how(contexts: Path, config: Config, world: World) -> None:
    manifests = json.loads((contexts / "_SUCCESS").read_text())
    assert set(manifests) == {"train", "dev"}
    for split, manifest in manifests.items():
        assert manifest["index"]["num_documents"] == len(world.corpus)
        assert manifest["retrieval"] == decided(config.retrieval).results_settings()
        rows = list(read_contexts(contexts / f"{split}.parquet").values())
        kept = [scored for row in rows for scored in row.passages if scored.dropped is None]
        assert (manifest["kept_passages"], manifest["errors"], manifest["resumed_from"]) == (len(kept), 0, 0)
        assert (manifest["sentences"], manifest["without_query"]) == (len(rows), sum(not row.query for row in rows))
    assert manifests["train"]["without_query"] >= 2


def test_sentence_without_searchable_words_gets_a_row_without_passages(contexts: Path, world: World) -> None:
    found = read_contexts(contexts / "train.parquet")
    for name in ("emoji", "surrogate"):
        assert (found[name].query, found[name].passages, found[name].error) == ("", (), None)
    known = world.corpus[0].title.split()[0]
    assert any(known in scored.passage.text for scored in found["half"].passages)


@pytest.mark.parametrize("cache", ["kept", pytest.param(None, marks=pytest.mark.slow)])
def test_second_run_gives_the_same_rows(
    config: Config, contexts: Path, world: World, tmp_path: Path, cache: str | None
) -> None:
    if cache:
        assert list(config.retrieval.cache.glob("*.sqlite"))
    else:
        config = config.model_copy(update={"retrieval": config.retrieval.model_copy(update={"cache": None})})
    retrieve(splits_of(world), config, tmp_path)
    for split in ("train", "dev"):
        rows = read_contexts(tmp_path / f"{split}.parquet")
        expected = read_contexts(contexts / f"{split}.parquet")
        assert list(rows) == list(expected)
        for name, context in rows.items():
            assert (context.query, context.error) == (expected[name].query, expected[name].error)
            assert_same_ranking(context.passages, expected[name].passages, tolerance=2e-2)  # in bfloat16


def test_sentence_id_twice_is_refused(config: Config, world: World, tmp_path: Path) -> None:
    twice = [world.train[0], dataclasses.replace(world.train[1], id=world.train[0].id)]
    with pytest.raises(ValueError, match=r"id 'train-00000' was used before at train: sentence"):
        retrieve({"train": twice}, config, tmp_path)


@pytest.mark.slow
def test_same_id_in_two_splits_is_two_rows(config: Config, world: World, tmp_path: Path) -> None:
    other = dataclasses.replace(world.train[1], id=world.train[0].id)
    retrieve({"train": [world.train[0]], "dev": [other]}, config, tmp_path)
    for split, sentence in (("train", world.train[0]), ("dev", other)):
        [(name, context)] = read_contexts(tmp_path / f"{split}.parquet").items()
        assert (name, context.words) == (sentence.id, sentence.words)


def test_nothing_to_retrieve_for_is_refused(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sentences to retrieve for in dev"):
        retrieve({"dev": []}, config, tmp_path)


def test_missing_index_is_refused_before_anything_starts(config: Config, world: World, tmp_path: Path) -> None:
    elsewhere = config.model_copy(update={"index": config.index.model_copy(update={"folder": tmp_path / "absent"})})
    with pytest.raises(FileNotFoundError, match="no such index folder; build one with `ctxner index`"):
        retrieve(splits_of(world), elsewhere, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_actors_than_the_cluster_holds_are_refused(config: Config, world: World, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"want 7 CPUs: .* 9 x 0.5 \(Rerank, retrieval.rerank_actors=9\) and 2 for .*; the cluster has 4: lower",
    ):
        retrieve(splits_of(world), _with(config, rerank_actors=9), tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"want 1 GPUs: 1 x 1 \(Rerank, retrieval.rerank_actors=1\); the cluster has 0: lower"
    ):
        retrieve(splits_of(world), _with(config, gpus=1), tmp_path / "out")


def test_without_reranking_passages_stay_in_the_order_of_the_search(
    config: Config, contexts: Path, world: World, tmp_path: Path
) -> None:
    """And a copy of the index that each node makes for itself gives the same."""
    source = {"source": str(config.index.folder), "folder": tmp_path / "copies"}
    copied = config.model_copy(update={"index": config.index.model_copy(update=source)})
    retrieve({"dev": splits_of(world)["dev"]}, _with(copied, rerank=False), tmp_path / "out")
    reranked = read_contexts(contexts / "dev.parquet")
    num_kept = 0
    for name, context in read_contexts(tmp_path / "out" / "dev.parquet").items():
        kept = [scored for scored in context.passages if scored.dropped is None]
        num_kept += len(kept)
        assert len(kept) <= 2
        assert [own.bm25_rank for own in kept] == sorted(own.bm25_rank for own in kept)
        assert all(own.rerank_score is None for own in context.passages)
        assert {own.passage.id for own in context.passages} == {own.passage.id for own in reranked[name].passages}
    assert num_kept > 8
    assert len(list((tmp_path / "copies").glob("*/CURRENT"))) == 1


SEARCH = """
import json, sys
import pyarrow.parquet as pq
from ctxner.config import parse_config
from ctxner.batch.retrieval_actors import Predict, Search
from ctxner.retrieval.index.fetch import index_manifest
config, staged = parse_config(json.loads(sys.argv[1])), pq.read_table(sys.argv[2])
own = config.retrieval.model_dump()
rows = Search(config.index.model_dump(), index_manifest(config.index.folder), own)(Predict(own)(staged)).to_pylist()
print(json.dumps([[passage["id"] for passage in row["passages"]] for row in rows]))
"""


@pytest.mark.slow
def test_what_a_tagger_predicts_is_looked_up_first(
    config: Config, contexts: Path, world: World, tagger: Tagger, tmp_path: Path
) -> None:
    """The job finds what its actors find when called one after the other in a process without Ray."""
    tagger.save_pretrained(tmp_path / "model")
    predicting = _with(config, tagger=str(tmp_path / "model"), rerank=False, depth=2)
    retrieve({"dev": world.dev}, predicting, tmp_path / "out")
    found = [[own.passage.id for own in row.passages] for row in read_contexts(tmp_path / "out/dev.parquet").values()]
    rows = [{"sentence_id": own.id, "words": own.words, "position": n} for n, own in enumerate(world.dev)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "staged.parquet")
    arguments = [json.dumps(predicting.model_dump(mode="json")), str(tmp_path / "staged.parquet")]
    alone = subprocess.run([sys.executable, "-c", SEARCH, *arguments], check=True, capture_output=True, text=True)
    assert found == json.loads(alone.stdout)


def test_entries_of_what_is_named_come_first_and_abbreviations_cross_ray(
    config: Config, world: World, tmp_path: Path
) -> None:
    """And the rows are those of the same retriever in one process."""
    name = world.corpus[0].title
    splits = {"dev": (*world.dev, Sentence("short", ("VQX", "sank"), abbreviations=(("VQX", name),)))}
    settings = _with(config, query="entries")
    retrieve(splits, settings, tmp_path)
    rows = read_contexts(tmp_path / "dev.parquet")
    for sentence in world.dev:
        passages = rows[sentence.id].passages
        named = {run for scored in passages for run in scored.named}
        assert {(span.start, span.end) for span in tags_to_spans(sentence.tags)} <= named
        assert [bool(scored.named) for scored in passages] == sorted((bool(p.named) for p in passages), reverse=True)
    assert {scored.passage.title for scored in rows["short"].passages} == {name}
    assert {scored.named for scored in rows["short"].passages} == {((0, 1),)}
    retriever = Retriever(settings.retrieval, folder=config.index.folder)
    for row, passages in zip(rows.values(), retriever.retrieve(splits["dev"]), strict=True):
        assert [(scored.passage, scored.named) for scored in row.passages] == [
            (scored.passage, scored.named) for scored in passages
        ]


def _with(config: Config, **settings: object) -> Config:
    return config.model_copy(update={"retrieval": config.retrieval.model_copy(update=settings)})
