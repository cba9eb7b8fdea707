"""API keys: without one nothing is answered, each has its rate, and none is ever shown."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from serving.settings import ApiKey, ServeSettings, hashed, keys_from
from tests.serving.conftest import client_of, make_service, run


def test_without_a_key_it_is_always_401_and_each_key_has_its_rate(local):
    first, second = "a" * 20, "b" * 20
    keys = (
        ApiKey(name="first", sha256=hashed(first), requests_per_minute=3),
        ApiKey(name="second", sha256=hashed(second)),
    )
    service = make_service(local.routing())

    async def work() -> None:
        async with client_of(service, keys) as client:
            for path in (
                "/v1/tag",
                "/v1/tag/stream",
                "/v1/models",
                "/metrics",
                "/openapi.json",
                "/v1/nothing",
                "/docs",
            ):
                for headers in ({}, {"authorization": f"Bearer {first}x"}, {"authorization": "Basic " + first}):
                    for method in ("GET", "POST", "PUT"):
                        answer = await client.request(method, path, headers=headers)
                        assert answer.status_code == 401, (path, method)
            body = {"texts": ["London"], "view": "plain"}
            ask = [await client.post("/v1/tag", json=body, headers={"x-api-key": first}) for _ in range(5)]
            assert [own.status_code for own in ask] == [200] * 3 + [429] * 2
            assert int(ask[-1].headers["retry-after"]) >= 1
            other = await client.post("/v1/tag", json=body, headers={"authorization": f"Bearer {second}"})
            assert other.status_code == 200
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/")).status_code == 200

    run(work)
    counted = Counter(service.meter.statuses)
    assert (counted[200], counted[401], counted[429]) == (6, 7 * 3 * 3, 2)


@pytest.mark.parametrize("key", ["", "x" * 15])
def test_an_empty_or_short_key_opens_nothing_even_if_its_hash_were_in_the_file(local, key):
    keys = (
        ApiKey.model_construct(name="a", sha256=hashlib.sha256(key.encode()).hexdigest(), requests_per_minute=None),
    )

    async def work() -> None:
        async with client_of(make_service(local.routing()), keys) as client:
            for headers in ({}, {"x-api-key": key}, {"authorization": f"Bearer {key}"}, {"authorization": key}):
                answer = await client.get("/v1/models", headers=headers)
                assert answer.status_code == 401, headers

    run(work)


def test_keys_come_from_the_environment_hashed_and_are_never_shown():
    (found,) = keys_from({"CTXNER_API_KEYS": "me:" + "k" * 32})
    assert (found.name, found.sha256) == ("me", hashed("k" * 32))
    with pytest.raises(ValueError, match="entry 2") as error:
        keys_from({"CTXNER_API_KEYS": "me:" + "k" * 32 + ",you:tooshort"})
    assert "tooshort" not in str(error.value)
    with pytest.raises(ValueError, match="same name"):
        ServeSettings(model="m", keys=(found, found))
