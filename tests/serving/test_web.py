"""HTTP with a real tagger and no Ray: answers, bounds, and errors without the text."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from ctxner.schema import Example
from ctxner.texts import sentences_of
from serving.web import make_app
from tests.serving.conftest import client_of, make_service
from tests.serving.posting import TEXT, post
from tests.serving.simulated import run_simulated


def test_texts_and_split_sentences_get_the_taggers_entities(local):
    answer = post(make_service(local.routing()), {"texts": [TEXT, "", "London"], "view": "plain"})
    assert answer.status_code == 200
    found = answer.json()
    for text, result in zip([TEXT, "", "London"], found["results"], strict=True):
        sentences = sentences_of(text, "0")
        wanted = [
            (entity.text, entity.type, entity.start, entity.end, number)
            for number, own in enumerate(local.tagger.predict([Example(s) for s in sentences], view="plain"))
            for entity in own.entities
        ]
        assert [tuple(e[k] for k in ("text", "type", "start", "end", "sentence")) for e in result["entities"]] == wanted
        assert all(text[e["start"] : e["end"]] == e["text"] for e in result["entities"])
    assert found["views"] == {"plain": sum(len(own["sentences"]) for own in found["results"])}
    split = post(make_service(local.routing()), {"sentences": [["Paris", "Hilton"]], "view": "plain"}).json()
    assert split["results"][0]["sentences"][0]["end"] == len("Paris Hilton")


def test_long_lists_keep_their_order_through_chunks(local):
    texts = [f"Paris {number} sings in London ." for number in range(300)]
    found = post(make_service(local.routing()), {"texts": texts, "view": "plain"}).json()
    alone = local.tagger.tag(texts)
    assert [[e["text"] for e in own["entities"]] for own in found["results"]] == [
        [e.text for e in own] for own in alone
    ]


def test_passages_are_returned_only_when_asked_for_and_can_be_given(local):
    service = make_service(local.routing())
    asked = post(service, {"texts": ["Paris sings"], "view": "context", "return_passages": True}).json()
    assert asked["results"][0]["sentences"][0]["passages"][0]["text"] == "Paris sings ."
    assert (
        "passages"
        not in post(service, {"texts": ["Paris sings"], "view": "context"}).json()["results"][0]["sentences"][0]
    )
    body = {"texts": ["Paris sings"], "view": "context", "passages": [[{"text": "Paris is a singer."}]]}
    given_ones = post(service, {**body, "return_passages": True}).json()["results"][0]["sentences"][0]
    assert [own["text"] for own in given_ones["passages"]] == ["Paris is a singer."]
    assert given_ones["view"] == "context"


def test_a_stream_gives_a_line_for_each_line_in_their_order(local):
    lines = [json.dumps({"text": f"Paris {number} in London ."}) for number in range(200)]
    lines[7] = "{"
    lines[9] = json.dumps({"text": "x" * 300})
    body = "\n".join(lines).encode()
    service = make_service(local.routing(), text_chars=200)
    answer = post(service, body, path="/v1/tag/stream", headers={"content-type": "application/x-ndjson"})
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert len(found) == 200
    assert [number for number, own in enumerate(found) if "error" in own] == [7, 9]
    assert [own["sentences"][0]["end"] for own in found[10:]] == [len(f"Paris {n} in London .") for n in range(10, 200)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"texts": ["\\ud800"]}', 400),
        (b'{"texts": ["a"], "deadline_ms": NaN}', 422),
        (b'{"texts": ["a"], "deadline_ms": 1e999}', 422),
        (b'{"texts": ["a"], "deadline_ms": -1}', 422),
        (b'{"texts": ["a"], "secret": 1}', 422),
        (b'{"texts": []}', 422),
        (b'{"texts": ["a"], "sentences": [["b"]]}', 422),
        (b'{"texts": ["a"], "passages": []}', 422),
        (b"[" * 200_000, 400),
        (b'{"texts":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b'{"texts": ["' + b"a" * 150_000 + b'"]}', 413),
        (b'{"texts": [' + b'"a",' * 2000 + b'"a"]}', 413),
        (b" " * (5 << 20), 413),
    ],
    ids=range(16),
)  # fmt: skip
def test_bad_bodies_have_an_error_each(local, body, status):
    answer = post(make_service(local.routing()), body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "message", "request_id"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"texts": ["a"], "veiw": "plain"},
            "body: unknown key 'veiw'; valid here: view, deadline_ms, return_passages, texts, sentences, passages",
        ),
        (
            {"texts": ["a"], "passages": [[{"txt": "b", "text": "b"}]]},
            "passages.0.0: unknown key 'txt'; valid here: text, id, title, source",
        ),
        ({"texts": ["a"], "parameters": {}}, "body: unknown key 'parameters'; valid here: view"),
        ({"texts": ["a"], "two words": 1}, "body: unknown key; valid here: view, deadline_ms"),
        ({"texts": ["a"], "text": "b"}, "body: unknown key 'text'"),
        ({"text": "a", "inputs": "b"}, "body: unknown key 'text'"),
        ({"inputs": {"text": "a"}}, "body: unknown key 'inputs'"),
    ],
)
def test_an_unknown_key_is_named_with_those_that_are_valid_there(local, body, message):
    answer = post(make_service(local.routing()), json.dumps(body).encode())
    assert answer.status_code == 422
    assert answer.json()["message"].startswith(message)


@pytest.mark.parametrize(
    "body", [{"text": "Paris in London"}, {"inputs": "Paris in London"}, {"inputs": ["Paris in London"]}]
)
def test_text_and_inputs_are_taken_for_texts_as_other_servers_call_them(local, body):
    service = make_service(local.routing())
    wanted = post(service, json.dumps({"texts": ["Paris in London"]}).encode()).json()["results"]
    answer = post(service, json.dumps(body).encode())
    assert (answer.status_code, answer.json()["results"]) == (200, wanted)


def test_wrong_content_types_and_zip_bombs_are_refused_unread(local):
    service = make_service(local.routing())
    for headers in ({"content-type": "text/plain"}, {"content-type": ""}, {"content-encoding": "gzip"}):
        assert post(service, b'{"texts": ["a"]}', headers=headers).status_code == 415


def test_no_error_and_no_log_line_repeats_the_text(local, caplog):
    secret = "zanzibarsecret"
    logging.getLogger("ray.serve").addHandler(caplog.handler)
    bodies = [
        {"texts": [secret], secret: secret},
        {"texts": secret},
        {"texts": [secret], "view": secret},
        {"texts": [{secret: secret}]},
        {"texts": [secret * 10_000]},
        {"texts": [secret]},
        ("{" + secret).encode(),
    ]
    service = make_service(local.routing())
    with caplog.at_level(logging.DEBUG):
        answers = [post(service, body) for body in bodies]

    async def broken(*_: Any) -> Any:
        raise KeyError(secret)

    service.tag = broken  # whatever fails inside
    with caplog.at_level(logging.DEBUG):
        answers.append(post(service, {"texts": [secret], "view": "plain"}))
    assert answers[-1].status_code == 500
    assert secret not in "".join(own.text for own in answers if own.status_code != 200)
    told = "".join(
        record.getMessage() + str(record.__dict__) for record in caplog.records if record.name == "ray.serve"
    )
    assert "access" in told
    assert secret not in told


def test_overload_is_refused_at_once_and_passes(local):
    local.seconds["plain"] = 0.3
    service = make_service(local.routing(), waiting_words=70)

    async def work() -> list[int]:
        async with client_of(service) as client:
            body = {"texts": ["Paris Hilton sings in London"], "view": "plain"}
            answers = await asyncio.gather(*(client.post("/v1/tag", json=body) for _ in range(10)))
            refused = [own for own in answers if own.status_code == 503]
            assert all(int(own.headers["retry-after"]) >= 1 for own in refused)
            last = await client.post("/v1/tag", json=body)
            return [own.status_code for own in answers] + [last.status_code]

    found = run_simulated(work)
    assert found.count(503) == 7, "three have room: as much again has to be free"
    assert found[-1] == 200
    assert service.room.held == 0


def test_the_schema_describes_what_is_taken(local):
    tree = make_app(make_service(local.routing())).openapi()
    body = tree["paths"]["/v1/tag"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/TagRequest"}
    assert "deadline_ms" in tree["components"]["schemas"]["TagRequest"]["properties"]
    service = make_service(local.routing())
    for example in body["examples"].values():
        assert post(service, example["value"]).status_code == 200
