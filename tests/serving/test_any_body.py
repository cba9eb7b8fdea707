"""Any bytes at all are answered or refused, and never break the server."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.web import make_app
from tests.serving.conftest import Local, make_service
from tests.serving.posting import post

CASES = int(os.environ.get("CTXNER_FUZZ_CASES", "40"))


@schemathesis.serializer("application/x-ndjson")
def _ndjson(_: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"


NAMES = ["texts", "sentences", "view", "passages", "deadline_ms", "return_passages", "x"]
SCALARS = st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(), max_size=30)


def nested(own: Any) -> Any:
    return st.lists(own, max_size=4) | st.dictionaries(st.sampled_from(NAMES), own, max_size=4)


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=300) | st.recursive(SCALARS, nested, max_leaves=20))
def test_any_body_is_answered_or_refused(tagger, body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode("utf-8", "surrogatepass")
    answer = post(make_service(Local(tagger).routing()), content)
    assert answer.status_code in {200, 400, 413, 422}


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=4),
       view=st.sampled_from(["auto", "plain", "context"]), deadline=st.none() | st.floats(200, 1000))  # fmt: skip
def test_any_text_is_tagged_with_exact_offsets(tagger, texts, view, deadline):
    answer = post(make_service(Local(tagger).routing()), {"texts": texts, "view": view, "deadline_ms": deadline})
    assert answer.status_code in {200, 503}, answer.text
    if answer.status_code == 200:
        for text, result in zip(texts, answer.json()["results"], strict=True):
            assert all(text[own["start"] : own["end"]] == own["text"] for own in result["entities"])


def test_requests_made_from_the_schema_never_break_the_server(tagger):
    """Schemathesis: every path of OpenAPI, valid and invalid; answers have to be as described."""
    app = make_app(make_service(Local(tagger).routing()), hosts=["testserver"])
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    statuses = set[int]()
    for operation in (own.ok() for own in schema.get_all_operations()):
        takes_body = operation.method == "post"  # nothing is invalid about a GET without parameters
        for mode in schemathesis.GenerationMode if takes_body else [schemathesis.GenerationMode.POSITIVE]:

            @settings(
                max_examples=max(1, CASES // 6), deadline=None, database=None, suppress_health_check=list(HealthCheck)
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                answer = case.call()
                statuses.add(answer.status_code)
                assert answer.status_code < 500 or answer.status_code == 503, answer.text

            check()
    assert 200 in statuses
    assert statuses & {400, 422}
