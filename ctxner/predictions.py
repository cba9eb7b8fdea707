"""What a tagger answers for a sentence: tags, entities, how sure it is, and which view answered."""

from __future__ import annotations

from dataclasses import dataclass

from ctxner.schema import Entity, Reason, ScoredPassage, Span, ViewName


@dataclass(frozen=True, slots=True)
class Analysis:
    """One of the best tag paths of a sentence: its exact probability, BIOES tags and entities."""

    probability: float
    tags: tuple[str, ...]
    entities: tuple[Entity, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Answer of one view for one sentence.

    Attributes:
        sentence_id: Id of the example's sentence.
        view: View that answered; `plain` if no passage fitted beside the sentence.
        reason: Why the plain view answered though another was asked for: `confident` in `auto`; `no_hits` if there was
            no passage or none fitted (none fits beside a sentence that is cut into windows); otherwise None.
        tags: BIOES tags, one per word.
        entities: Entities in order; offsets refer to the sentence's source text, or to its words joined by spaces.
        entropy: Entropy of the distribution over whole tag sequences, in nats, in the view that answered.
        passages: Passages of the context view, with `num_pieces` where used and `dropped` where not.
        alternatives: Best tag paths, best first, if asked for; only paths with a probability above 0.
    """

    sentence_id: str
    view: ViewName
    tags: tuple[str, ...]
    entities: tuple[Entity, ...]
    entropy: float
    passages: tuple[ScoredPassage, ...] = ()
    alternatives: tuple[Analysis, ...] = ()
    reason: Reason | None = None

    @property
    def spans(self) -> tuple[Span, ...]:
        """The entities as typed word spans."""
        return tuple(Span(entity.first_word, entity.last_word, entity.type) for entity in self.entities)
