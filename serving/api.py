"""The JSON messages of `/v1/tag` and `/v1/tag/stream`: requests, answers and errors, and nothing else.

The limits here hold for every server; `serving.settings.Limits` sets the lower limits of one server. No error message
repeats a caller's text; an unknown key is named only if it resembles a valid one, or if other
servers have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ctxner.schema import Reason
from ctxner.schema import ViewName as View

Word = Annotated[str, Field(min_length=1, max_length=10_000)]
Text = Annotated[str, Field(max_length=1_000_000)]
_MOST_KEYS = 32  # per object; each unknown key is an error of its own
_NAMES_OF_TEXTS = ("text", "inputs")
_OTHERS_KEYS = {
    *_NAMES_OF_TEXTS,
    *("input", "query", "queries", "document", "documents", "docs", "content", "model"),
    *("parameters", "options", "threshold", "labels", "entity_types", "aggregation_strategy", "language"),
}
_EXAMPLE_TEXT = "Marta Ilves moved from Tartu to the Nordlys Institute."


class Wire(BaseModel):
    """Base of all messages: unknown keys, and numbers that are not finite, are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few_keys(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and len(raw) > _MOST_KEYS:
            raise ValueError(f"{len(raw)} keys, at most {_MOST_KEYS}")
        return raw


class GivenPassage(Wire):
    """A document that the caller gives, to be read beside a text in place of retrieved passages."""

    text: Annotated[str, Field(min_length=1, max_length=100_000)]
    id: Annotated[str, Field(max_length=200)] | None = None
    title: Annotated[str, Field(max_length=1_000)] = ""
    source: Annotated[str, Field(max_length=200)] = "given"


# fail_fast: a list's first error ends its validation, or a body of 4 MiB would make two million errors.
Passages = Annotated[list[GivenPassage], Field(max_length=100, fail_fast=True)]
Words = Annotated[list[Word], Field(min_length=1, max_length=10_000, fail_fast=True)]


class How(Wire):
    """Options for tagging, the same for all texts of a request."""

    view: Literal["auto", "plain", "context"] = Field(
        default="auto", description="auto looks a sentence up only where the plain view is unsure"
    )
    deadline_ms: Annotated[float, Field(gt=0, le=600_000)] | None = Field(
        default=None, description="when the answer has to be there; without one the server's own bound holds"
    )
    return_passages: bool = Field(default=False, description="return what was read beside each sentence")


class TagRequest(How):
    """Either texts, or sentences that are already split into words, with options for tagging."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"texts": [_EXAMPLE_TEXT], "view": "auto", "deadline_ms": 500, "return_passages": True},
                {"sentences": [["Marta", "Ilves", "moved", "to", "Tartu", "."]], "view": "plain"},
                {
                    "texts": [_EXAMPLE_TEXT],
                    "view": "context",
                    "passages": [[{"text": "Nordlys is a research institute in Bergen."}]],
                },
            ]
        }
    )

    texts: Annotated[list[Text], Field(min_length=1, max_length=10_000, fail_fast=True)] | None = None
    sentences: Annotated[list[Words], Field(min_length=1, max_length=10_000, fail_fast=True)] | None = None
    passages: Annotated[list[Passages], Field(max_length=10_000, fail_fast=True)] | None = Field(
        default=None,
        description="for each text or sentence its documents at hand, best first; nothing is looked up then",
    )

    @model_validator(mode="before")
    @classmethod
    def _other_names(cls, body: Any) -> Any:
        """Take `text` or `inputs`, a text or a list of texts, for `texts`: other servers call them so."""
        if not isinstance(body, dict):
            return body
        given = [name for name in _NAMES_OF_TEXTS if name in body]
        if len(given) != 1 or not isinstance(body[given[0]], str | list) or {"texts", "sentences"} & body.keys():
            return body
        value = body[given[0]]
        rest = {name: other for name, other in body.items() if name != given[0]}
        return {**rest, "texts": [value] if isinstance(value, str) else value}

    @model_validator(mode="after")
    def _one_kind(self) -> TagRequest:
        if (self.texts is None) == (self.sentences is None):
            raise ValueError("wanted one of texts and sentences")
        if self.passages is not None and len(self.passages) != self.num_texts:
            raise ValueError(f"{len(self.passages)} lists of passages for {self.num_texts} texts; wanted one per text")
        return self

    @property
    def num_texts(self) -> int:
        """Number of texts or sentences in the request."""
        return len(self.texts if self.texts is not None else self.sentences or ())


class StreamedText(How):
    """One line of the body of `/v1/tag/stream`: a text or the words of one sentence, with options for tagging."""

    text: Text | None = None
    words: Words | None = None
    passages: Passages | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> StreamedText:
        if (self.text is None) == (self.words is None):
            raise ValueError("wanted one of text and words")
        return self


class EntityOut(Wire):
    """A mention, `text[start:end]` in characters; for a sentence given as words, in its words joined by spaces."""

    text: str
    type: str
    start: int
    end: int
    confidence: float
    sentence: int = Field(description="its place in `sentences`")


class PassageOut(Wire):
    """A passage that was read beside a sentence, or that was not read for the reason in `dropped`."""

    id: str
    source: str
    title: str
    text: str
    bm25_score: float | None
    rerank_score: float | None
    dropped: str | None = None


class SentenceOut(Wire):
    """A sentence's place in its text, in characters, and the view that answered."""

    start: int
    end: int
    view: View
    reason: Reason | None = Field(
        default=None, description="why not the view that was asked for, or not the context view"
    )
    entropy: float = Field(description="of the view that answered, over whole tag sequences, in nats")
    passages: list[PassageOut] | None = None


class TextOut(Wire):
    """The entities and sentences of one text."""

    entities: list[EntityOut]
    sentences: list[SentenceOut]
    error: str | None = Field(default=None, description="of a streamed line that could not be tagged")
    code: str | None = Field(default=None, description="of that error, for programs; a list is in `Problem`")


class Versions(Wire):
    """Versions of the model and of the index that gave the answer."""

    model: str = Field(description="first digits of the SHA-256 of the weights; two while a new model rolls in")
    index: str | None = None


class TagResponse(Wire):
    """The answer to a request; `results` has one entry per text or sentence, in the order of the request."""

    results: list[TextOut]
    versions: Versions
    views: dict[View, int] = Field(description="sentences by the view that answered")
    reasons: dict[Reason, int] = Field(description="sentences by reason")
    timings_ms: dict[str, float] = Field(description="total, and the stages that ran: plain, retrieve, context")
    request_id: str


class Problem(Wire):
    """An error: a code for programs, a message for people, and the request's id in the server's log."""

    error: str
    message: str
    request_id: str


def explain(error: ValidationError, message: type[Wire] | None = None) -> str:
    """Where a request is wrong and what was wanted; the request's content is never repeated.

    Args:
        error: Error of a message's type.
        message: That type, to list the keys that are valid where one is unknown.
    """
    problems = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False)[:3]:
        *where, key = problem["loc"] or ("",)
        if problem["type"] == "extra_forbidden":
            text = _unknown_key(str(key), _type_at(message, where))
        else:
            where, text = list(problem["loc"]), problem["msg"]
        problems.append(f"{'.'.join(str(part) for part in where) or 'body'}: {text}")
    return "; ".join(problems) + ("; ..." if error.error_count() > len(problems) else "")


