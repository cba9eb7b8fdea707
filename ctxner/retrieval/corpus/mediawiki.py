"""Streaming MediaWiki's XML dumps (Wikipedia's pages-articles) page by page, in constant memory.

The parser, expat, refuses document types, so that a file cannot define entities. `ctxner.retrieval.corpus.wikitext`
turns the markup of a page into plain text, `ctxner.retrieval.corpus.redirects` turns redirects into aliases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from xml.parsers import expat

from ctxner.files.words import split_sentences
from ctxner.retrieval.corpus.wikitext import paragraphs
from ctxner.retrieval.text import clean_text

_CHUNK_BYTES = 1 << 20
_MAX_DEPTH = 32  # elements inside each other; a dump has 5
_MAX_PAGE_LENGTH = 1 << 24  # characters of one field; Wikipedia's own limit for a page is 2 MiB
_MEDIA_NAMESPACES = ("-2", "6", "14")  # Media, File, Category: links to them are not text
_MAX_TOKEN_BYTES = 1 << 26  # most that expat may buffer of a tag or comment that does not end
_PAGE_FIELDS = ("title", "ns", "id")
_TEXT_FIELDS = ("model", "text")
_IS_REDIRECT = "#redirect"
_MAX_REDIRECT_LENGTH = 1000  # characters, beyond those that a wiki allows for a title (255)
_REDIRECT = re.compile(r"#redirect\s*:?\s*\[\[\s*:?([^\[\]|#]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the main namespace that is not a redirect.

    Attributes:
        id: Page number in the wiki.
        title: Title as the wiki shows it.
        markup: Wikitext.
        dropped_links: Lower-case namespaces (in the wiki's language) whose links are not text.
    """

    id: str
    title: str
    markup: str
    dropped_links: frozenset[str]

    def passages(self, *, by_sentence: bool = False) -> Iterator[str]:
        """The page's paragraphs, or their sentences, as plain text."""
        for paragraph in paragraphs(clean_text(self.markup), self.dropped_links):
            if not by_sentence:
                yield paragraph
                continue
            for start, end in split_sentences(paragraph):
                yield paragraph[start:end]


@dataclass(frozen=True, slots=True)
class Redirect:
    """A page of the main namespace that only points to another one.

    Attributes:
        title: Title of the redirect.
        target: Title of the page that it points to, without a section.
    """

    title: str
    target: str


def read_pages(stream: BinaryIO, name: str) -> Iterator[Page | Redirect]:
    """The articles and redirects of a dump, in order; other namespaces and other content than wikitext are left out.

    Args:
        stream: The decompressed dump.
        name: Name of the file in errors.

    Raises:
        ValueError: XML that is malformed, cut short or not a MediaWiki dump, a document type (which could define
            entities), elements nested too deep, or a field that is too long; with the line.
    """
    dump = _Dump(name)
    while chunk := stream.read(_CHUNK_BYTES):
        yield from dump.feed(chunk)
    yield from dump.feed(b"", is_last=True)


@dataclass
class _Dump:
    """The parser, and the page that it is reading."""

    name: str
    pages: list[Page | Redirect] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    target: str | None = None  # of the page, when it is a redirect
    text: list[str] | None = None  # characters of the element being read, when it is one of interest
    text_length: int = 0
    num_bytes: int = 0
    namespace_key: str = ""
    dropped_links: set[str] = field(default_factory=lambda: {"file", "image", "media", "category"})

    def __post_init__(self) -> None:
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._doctype

    def feed(self, chunk: bytes, *, is_last: bool = False) -> list[Page | Redirect]:
        """Pages that ended in this chunk."""
        try:
            self.parser.Parse(chunk, is_last)
        except expat.ExpatError as error:
            raise self._fault(f"not valid XML ({error}); is the dump whole?") from error
        self.num_bytes += len(chunk)
        if self.num_bytes - self.parser.CurrentByteIndex > _MAX_TOKEN_BYTES:
            raise self._fault(f"a tag or comment is longer than {_MAX_TOKEN_BYTES} bytes")
        pages, self.pages = self.pages, []
        return pages

    def _start(self, tag: str, attributes: dict[str, Any]) -> None:
        tag = tag.rpartition(":")[2]
        if not self.path and tag != "mediawiki":
            raise self._fault(f"the root element is <{tag}>, wanted <mediawiki>: not a MediaWiki dump")
        self.path.append(tag)
        if len(self.path) > _MAX_DEPTH:
            raise self._fault(f"elements nested deeper than {_MAX_DEPTH}; a dump has 5 levels")
        parent = self.path[-2] if len(self.path) > 1 else ""
        if tag == "page":
            self.fields, self.target = {}, None
        elif tag == "redirect" and parent == "page":
            self.target = attributes.get("title", "")
        elif tag == "namespace":
            self.namespace_key = attributes.get("key", "")
            self.text = []
        elif (parent == "page" and tag in _PAGE_FIELDS) or (parent == "revision" and tag in _TEXT_FIELDS):
            self.text = []
        self.text_length = 0

    def _characters(self, text: str) -> None:
        if self.text is None:
            return
        self.text.append(text)
        self.text_length += len(text)
        if self.text_length > _MAX_PAGE_LENGTH:
            raise self._fault(f"<{self.path[-1]}> is longer than {_MAX_PAGE_LENGTH} characters")

    def _end(self, tag: str) -> None:
        tag = self.path.pop()
        if self.text is not None:
            content = "".join(self.text)
            self.text = None
            if tag != "namespace":
                self.fields[tag] = content
            elif self.namespace_key in _MEDIA_NAMESPACES and content:
                self.dropped_links.add(content.strip().lower())
        elif tag == "page":
            self._finish_page()

    def _finish_page(self) -> None:
        fields = {name: value.strip() for name, value in self.fields.items()}
        markup = fields.get("text", "")
        is_article = fields.get("ns", "0") == "0" and fields.get("model", "wikitext") == "wikitext"
        if not is_article:
            return
        title = clean_text(fields.get("title", ""))
        if self.target is not None or markup[: len(_IS_REDIRECT)].lower() == _IS_REDIRECT:
            if target := _target(self.target, markup):
                self.pages.append(Redirect(title, target))
            return
        if not fields.get("id", "").isdecimal():
            raise self._fault(f"page {title!r} has no number in <id>")
        self.pages.append(Page(fields["id"], title, markup, frozenset(self.dropped_links)))

    def _doctype(self, *_: object) -> None:
        raise self._fault("declares a document type, which a MediaWiki dump never does (it may define entities)")

    def _fault(self, message: str) -> ValueError:
        return ValueError(f"{self.name}:{self.parser.CurrentLineNumber}: {message}")


def _target(attribute: str | None, markup: str) -> str:
    """Title that a redirect points to, as pages have it; empty when it names none.

    Args:
        attribute: The title in `<redirect title="...">`; old dumps have none.
        markup: Wikitext of the redirect: `#REDIRECT [[title#section]]`.
    """
    if attribute:
        return clean_text(attribute.partition("#")[0]).strip()
    match = _REDIRECT.match(markup[:_MAX_REDIRECT_LENGTH])
    target = " ".join(clean_text(match[1]).replace("_", " ").split()) if match else ""
    return target[:1].upper() + target[1:]
