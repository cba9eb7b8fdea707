"""Makes the files of docs/start: what a workshop has when it begins, an export of doccano, a glossary and new letters.

Names are invented, and the same syllables make products, people and places, so only the sentence or the glossary tells
a name's type. `python -m tests.start_files` writes the files; `tests/integration/test_start.py` checks and uses them.
"""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "start"
SYLLABLES = (
    *("bra", "dol", "fen", "gi", "ha", "jo", "ka", "ki", "la", "lo", "mar", "mos", "ne", "ni", "pol"),
    *("ri", "ru", "sha", "su", "ta", "tor", "ve", "wi", "yo", "zan", "zel"),
)
DEFINITIONS = {
    "product": "a {} for workshops, sold since {}",
    "person": "a mechanic who joined the workshop in {1}",
    "place": "a town with a branch of the workshop, opened in {1}",
}
KINDS = ("drill", "pump", "lathe", "press")
TOLD = {  # the sentence tells the type
    "product": ("Please order two spare parts for the {}.", "The motor of the {} is broken."),
    "person": ("{} repaired the gate herself.", "Our new colleague {} starts on Monday."),
    "place": ("The road to {} is closed again.", "We drive from {} to the coast."),
}
UNTOLD = ("Everybody asked about {} today.", "{} was mentioned twice in the letter.", "Tell me more about {} please.")
NONE = ("The invoice was paid last week.", "Nobody answered the phone this morning.", "The keys are on the table.")


def main() -> None:
    """Write the three files."""
    for name, text in files().items():
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / name).write_text(text, encoding="utf-8")


def files() -> dict[str, str]:
    """The content of each file, always the same."""
    chance = random.Random(17)
    names: list[str] = []
    while len(names) < 75:
        name = "".join(chance.sample(SYLLABLES, chance.choice((2, 3)))).capitalize()
        if name not in names:
            names.append(name)
    types = {name: tuple(DEFINITIONS)[number % 3] for number, name in enumerate(names)}
    unused = iter(names)
    annotated = [_annotated(number, unused, types, chance) for number in range(60)]
    letters = [_annotated(number, unused, types, chance) for number in range(60, 66)]
    glossary = io.StringIO()
    rows = csv.writer(glossary, lineterminator="\n")
    rows.writerow(("Term", "Definition", "Type"))
    for name in sorted(names):
        definition = DEFINITIONS[types[name]].format(chance.choice(KINDS), chance.randrange(1970, 2020))
        rows.writerow((name, definition, types[name]))
    lines = [json.dumps({"id": number, **record, "Comments": []}) for number, record in enumerate(annotated, 1)]
    texts = [json.dumps({"id": f"letter-{number}", "text": letter["text"]}) for number, letter in enumerate(letters, 1)]
    return {
        "export.jsonl": "".join(f"{line}\n" for line in lines),
        "glossary.csv": glossary.getvalue(),
        "letters.jsonl": "".join(f"{line}\n" for line in texts),
    }


def _annotated(number: int, unused: object, types: dict[str, str], chance: random.Random) -> dict[str, object]:
    """A sentence with its annotation as doccano exports it; every seventh one has no name."""
    if number % 7 == 6:
        return {"text": chance.choice(NONE), "label": []}
    name = next(unused)  # type: ignore[call-overload]
    sentence = chance.choice(TOLD[types[name]] if number % 2 else UNTOLD)
    start = sentence.index("{")
    return {"text": sentence.format(name), "label": [[start, start + len(name), types[name]]]}


if __name__ == "__main__":
    main()
