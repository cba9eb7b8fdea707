"""Tagged documents in the files of annotation tools, to be corrected by hand and read as training data again.

A writer takes documents one by one (rows of `ctxner.batch.tagged_formats.document_schema`) and keeps none of them. A
document with an error and no entity was not tagged: it is written without annotation, not as one without mentions.

Offsets count code points everywhere. brat and spaCy count so, and so does Label Studio since
HumanSignal/label-studio-frontend#308: its browser test "NER - Emoji - Text" says "Should calculate offsets by code
points in text". doccano counts UTF-16 units in what is marked by hand there (doccano/doccano#2290): `doccano` says how
many documents that concerns.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ctxner import __version__
from ctxner.schema import Entity, Sentence

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
Write = Callable[[Row], None]

BRAT_IDS = "_ids.jsonl"  # begins with "_", so that readers of folders leave it out
_TOKENS_PER_FILE = 1 << 19  # spaCy holds a whole file in memory, when it is written and when it is read
_NAME_CHARS = 60
_LINE_BREAKS = r"\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029"  # brat's readers may end a line of an .ann file at any of them
_FRAGMENT = re.compile(rf"\S(?:[^{_LINE_BREAKS}]*\S)?")


def check_spacy() -> None:
    """Refuse to begin a job that will write DocBins without spaCy.

    Raises:
        ValueError: spaCy is not installed.
    """
    if find_spec("spacy") is None:
        raise ValueError("--to spacy needs spaCy, which is not installed: pip install 'ctxner[spacy]'")


@contextmanager
def doccano(path: Path) -> Iterator[Write]:
    """JSON lines with `text`, `label` as `[start, end, type]`, and `document_id`."""
    num_wide = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:

        def write(row: Row) -> None:
            nonlocal num_wide
            record = {"text": row["text"], "document_id": row["id"]}
            entities = _annotation(row)
            if entities is not None:
                record["label"] = [[entity["start"], entity["end"], entity["type"]] for entity in entities]
            num_wide += max(row["text"], default="") > "\uffff"
            file.write(f"{json.dumps(record, ensure_ascii=False)}\n")

        yield write
    if num_wide:
        logger.warning(
            "doccano: %d documents have characters beyond U+FFFF, such as emojis. doccano counts each of them as two "
            "in what is marked by hand, and these files count it as one: correct such documents in Label Studio or "
            "brat",
            num_wide,
        )


@contextmanager
def label_studio(path: Path) -> Iterator[Write]:
    """A JSON array of tasks; the entities are `predictions`, for a `<Labels name="label">` on a `<Text name="text">`.

    Each region has its confidence as `score`. The prediction's `score` is the least of them: sorted by it, Label Studio
    shows the least certain documents first.
    """
    number = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:

        def write(row: Row) -> None:
            nonlocal number
            file.write(f"{',' if number else '['}\n{json.dumps(_task(row, number), ensure_ascii=False)}")
            number += 1

        yield write
        file.write("\n]\n" if number else "[]\n")


@contextmanager
def brat(folder: Path) -> Iterator[Write]:
    """A folder with `NUMBER-ID.txt` and `.ann` for each document, brat's configuration, and the ids in `BRAT_IDS`.

    What is not an ASCII letter, a digit or one of `._-` in an id is `_` in a name. White space in a type is `_` too,
    since brat's types have none; `visual.conf` has the types as they were. A mention that goes over a line break is
    written as fragments, as brat does.
    """
    number, names = 0, dict[str, str]()
    with (folder / BRAT_IDS).open("w", encoding="utf-8", newline="\n") as ids:

        def write(row: Row) -> None:
            nonlocal number
            name = f"{number:06d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', row['id'])[:_NAME_CHARS]}".rstrip("._-")
            (folder / f"{name}.txt").write_text(row["text"], encoding="utf-8", newline="")
            entities = _annotation(row)
            if entities is not None:
                lines = (_brat_line(n, entity, row["text"], names) for n, entity in enumerate(entities, start=1))
                (folder / f"{name}.ann").write_text("".join(lines), encoding="utf-8", newline="\n")
            ids.write(f"{json.dumps({'file': f'{name}.txt', 'id': row['id']}, ensure_ascii=False)}\n")
            number += 1

        yield write
    entities = "".join(f"{name}\n" for name in names.values())
    labels = "".join(f"{name} | {' '.join(type.split())}\n" for type, name in names.items())
    (folder / "annotation.conf").write_text(f"[entities]\n{entities}\n[relations]\n\n[events]\n\n[attributes]\n")
    (folder / "visual.conf").write_text(f"[labels]\n{labels}\n[drawing]\n", encoding="utf-8")
    if renamed := {type: name for type, name in names.items() if type != name}:
        logger.warning("brat: types without white space in place of those with: %s", renamed)


@contextmanager
def spacy(folder: Path) -> Iterator[Write]:
    """A folder of `NUMBER.spacy` files (DocBin), in order; spaCy reads the folder as it reads one such file.

    Tokens are our words, so that no entity is lost. `doc.user_data` has the document's `id`, and the confidences as
    `ent._.confidence`. Entities of a document that was not tagged are missing, in spaCy's sense.
    """
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    from ctxner.spacy_docs import make_doc

    def empty() -> Any:
        return DocBin(attrs=["ENT_IOB", "ENT_TYPE", "SENT_START"], store_user_data=True)

    number, num_tokens, docs, vocab = 0, 0, empty(), Vocab()

    def flush() -> None:
        nonlocal number, num_tokens, docs, vocab
        docs.to_disk(folder / f"{number:04d}.spacy")
        number, num_tokens, docs, vocab = number + 1, 0, empty(), Vocab()

    def write(row: Row) -> None:
        nonlocal num_tokens
        doc = make_doc(row["text"], _sentences(row), _entities(row), vocab=vocab)
        if _annotation(row) is None and len(doc):
            doc.set_ents([], missing=[doc[:]])
        doc.user_data["id"] = row["id"]
        docs.add(doc)
        num_tokens += len(doc)
        if num_tokens >= _TOKENS_PER_FILE:
            flush()

    yield write
    if len(docs) or not number:
        flush()


def _annotation(row: Row) -> list[dict[str, Any]] | None:
    """The entities of a document; None if it was not tagged."""
    entities: list[dict[str, Any]] = row["entities"]
    return None if row["error"] is not None and not entities else entities


def _task(row: Row, number: int) -> dict[str, Any]:
    task: dict[str, Any] = {"data": {"text": row["text"], "document_id": row["id"]}}
    entities = _annotation(row)
    if entities is None:
        return task
    regions = [
        {
            "id": f"{number}-{place}",
            "from_name": "label",
            "to_name": "text",
            "type": "labels",
            "value": {
                "start": entity["start"],
                "end": entity["end"],
                "text": entity["text"],
                "labels": [entity["type"]],
            },
            "score": entity["confidence"],
        }
        for place, entity in enumerate(entities)
    ]
    prediction: dict[str, Any] = {"model_version": f"ctxner {__version__}", "result": regions}
    if entities:
        prediction["score"] = min(entity["confidence"] for entity in entities)
    return {**task, "predictions": [prediction]}


def _brat_line(number: int, entity: Row, text: str, names: dict[str, str]) -> str:
    """A text-bound annotation. `names` has brat's name of each type, and gets those of new types."""
    type, start = entity["type"], entity["start"]
    if type not in names:
        name = re.sub(r"\s+", "_", type)
        while name in names.values():
            name += "_"
        names[type] = name
    fragments = [match.span() for match in _FRAGMENT.finditer(text[start : entity["end"]])]
    places = ";".join(f"{start + first} {start + last}" for first, last in fragments)
    covered = " ".join(text[start + first : start + last] for first, last in fragments)
    return f"T{number}\t{names[type]} {places}\t{covered}\n"


def _entities(row: Row) -> list[Entity]:
    return [
        Entity(entity["text"], entity["type"], entity["start"], entity["end"], 0, 0, entity["confidence"])
        for entity in row["entities"]
    ]


def _sentences(row: Row) -> list[Sentence]:
    """The sentences with the places of their words, which follow each other in the text."""
    sentences = []
    for number, sentence in enumerate(row["sentences"]):
        offsets, end = [], sentence["start"]
        for word in sentence["words"]:
            start = row["text"].index(word, end)
            end = start + len(word)
            offsets.append((start, end))
        words = tuple(sentence["words"])
        sentences.append(Sentence(str(number), words, offsets=tuple(offsets), text=row["text"]))
    return sentences
