"""Forms of texts with character spans: what the annotation tools doccano, Prodigy and Label Studio write, and spaCy's.

Offsets, types and overlaps are checked where all forms meet, in `ctxner.files.records`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctxner.files.forms.form import Fields, Form, Reading, items
from ctxner.files.forms.offsets import placed

_GOLD_KEYS = ("entities", "label", "labels")


def _is_doccano(fields: Fields) -> bool:
    if "text" not in fields or "words" in fields:
        return False
    entities = fields.get("entities")
    offsets = isinstance(entities, list) and any(isinstance(own, dict) and "start_offset" in own for own in entities)
    labels = any(isinstance(fields.get(key), list) for key in ("label", "labels"))
    return offsets or labels or "Comments" in fields or ("relations" in fields and "entities" in fields)


def _doccano_gold(fields: Fields, where: str, reading: Reading) -> Fields:
    _remark_relations(fields, where, reading)
    return {}


def _remark_relations(fields: Fields, where: str, reading: Reading) -> None:
    if fields.get("relations"):
        reading.counts.remark("relations are not read", where)


def _is_prodigy(fields: Fields) -> bool:
    if "text" not in fields or "words" in fields:
        return False
    spans = fields.get("spans")
    labelled = isinstance(spans, list) and all(isinstance(span, dict) and "label" in span for span in spans)
    answered = "answer" in fields and ("spans" in fields or "tokens" in fields)
    return labelled or answered or any(key in fields for key in ("_input_hash", "_task_hash", "_view_id"))


def _prodigy_gold(fields: Fields, where: str, reading: Reading) -> Fields | None:
    answer = fields.get("answer", "accept")
    if answer not in ("accept", "reject", "ignore"):
        raise ValueError(f"{where}: 'answer' is {answer!r:.80}; wanted 'accept', 'reject' or 'ignore'")
    if answer != "accept":
        reading.counts.remark(f"answered {answer!r}, not read", where)
        return None
    _remark_relations(fields, where, reading)
    if fields.get("_view_id") == "ner":
        reading.counts.remark("accepted in the view 'ner': words outside the shown span are taken as no mention", where)
    if not {"answer", "spans"} & fields.keys():
        return {}
    spans = items(fields.get("spans", []), "spans", where)
    return {"entities": [_entity(span.get("start"), span.get("end"), span.get("label")) for span in spans]}


def _entity(start: Any, end: Any, type: Any) -> dict[str, Any]:
    return {"start": start, "end": end, "type": type}


_STUDIO_KEYS = ("data", "annotations", "completions", "predictions", "drafts")
_MIN_KEYS = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"}


def _studio_text(fields: Mapping[str, Any], where: str) -> str:
    texts = [key for key, value in fields.items() if isinstance(value, str) and key not in _MIN_KEYS]
    if "text" not in texts and len(texts) != 1:
        raise ValueError(
            f"{where}: a Label Studio task with {', '.join(map(repr, texts)) or 'no string'} as data; wanted one text, "
            "or 'text' among them: rename the key"
        )
    return str(fields["text" if "text" in texts else texts[0]])


def _studio_gold(fields: Fields, where: str, reading: Reading) -> Fields | None:
    """The mentions of the ground truth, or else of the first annotation that was not cancelled."""
    key = next((key for key in ("annotations", "completions") if key in fields), None)
    if fields.get("predictions"):
        reading.counts.remark("Label Studio's predictions are not read", where)
    if key is None or fields[key] == []:
        return {}
    annotations = [own for own in items(fields[key], key, where) if not own.get("was_cancelled")]
    if not annotations:
        reading.counts.remark("task skipped by its annotator, not read", where)
        return None
    if len(annotations) > 1:
        reading.counts.remark("task annotated more than once: the ground truth or else the first is read", where)
    chosen = next((own for own in annotations if own.get("ground_truth")), annotations[0])
    text, entities = _studio_text(fields["data"], where), list[dict[str, Any]]()
    for result in items(chosen.get("result", []), "result", where):
        entities += _studio_entities(text, result, where, reading)
    return {"entities": entities}


def _studio_entities(text: str, result: dict[str, Any], where: str, reading: Reading) -> list[dict[str, Any]]:
    value, kind = result.get("value"), result.get("type", "labels")
    if kind == "labels" and isinstance(value, dict):
        return _regions(text, value, where, reading)
    if not isinstance(kind, str) or kind.endswith("labels"):
        raise ValueError(
            f"{where}: a result of type {kind!r:.80} with {value!r:.80}; only 'labels' on plain text are read"
        )
    reading.counts.remark(f"results of type {kind!r:.40} are not read", where)
    return []


def _regions(text: str, value: dict[str, Any], where: str, reading: Reading) -> list[dict[str, Any]]:
    types = value.get("labels", [])
    if not isinstance(types, list):
        raise ValueError(f"{where}: 'labels' of a region is {types!r:.80}; wanted a list of strings")
    if not types:
        reading.counts.remark("region without a label, not read", where)
    entities = [_entity(value.get("start"), value.get("end"), type) for type in types]
    return [placed(text, entity, value.get("text"), where, reading) for entity in entities]


def _is_minimal(fields: Fields) -> bool:
    return "annotation_id" in fields and bool({"annotator", "lead_time", "created_at"} & fields.keys())


def _minimal_keys(fields: Fields) -> list[str]:
    """The keys of region lists, whose names the labelling configuration chooses."""
    return [
        key
        for key, value in fields.items()
        if isinstance(value, list) and value and all(isinstance(own, dict) and "labels" in own for own in value)
    ]


def _minimal_gold(fields: Fields, where: str, reading: Reading) -> Fields:
    text = _studio_text(fields, where)
    regions = [region for key in _minimal_keys(fields) for region in fields[key]]
    return {"entities": [own for region in regions for own in _regions(text, region, where, reading)]}


def pair_fields(value: Any) -> dict[str, Any] | None:
    """The fields of spaCy's `[text, {"entities": [[start, end, type]]}]`; None for anything else."""
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not isinstance(value[0], str)
        or not isinstance(value[1], dict)
    ):
        return None
    grammar = ("cats", "deps", "heads", "lemmas", "links", "morphs", "pos", "sent_starts", "tags")
    return {"text": value[0], **{key: given for key, given in value[1].items() if key not in grammar}}


TEXT = Form("text", lambda fields: "text" in fields and not any(key in fields for key in _GOLD_KEYS))
TEXT_WITH_ENTITIES = Form("text and entities", lambda fields: "text" in fields)
DOCCANO = Form("doccano", _is_doccano, gold=_doccano_gold)
PRODIGY = Form("Prodigy", _is_prodigy, lambda fields: ("spans", "tokens", "answer"), gold=_prodigy_gold)
LABEL_STUDIO = Form(
    "Label Studio",
    lambda fields: isinstance(fields.get("data"), dict) and not {"text", "words", "tokens"} & fields.keys(),
    lambda fields: _STUDIO_KEYS,
    lambda fields, where: {"text": _studio_text(fields["data"], where)},
    _studio_gold,
)
LABEL_STUDIO_MINIMAL = Form(
    "Label Studio JSON-MIN",
    _is_minimal,
    lambda fields: ("text", *_minimal_keys(fields)),
    lambda fields, where: {"text": _studio_text(fields, where)},
    _minimal_gold,
)
SPACY_PAIRS = Form("spaCy training pairs", lambda fields: True)
