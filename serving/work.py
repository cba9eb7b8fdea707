"""What a request or a line of a stream asks for, split and checked, and its answer with places in characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.texts import as_scored, sentences_of
from serving.admission import most_pieces_of, pieces_read
from serving.answers import Answer
from serving.api import EntityOut, GivenPassage, How, PassageOut, SentenceOut, TextOut, Versions
from serving.errors import RefusedError
from serving.settings import Limits


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a request, its sentences, and the passages that the caller gives for it."""

    text: str
    sentences: Sequence[Sentence]
    passages: tuple[ScoredPassage, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """Checked texts with options for tagging.

    Attributes:
        texts: The texts, each with its sentences.
        how: The options.
        given: Whether the caller gave passages.
        pieces: Approximate number of pieces of each sentence, in the order of the texts.
        read: Approximate number of pieces of the given passages.
    """

    texts: Sequence[Text]
    how: How
    given: bool
    pieces: Sequence[int]
    read: int

    @property
    def size(self) -> int:
        """Approximate number of pieces that the caller sent."""
        return sum(self.pieces) + self.read

    @property
    def examples(self) -> list[Example]:
        """The sentences with the given passages, in the order of the texts."""
        return [Example(sentence, text.passages) for text in self.texts for sentence in text.sentences]


def work_of(
    texts: Sequence[str | tuple[str, ...]],
    given: Sequence[Sequence[GivenPassage]] | None,
    how: How,
    limits: Limits,
) -> Work:
    """The texts, split and checked.

    Raises:
        RefusedError: They exceed a limit.
    """
    passages = [()] * len(texts) if given is None else given
    split = [_split(*text, limits) for text in zip(texts, passages, range(len(texts)), strict=True)]
    if (num := sum(len(text.sentences) for text in split)) > limits.sentences:
        raise RefusedError(413, "too_many_sentences", f"{num} sentences, at most {limits.sentences}")
    pieces = [most_pieces_of(sentence.words) for text in split for sentence in text.sentences]
    if pieces and (longest := max(pieces)) > limits.sentence_pieces:
        message = f"a sentence of about {longest} pieces, at most {limits.sentence_pieces}; split it"
        raise RefusedError(413, "too_long", message)
    return Work(split, how, given is not None, pieces, sum(pieces_read(text.passages) for text in split))


def joined(works: Sequence[Work]) -> Work:
    """The texts of several, to be tagged together with the options of the first, which are those of all."""
    return Work(
        [text for work in works for text in work.texts],
        works[0].how,
        works[0].given,
        [pieces for work in works for pieces in work.pieces],
        sum(work.read for work in works),
    )


def _split(text: str | tuple[str, ...], given: Sequence[GivenPassage], number: int, limits: Limits) -> Text:
    whole = text if isinstance(text, str) else " ".join(text)
    if len(whole) > limits.text_chars:
        message = f"text {number} has {len(whole)} characters, at most {limits.text_chars}"
        raise RefusedError(413, "too_long", message)
    if sum(len(passage.text) for passage in given) > limits.passage_chars:
        message = f"the passages of text {number} exceed {limits.passage_chars} characters"
        raise RefusedError(413, "too_long", message)
    passages = as_scored(
        Passage(passage.id or f"given-{rank}", passage.source, passage.text, passage.title)
        for rank, passage in enumerate(given, start=1)
    )
    return Text(whole, sentences_of(text, str(number)), passages)


def text_out(text: Text, answers: Sequence[Answer], return_passages: bool) -> TextOut:
    """A text's answer, with places in characters."""
    entities, sentences = [], []
    for number, (sentence, answer) in enumerate(zip(text.sentences, answers, strict=True)):
        prediction = answer.prediction
        _, offsets = sentence.located()
        entities += [
            EntityOut(text=e.text, type=e.type, start=e.start, end=e.end, confidence=e.confidence, sentence=number)
            for e in prediction.entities
        ]
        sentences.append(
            SentenceOut(
                start=offsets[0][0],
                end=offsets[-1][1],
                view=answer.view,
                reason=answer.reason,
                entropy=max(0.0, prediction.entropy),
                passages=[_passage_out(passage) for passage in prediction.passages] if return_passages else None,
            )
        )
    return TextOut(entities=entities, sentences=sentences)


def _passage_out(scored: ScoredPassage) -> PassageOut:
    passage = scored.passage
    return PassageOut(
        id=passage.id,
        source=passage.source,
        title=passage.title,
        text=passage.text,
        bm25_score=scored.bm25_score,
        rerank_score=scored.rerank_score,
        dropped=scored.dropped,
    )


def versions_of(answers: Sequence[Answer]) -> Versions:
    """The versions of the models and indexes that gave the answers."""
    models = sorted({answer.model for answer in answers})
    indexes = sorted({answer.index for answer in answers if answer.index})
    return Versions(model=",".join(models), index=",".join(indexes) or None)
