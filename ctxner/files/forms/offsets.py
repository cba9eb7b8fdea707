"""Checking offsets against the text that an annotation tool wrote beside them."""

from __future__ import annotations

import re
from typing import Any

from ctxner.files.forms.form import Reading

_BLANK = re.compile(r"(?:\s|\\n)+")  # Label Studio writes a line break as backslash and n


def placed(text: str, entity: dict[str, Any], covered: Any, where: str, reading: Reading) -> dict[str, Any]:
    """The entity with offsets at which the text is `covered`; unchanged if `covered` is no string.

    Tools that run in a browser count characters beyond U+FFFF twice (UTF-16), as Label Studio did (its issue 1347).
    Where the offsets fit only when counted so, they are converted, and this is counted.

    Args:
        text: Text of the record.
        entity: `start`, `end` and `type`.
        covered: The tool's copy of the annotated text; blanks are not compared.
        where: Place of the record in errors.
        reading: Has the counters.

    Raises:
        ValueError: The copy stands at neither place.
    """
    start, end = entity["start"], entity["end"]
    if not isinstance(covered, str) or type(start) is not int or type(end) is not int or not 0 <= start < end:
        return entity  # out of range is refused later, with the other faults of entities
    if _inked(text[start:end]) == _inked(covered):
        return entity
    units = text.encode("utf-16-le", "surrogatepass")
    before, inside = (units[2 * a : 2 * b].decode("utf-16-le", "replace") for a, b in ((0, start), (start, end)))
    if _inked(inside) == _inked(covered):
        reading.counts.remark("offsets in UTF-16 units, converted to characters", where)
        return {**entity, "start": len(before), "end": len(before) + len(inside)}
    raise ValueError(
        f"{where}: the text from {start} to {end} is {text[start:end]!r:.80}, but {covered!r:.80} was annotated there; "
        "export the data again, or mend the offsets"
    )


def _inked(text: str) -> str:
    return _BLANK.sub("", text)
