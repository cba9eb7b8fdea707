"""Rows of a tagging job between its actors: sentences that are looked up, answers of a view, and parts with both.

`ctxner.batch.tagging_actors` fills them; the columns of the result are `ctxner.batch.tagging_files`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ctxner.batch.tagged_formats import document_schema, entity_struct, sentence_struct
from ctxner.batch.tagging_files import PLACE
from ctxner.schema import Entity, Example, Sentence, context_schema, scored_passage
from ctxner.texts import sentences_of

PartResult = list[dict[str, Any]] | str  # one row of `found_struct` per sentence of a part; or an error message


def sentences_of_part(part: Mapping[str, Any]) -> list[Sentence]:
    """The sentences of a part; their offsets, if any, refer to the part's text."""
    number = str(part["position"])
    if part["words"] and part["offsets"]:
        offsets = tuple((start, end) for start, end in part["offsets"])
        return [Sentence(number, tuple(part["words"]), offsets=offsets, text=part["text"])]
    if part["words"] is not None:
        return sentences_of(part["words"], number)
    return sentences_of(part["text"], number, bounds=part["bounds"], abbreviations=part.get("abbreviations") or ())


def entity_row(entity: Entity, start: int, number: int) -> dict[str, Any]:
    return {
        "text": entity.text,
        "type": entity.type,
        "start": start + entity.start,
        "end": start + entity.end,
        "confidence": entity.confidence,
        "sentence": number,
    }


def looked_up_struct() -> pa.StructType:
    """A looked-up sentence of a part, with the values that retrieval has added so far."""
    pair = pa.list_(pa.int32(), 2)
    fields = [("number", pa.int32()), ("sentence_id", pa.string()), ("words", pa.list_(pa.string()))]
    fields += [("offsets", pa.list_(pair))]  # of the words in the part's text; null if the document was given as words
    fields += [("abbreviations", pa.list_(pa.list_(pa.string())))]
    added = [context_schema().field(name) for name in ("query", "passages", "error")]
    return pa.struct([*fields, ("predicted", pa.list_(pair)), *added])


def looked_up_column(
    rows: Sequence[Mapping[str, Any]], sentences: Sequence[Sequence[Sentence]], chosen: Sequence[Iterable[int]]
) -> pa.Array:
    """The column `looked_up` with the chosen sentences of each part."""
    column = [
        [
            {
                "number": n,
                "sentence_id": f"{row['position']}-{n}",
                "words": list(part_sentences[n].words),
                "offsets": part_sentences[n].offsets,
                "abbreviations": part_sentences[n].abbreviations,
            }
            for n in numbers
        ]
        for row, part_sentences, numbers in zip(rows, sentences, chosen, strict=True)
    ]
    return pa.array(column, pa.list_(looked_up_struct()))


def example_of(looked_up: Mapping[str, Any], text: str) -> Example:
    """A looked-up sentence of a part, with the words into which it was first split, and its passages."""
    offsets = looked_up["offsets"]
    sentence = Sentence(
        looked_up["sentence_id"],
        tuple(looked_up["words"]),
        offsets=None if offsets is None else tuple((start, end) for start, end in offsets),
        text=None if offsets is None else text,
    )
    return Example(sentence, tuple(map(scored_passage, looked_up["passages"] or ())))


def found_struct() -> pa.StructType:
    """Answer of a view for one sentence of a part."""
    return pa.struct([*sentence_struct(), ("entities", pa.list_(entity_struct()))])


def joined(part: Mapping[str, Any], result: PartResult) -> PartResult:
    """The answers of a part, with retrieval's errors: the context view's if looked up, else the plain view's."""
    if isinstance(result, str):
        return result
    if part.get("failed") is not None:
        return str(part["failed"])
    for answer, asked in zip(result, part["looked_up"], strict=True):
        answer["error"] = asked["error"]
        if asked["error"] is not None:
            answer["reason"] = "retriever_unavailable"
    if "found" not in part:
        return result
    whole = [{**answer, "reason": "confident"} for answer in part["found"]]
    for answer, asked in zip(result, part["looked_up"], strict=True):
        whole[asked["number"]] = answer
    return whole


def tagged(parts: pa.Table, results: Sequence[PartResult]) -> pa.Table:
    """Tagged parts. The error of a part is its own error, or else the first error of its sentences."""
    sentences = [[] if isinstance(answers, str) else answers for answers in results]
    entities = [
        [entity for sentence in part_sentences for entity in sentence.pop("entities")] for part_sentences in sentences
    ]
    errors = [
        answers
        if isinstance(answers, str)
        else next((result_row["error"] for result_row in answers if result_row.get("error") is not None), None)
        for answers in results
    ]
    columns = {"entities": entities, "sentences": sentences, "error": errors}
    tagged = parts.select([*PLACE, "id", "text"])
    for name, values in columns.items():
        tagged = tagged.append_column(name, pa.array(values, document_schema().field(name).type))
    return tagged
