"""What the context view shows of a passage: text, title, aliases, and the type of what an entry is about."""

from __future__ import annotations

import re

from ctxner.schema import Passage

_SHOWN_ALIASES = 4
_DEFINITION = re.compile(r"(?:,|\b(?:is|was|are|were)) (?:an?|the|one of the) ((?:[\w-]+ ?){1,4})")
_DEFINITION_CHARS = 120  # behind the title, within which a definition is looked for
_AFTER_TYPE = re.compile(r"\b(?:in|on|at|of|by|for|from|with|who|that|which|whose|where|named|called|located|based)\b")


def entry_type(passage: Passage) -> str:
    """Kind of thing that an entry is about: its type, else what an English definition in its text calls it.

    "Velmora is a coastal town in the south" is about a `coastal town`, and so is "they met in Velmora, a coastal town".
    At most four words are taken, up to the first preposition.
    """
    if passage.type or not passage.title:
        return passage.type
    _, _, behind = passage.text.partition(passage.title)
    definition = _DEFINITION.search((behind or passage.text)[:_DEFINITION_CHARS])
    return _AFTER_TYPE.split(definition[1])[0].strip() if definition else ""


def shown_text(passage: Passage) -> str:
    """What the context view shows of a passage: its text; of an entry also its title, type and aliases."""
    if not passage.title:
        return passage.text
    begins = passage.text.casefold().startswith(passage.title.casefold())
    also = [passage.type] if passage.type else []
    also += [f"also {', '.join(passage.aliases[:_SHOWN_ALIASES])}"] if passage.aliases else []
    about = f" ({'; '.join(also)})" if also else ""
    if begins:
        return f"{passage.text[: len(passage.title)]}{about}{passage.text[len(passage.title) :]}"
    return f"{passage.title}{about}: {passage.text}" if passage.text else f"{passage.title}{about}"
