"""The spaCy pipeline component: `nlp.add_pipe("ctxner", config={"model": "path/to/model"})`.

spaCy finds it by its entry point, without an import. It tags `doc.text`, split into our sentences and words, so that it
answers what `Tagger.tag` and `ctxner tag` answer, and aligns the entities to spaCy's tokens.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch

from ctxner.model.calibration_file import auto_threshold
from ctxner.predictor import Tagger, as_scored, sentences_of
from ctxner.schema import Example
from ctxner.spacy_docs import set_entities


class CtxnerComponent:
    """Sets `doc.ents`, whatever they were, and `ent._.confidence`; arguments as `make_component`."""

    def __init__(
        self, tagger: Tagger, *, view: Literal["plain", "context", "auto"] = "plain", threshold: float | None = None
    ) -> None:
        if view == "auto":
            threshold = auto_threshold(tagger.calibration, threshold)
        self.tagger, self.view, self.threshold = tagger, view, threshold
        if not Doc.has_extension("passages"):
            Doc.set_extension("passages", default=())

    def __call__(self, doc: Doc) -> Doc:
        """Tag one document."""
        self._tag([doc])
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 256) -> Iterator[Doc]:
        """Tag a stream, the sentences of `batch_size` documents together."""
        for docs in minibatch(stream, batch_size):
            self._tag(docs)
            yield from docs

    def _tag(self, docs: list[Doc]) -> None:
        parts = [sentences_of(doc.text, str(number)) for number, doc in enumerate(docs)]
        examples = [
            Example(sentence, as_scored(doc._.passages))
            for doc, sentences in zip(docs, parts, strict=True)
            for sentence in sentences
        ]
        found = iter(self.tagger.predict(examples, view=self.view, threshold=self.threshold))
        for doc, sentences in zip(docs, parts, strict=True):
            set_entities(doc, [entity for _ in sentences for entity in next(found).entities])


@Language.factory(
    "ctxner",
    assigns=["doc.ents", "span._.confidence"],
    default_config={"model": None, "view": "plain", "threshold": None, "device": "cpu"},
)
def make_component(
    nlp: Language,
    name: str,
    model: str | None,
    view: Literal["plain", "context", "auto"],
    threshold: float | None,
    device: str,
) -> CtxnerComponent:
    """Called by spaCy.

    Args:
        nlp: The pipeline; not looked at.
        name: Of the component in it.
        model: Folder that `ctxner train` wrote, or a hub id.
        view: `context` and `auto` read the passages in `doc._.passages`, best first; without any they are as `plain`.
        threshold: Of `auto`, in nats; the calibration's when None.
        device: E.g. `cpu` or `cuda`.

    Raises:
        ValueError: No model, or none there.
    """
    if model is None:
        raise ValueError(
            f'component {name!r} has no model; nlp.add_pipe("ctxner", config={{"model": "path/to/model"}})'
        )
    return CtxnerComponent(Tagger.from_pretrained(model, device=device), view=view, threshold=threshold)