def _unknown_key(key: str, message: type[Wire] | None) -> str:
    """What to say of an unknown key: its name if it is certainly no text of the caller's, and the valid keys."""
    valid = list(message.model_fields) if message else []
    is_name = key in _OTHERS_KEYS or get_close_matches(key, valid, n=1)
    keys = f"; valid here: {', '.join(valid)}" if valid else ""
    return f"unknown key{f' {key!r}' if is_name else ''}{keys}"


def _type_at(message: type[Wire] | None, where: Sequence[str | int]) -> type[Wire] | None:
    """The type of message at a place within a message."""
    for name in where:
        if isinstance(name, int) or message is None:
            continue
        inner = message.model_fields[name].annotation if name in message.model_fields else None
        message = next((wire for wire in _wires(inner)), None)
    return message


def _wires(annotation: Any) -> Iterator[type[Wire]]:
    """Message types within an annotation such as `list[list[GivenPassage]] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Wire):
        yield annotation
    for argument in get_args(annotation):
        yield from _wires(argument)


def examples_of(model: type[Wire]) -> dict[str, Any]:
    """The examples of a message type, by name, in OpenAPI's form."""
    examples = model.model_json_schema().get("examples", [])
    return {f"example {number}": {"value": example} for number, example in enumerate(examples, start=1)}
