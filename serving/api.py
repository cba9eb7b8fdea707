"""The JSON messages of `/v1/tag` and `/v1/tag/stream`: requests, answers and errors, and nothing else.

The limits here hold for every server; `serving.settings.Limits` sets the lower limits of one server. No error message
repeats a caller's text.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ctxner.schema import Reason
from ctxner.schema import ViewName as View

Word = Annotated[str, Field(min_length=1, max_length=10_000)]
Text = Annotated[str, Field(max_length=1_000_000)]
_EXAMPLE_TEXT = "Marta Ilves moved from Tartu to the Nordlys Institute."


class Wire(BaseModel):
    """Base of all messages: unknown keys, and numbers that are not finite, are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GivenPassage(Wire):
    """A document that the caller gives, to be read beside a text in place of retrieved passages."""

    text: Annotated[str, Field(min_length=1, max_length=100_000)]
    id: Annotated[str, Field(max_length=200)] | None = None
    title: Annotated[str, Field(max_length=1_000)] = ""
    source: Annotated[str, Field(max_length=200)] = "given"


Passages = Annotated[list[GivenPassage], Field(max_length=100)]


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

    texts: Annotated[list[Text], Field(min_length=1, max_length=10_000)] | None = None
    sentences: (
        Annotated[
            list[Annotated[list[Word], Field(min_length=1, max_length=10_000)]], Field(min_length=1, max_length=10_000)
        ]
        | None
    ) = None
    passages: Annotated[list[Passages], Field(max_length=10_000)] | None = Field(
        default=None,
        description="for each text or sentence its documents at hand, best first; nothing is looked up then",
    )

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
    words: Annotated[list[Word], Field(min_length=1, max_length=10_000)] | None = None
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


def explain(error: ValidationError) -> str:
    """Where a request is wrong and what was wanted; the request's content is never repeated."""
    problems = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False)[:3]:
        extra = problem["type"] == "extra_forbidden"
        place = ".".join(str(part) for part in (problem["loc"][:-1] if extra else problem["loc"])) or "body"
        problems.append(f"{place}: {'unknown key' if extra else problem['msg']}")
    return "; ".join(problems) + ("; ..." if error.error_count() > len(problems) else "")


def examples_of(model: type[Wire]) -> dict[str, Any]:
    """The examples of a message type, by name, in OpenAPI's form."""
    examples = model.model_json_schema().get("examples", [])
    return {f"example {number}": {"value": example} for number, example in enumerate(examples, start=1)}
