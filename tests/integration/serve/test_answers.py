"""`ctxner serve` as a user starts it: what it answers over HTTP is what the tagger and the batch path say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray
pytest.importorskip("ray")

from ctxner.client import Client, ClientError  # noqa: E402
from ctxner.client.messages import Answer  # noqa: E402
from ctxner.schema import Example  # noqa: E402
from ctxner.texts import sentences_of  # noqa: E402
from tests.integration.serve.conftest import KEY, RETRIEVAL  # noqa: E402


def test_without_the_key_nothing_is_answered(server):
    with Client(server.url) as client, pytest.raises(ClientError) as found:
        client.tag("London")
    assert found.value.status == 401


def test_plain_answers_are_the_taggers(client, world, tagger):
    texts = [" ".join(own.words) for own in world.train]
    found = client.tag(texts, view="plain")
    alone = tagger.tag(texts)
    assert any(alone)
    assert [[(e.text, e.type, e.start, e.end) for e in own.entities] for own in found.results] == [
        [(e.text, e.type, e.start, e.end) for e in own] for own in alone
    ]
    confidences = [e.confidence for own in found.results for e in own.entities]
    assert confidences == pytest.approx([e.confidence for own in alone for e in own], abs=1e-4)


def test_context_answers_and_passages_are_those_of_the_single_text_job(client, world, folder):
    texts = [" ".join(own.words) for own in world.train[:12]]
    found = _looked_up(client, texts)
    command = [sys.executable, "-m", "jobs", "tag-text", str(folder / "model"), *texts]
    command += ["--index", str(folder / "index"), "--json"]
    for name, value in RETRIEVAL.items():
        command += ["--set", f"retrieval.{name}={'null' if value is None else value}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wanted = json.loads(done.stdout.splitlines()[-1])["texts"]
    for own, alone in zip(found.results, wanted, strict=True):
        assert [(e.text, e.type, e.start, e.end) for e in own.entities] == [
            (e["text"], e["type"], e["start"], e["end"]) for e in alone["entities"]
        ]
        read = [one for sentence in own.sentences for one in sentence.passages or () if one.dropped is None]
        assert [one.id for one in read] == [one["id"] for one in alone["passages"]]
        scores = [one["rerank_score"] for one in alone["passages"]]
        assert [one.rerank_score for one in read] == pytest.approx(scores, abs=1e-3)
    assert found.views["context"] > 0
    assert found.versions.index


def _looked_up(client: Client, texts: list[str]) -> Answer:
    """Answers for which the retriever was there in time; on a busy machine its first calls may take too long."""
    for _ in range(20):
        found = client.tag(texts, view="context", return_passages=True)
        if set(found.reasons) <= {"no_hits"}:
            return found
        time.sleep(1)
    raise AssertionError(f"not looked up: {found.reasons}")


def test_auto_says_which_sentences_were_not_looked_up(client, world, tagger):
    texts = [" ".join(own.words) for own in world.train]
    found = client.tag(texts, view="auto")
    plain = tagger.predict([Example(s) for text in texts for s in sentences_of(text, "0")], view="plain")
    confident = sum(own.entropy <= 0.5 for own in plain)
    assert found.reasons.get("confident", 0) == confident
    assert 0 < confident < len(plain)


def test_a_stream_of_many_lines_keeps_their_order(client, world):
    texts = [f"{number} {' '.join(own.words)}" for number in range(4) for own in world.train]
    found = list(client.stream(texts, view="plain"))
    assert len(found) == len(texts)
    assert [own.sentences[-1].end for own in found] == [len(text) for text in texts]


def test_what_is_served_is_told_and_counted(server, client):
    told = client.models()
    assert told["plain"]["types"] == ["person", "place"]
    assert told["retriever"]["passages"] > 0
    client.tag("London", view="plain")
    end = time.monotonic() + 30  # Ray exports every ten seconds
    text = ""
    while 'view="plain"' not in text and time.monotonic() < end:
        request = urllib.request.Request(f"{server.url}/metrics", headers={"X-API-Key": KEY})
        text = urllib.request.urlopen(request, timeout=10).read().decode()
        time.sleep(1)
    assert any('view="plain"' in line for line in text.splitlines() if line.startswith("ray_ctxner_sentences"))
    with urllib.request.urlopen(f"{server.url}/readyz", timeout=10) as answer:
        assert json.load(answer) == {"plain": True, "context": True, "retriever": True}


def test_nothing_of_a_text_is_logged(client, folder):
    answered = client.tag("Zanzibarsecret sings", view="context").request_id
    client.models()
    logs = [path for path in Path(f"/tmp/ctxner-{os.getuid()}/ray/session_latest/logs").rglob("*") if path.is_file()]
    told = [path.read_text(errors="replace") for path in [*logs, folder / "serve.log"]]
    assert any(answered in own for own in told), "the request is in the access log"
    assert not any("Zanzibarsecret" in own for own in told)
