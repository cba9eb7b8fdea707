"""The spaCy pipeline component: `nlp.add_pipe("ctxner", config={"model": "path/to/model"})`.

spaCy finds the component by its entry point, without an import. The component tags `doc.text`, split into our sentences
and words, so that its entities are those of `Tagger.tag` and `ctxner tag`, and aligns them to spaCy's tokens.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch

from ctxner.model.calibration_file import auto_threshold
from ctxner.predictor import Tagger
from ctxner.schema import Example
from ctxner.spacy_docs import set_entities
from ctxner.texts import as_scored, sentences_of


class CtxnerComponent:
    """Sets `doc.ents` and `ent._.confidence`; the arguments are those of `make_component`."""

    def __init__(
        self,
        tagger: Tagger,
        *,
        view: Literal["plain", "context", "auto"] = "plain",
        threshold: float | None = None,
        overwrite: bool = False,
    ) -> None:
        if view == "auto":
            threshold = auto_threshold(tagger.calibration, threshold)
        self.tagger, self.view, self.threshold, self.overwrite = tagger, view, threshold, overwrite
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
        predictions = iter(self.tagger.predict(examples, view=self.view, threshold=self.threshold))
        for doc, sentences in zip(docs, parts, strict=True):
            entities = [entity for _ in sentences for entity in next(predictions).entities]
            set_entities(doc, entities, overwrite=self.overwrite)


@Language.factory(
    "ctxner",
    assigns=["doc.ents", "span._.confidence"],
    default_config={"model": None, "view": "plain", "threshold": None, "device": "cpu", "overwrite": False},
)
def make_component(
    nlp: Language,
    name: str,
    model: str | None,
    view: Literal["plain", "context", "auto"],
    threshold: float | None,
    device: str,
    overwrite: bool,
) -> CtxnerComponent:
    """Make the component; spaCy calls this.

    Args:
        nlp: Pipeline; unused.
        name: Name of the component in the pipeline.
        model: Folder that `ctxner train` wrote, or a hub id.
        view: View to tag with. `context` and `auto` read the passages in `doc._.passages`, best first; a document
            without passages is tagged as in `plain`.
        threshold: Entropy in nats above which `auto` uses the passages; None for the calibrated value.
        device: Device of the model, e.g. `cpu` or `cuda`.
        overwrite: Whether entities of earlier components, e.g. `entity_ruler`, are replaced; else they stay, as
            `entity_ruler` keeps those before it (`overwrite_ents`), and only entities that overlap none are added.

    Raises:
        ValueError: `model` is not given, or it names no model.
    """
    if model is None:
        raise ValueError(
            f'component {name!r} has no model; nlp.add_pipe("ctxner", config={{"model": "path/to/model"}})'
        )
    return CtxnerComponent(
        Tagger.from_pretrained(model, device=device), view=view, threshold=threshold, overwrite=overwrite
    )
