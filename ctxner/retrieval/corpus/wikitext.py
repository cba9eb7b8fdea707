"""Wikitext -> plain paragraphs, in time linear in the text.

Templates, tables, references, comments, files, categories and headings are removed; of links, list items and emphasis
the text stays. Templates are not expanded, so text that only they would print is lost.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_ELEMENT = re.compile(  # elements whose content is not prose
    r"<(/?)(ref|references|math|chem|gallery|timeline|score|syntaxhighlight|source|templatestyles|imagemap|graph|hiero"
    r"|mapframe|maplink|table|style)\b[^<>]*>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<(/?[a-zA-Z][^<>]*)>")
_BRACES = re.compile(r"\{\{|\}\}|^[ \t:]*\{\||^[ \t]*\|\}(?!\})", re.MULTILINE)
_BRACKETS = re.compile(r"\[\[|\]\]")
_EXTERNAL_LINK = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^\s\[\]]*(?:\s([^\[\]]*))?\]")
_EMPHASIS = re.compile(r"'{2,5}")
_SWITCH = re.compile(r"__[A-Z]+__")
_EMPTY_PARENTHESES = re.compile(r"[ \t]?\([\s,;:]*\)")
_SPACE = re.compile(r"\s+")
_LIST_MARKS = "*#:; \t"
_MAX_NESTING = 64  # links and templates inside each other; deeper marks are taken as text


def paragraphs(markup: str, dropped_links: frozenset[str] = frozenset({"file", "image", "category"})) -> Iterator[str]:
    """The paragraphs of a page that have a letter or digit, each on one line.

    Lines join into a paragraph until a blank line or a heading; a list item is a paragraph of its own.

    Args:
        markup: Wikitext.
        dropped_links: Lower-case namespaces whose links are left out, text and all.
    """
    text = _COMMENT.sub("", markup)
    text = _without_elements(text)
    text = _without_braces(text)
    text = _with_link_texts(text, dropped_links)
    text = _EXTERNAL_LINK.sub(lambda match: match[1] or "", text)
    text = _TAG.sub(lambda match: "\n" if match[1].rstrip("/ ").lower() in ("br", "p", "/p", "li") else "", text)
    text = _SWITCH.sub("", _EMPHASIS.sub("", html.unescape(text)))
    text = _EMPTY_PARENTHESES.sub("", text)
    lines: list[str] = []
    for line in [*text.split("\n"), ""]:
        stripped = line.strip()
        is_heading = len(stripped) > 2 and stripped[0] == stripped[-1] == "="
        is_item = line[:1] in ("*", "#", ":", ";")
        if (not stripped or is_heading or is_item) and lines:
            yield from _paragraph(lines)
            lines = []
        if is_item:
            yield from _paragraph([line.lstrip(_LIST_MARKS)])
        elif stripped and not is_heading and stripped[0] != "|":  # what is left of a broken table
            lines.append(stripped)


def _paragraph(lines: list[str]) -> Iterator[str]:
    text = _SPACE.sub(" ", " ".join(lines)).strip()
    if any(character.isalnum() for character in text):
        yield text


def _without_elements(text: str) -> str:
    """Remove elements whose content is not prose; of an element that never ends, remove only the tag."""
    prose: list[str] = []
    end = 0
    opened: re.Match[str] | None = None
    for tag in _ELEMENT.finditer(text):
        if opened is None and not tag[1]:
            if tag[0].endswith("/>"):
                prose.append(text[end : tag.start()])
                end = tag.end()
            else:
                opened = tag
        elif opened is not None and tag[1] and tag[2].lower() == opened[2].lower():
            prose.append(text[end : opened.start()])
            opened, end = None, tag.end()
    return "".join([*prose, text[end:]])


def _without_braces(text: str) -> str:
    """Remove templates and tables with their content; a brace without its partner stays."""
    cuts: list[tuple[int, int]] = []
    opened: list[tuple[str, int]] = []
    for match in _BRACES.finditer(text):
        mark = match[0].strip(" \t:")
        if mark in ("{{", "{|"):
            opened.append((mark, match.start()))
            continue
        partner = "{{" if mark == "}}" else "{|"
        if not any(mark == partner for mark, _ in opened[-_MAX_NESTING:]):
            continue
        while opened:
            mark, start = opened.pop()
            if mark == partner:
                break
        while cuts and cuts[-1][0] >= start:
            cuts.pop()
        cuts.append((start, match.end()))
    prose, end = list[str](), 0
    for start, stop in cuts:
        prose.append(text[end:start])
        end = stop
    return "".join([*prose, text[end:]])


def _with_link_texts(text: str, dropped_links: frozenset[str]) -> str:
    """Put the text that a reader sees in place of each link, the innermost first."""
    open_parts: list[list[str]] = [[]]
    end = 0
    for match in _BRACKETS.finditer(text):
        open_parts[-1].append(text[end : match.start()])
        end = match.end()
        if match[0] == "[[" and len(open_parts) <= _MAX_NESTING:
            open_parts.append([])
        elif match[0] == "]]" and len(open_parts) > 1:
            link = "".join(open_parts.pop())
            open_parts[-1].append(_link_text(link, dropped_links))
    open_parts[-1].append(text[end:])
    return "".join("".join(parts) for parts in open_parts)


def _link_text(link: str, dropped_links: frozenset[str]) -> str:
    target, bar, shown = link.partition("|")
    namespace, colon, _ = target.partition(":")
    if colon and namespace.strip().lower() in dropped_links:
        return ""
    return shown if bar else target.lstrip(":")
