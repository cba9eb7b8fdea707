"""Bounds of RDF in XML, checked before rdflib sees it: a text costs rdflib time that grows with its length squared."""

from __future__ import annotations

from typing import BinaryIO
from xml.parsers import expat

_MAX_LENGTH = 1 << 18  # characters of one text, and of one literal that is XML itself; definitions have a few thousand
_TAGS_LENGTH = 100  # about, of an element in such a literal, where rdflib repeats the namespaces
_MAX_ENTITY_LENGTH = 1000  # characters; ontologies abbreviate IRIs by entities
_MAX_DEPTH = 100  # elements inside each other; as a tree of nested classes, not of resources that name each other


class UnboundedXMLError(ValueError):
    """A file in which an entity or a text is beyond the bounds; the message has file:line."""


class BoundedXML:
    """A stream of XML whose parts are checked when they are read.

    Args:
        stream: The decompressed file.
        name: Name of the file in errors.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._length = self._depth = self._literal_depth = 0
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.EntityDeclHandler = self._entity
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._add

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            UnboundedXMLError: An entity that is long, external or made of others, a text that is too long, or elements
                nested too deep.
        """
        content = self._stream.read(size)
        try:
            self._parser.Parse(content, not content)
        except expat.ExpatError:
            self._parser = expat.ParserCreate()  # rdflib says what is wrong; it reads no further
        return content

    def close(self) -> None:
        """Do nothing; who opened the file closes it."""

    def _entity(self, name: str, is_parameter: bool, value: str | None, *_: str | None) -> None:
        if value is None:
            raise self._fault(f"entity {name!r} is in another file")
        if is_parameter or "&" in value or "%" in value or len(value) > _MAX_ENTITY_LENGTH:
            raise self._fault(f"entity {name!r} is made of others or has more than {_MAX_ENTITY_LENGTH:,} characters")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._fault(f"elements nested deeper than {_MAX_DEPTH}")
        if self._literal_depth:
            self._add_length(_TAGS_LENGTH + sum(map(len, (tag, *attributes, *attributes.values()))))
            return
        self._length = 0
        if any(key.endswith("parseType") and value == "Literal" for key, value in attributes.items()):
            self._literal_depth = self._depth

    def _end(self, tag: str) -> None:
        if self._depth == self._literal_depth:
            self._literal_depth = 0
        self._depth -= 1
        self._length = self._length if self._literal_depth else 0

    def _add(self, text: str) -> None:
        self._add_length(len(text))

    def _add_length(self, length: int) -> None:
        self._length += length
        if self._length > _MAX_LENGTH:
            raise self._fault(f"a text of more than {_MAX_LENGTH:,} characters")

    def _fault(self, what: str) -> UnboundedXMLError:
        line_no = self._parser.CurrentLineNumber
        return UnboundedXMLError(f"{self._name}:{line_no}: {what}; write it as Turtle (.ttl) or JSON lines")
