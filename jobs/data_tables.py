"""What `ctxner data` prints for people: facts, a bar per type, odd things, and examples with their mentions marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Column, Table
from rich.text import Text

from jobs.console import printable, whole_words

MAX_FILES = 6  # files that are shown one by one; of more, only a line each
MAX_TYPES = 30
_MAX_LINES = 50
_WORDS_SHOWN = 40  # of an example, around its mentions
_COLOURS = ("cyan", "magenta", "yellow", "green", "red", "blue")


def show(result: Mapping[str, Any]) -> None:
    """Print the result on stdout."""
    out = Console()
    files = result["files"]
    colours = {type: _COLOURS[number % len(_COLOURS)] for number, type in enumerate(result["mentions"])}
    if len(files) <= MAX_FILES:
        for file in files:
            out.print(*_file(file, colours, marked=out.color_system is None), crop=False)
    else:
        out.print(_types(result["mentions"], colours))
        for file in files:
            out.print(*(Group(Text(file["file"], "bold"), odd) for odd in _odd(file)))
    if len(files) > 1:
        out.print(_overview(result), crop=False)
    for name in ("written", "would_write"):
        if name in result:
            out.print(Text(f"{name.replace('_', ' ')}: {result[name]}"), soft_wrap=True)


def _file(file: Mapping[str, Any], colours: Mapping[str, str], *, marked: bool) -> Iterator[RenderableType]:
    yield Rule(Text(printable(file["file"]), "bold"), align="left", style="dim")
    yield _indented(_facts(file))
    if file["mentions"]:
        yield _indented(_types(file["mentions"], colours))
    yield from map(_indented, _odd(file))
    if file["examples"]:
        yield _indented(Group(*(_example(example, colours, marked=marked) for example in file["examples"])))


def _facts(file: Mapping[str, Any]) -> Table:
    num_sentences, num_tagged = file["sentences"], file["sentences"] - file["untagged"]
    scheme = f", tags {file['scheme']} (data.scheme)" if file["scheme"] else ""
    facts = {
        "read as": f"{file['format']}{scheme}",
        "sentences": f"{num_sentences:,}" + (f", of {file['documents']:,} documents" if file["documents"] else ""),
        "words": f"{file['words']:,}, {file['words'] / num_sentences:.1f} per sentence",
        "mentions": f"{sum(file['mentions'].values()):,} of {len(file['mentions']):,} types"
        if num_tagged
        else "no gold",
        "without mentions": _share(file["without_mentions"], num_tagged),
        "without gold": _share(file["untagged"], num_sentences) if file["untagged"] else None,
        "repeated": _share(file["repeated"], num_sentences) if file["repeated"] else "none",
        "longest": f"{file['longest']['words']:,} words: {file['longest']['id']}, {file['longest']['begins']} …",
    }
    table = Table(Column(style="dim"), Column(), box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        if value is not None:
            table.add_row(name, Text(printable(value)))
    return whole_words(table)


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} sentences ({count / total:.1%})" if total else "none"


def _types(mentions: Mapping[str, int], colours: Mapping[str, str]) -> Table:
    """A line per type with its count and a bar."""
    table = Table(Column(max_width=32), Column(justify="right"), Column(), box=None, show_header=False, pad_edge=False)
    most = max(mentions.values(), default=1)
    for type, count in list(mentions.items())[:MAX_TYPES]:
        table.add_row(Text(printable(type), "bold"), f"{count:,}", Bar(most, 0, count, width=40, color=colours[type]))
    if len(mentions) > MAX_TYPES:
        table.add_row(Text(f"and {len(mentions) - MAX_TYPES:,} further types", "dim"), "", "")
    return table


def _odd(file: Mapping[str, Any]) -> Iterator[RenderableType]:
    if file["odd"]:
        yield Group(*(_odd_line(odd) for odd in file["odd"]))


def _odd_line(odd: Mapping[str, Any]) -> Text:
    line = Text.assemble(("odd ", "yellow"), f"{odd['count']:,} × ", printable(odd["what"]))
    return line.append(f", first {printable(', '.join(odd['places']))}", "dim") if odd["places"] else line


def _example(example: Mapping[str, Any], colours: Mapping[str, str], *, marked: bool) -> Text:
    """A sentence with its mentions in colour, or in brackets where there is no colour."""
    mentions, words = example["mentions"], list(map(printable, example["words"]))
    first = max(0, min(mentions[0]["start"] - 8, len(words) - _WORDS_SHOWN))
    last, text = min(len(words), first + _WORDS_SHOWN), Text.assemble(("… " if first else "• ", "dim"))
    place = first
    for mention in mentions:
        if mention["end"] > last:
            break
        text.append("".join(f"{word} " for word in words[place : mention["start"]]))
        covered, type = " ".join(words[mention["start"] : mention["end"]]), printable(mention["type"])
        if marked:
            text.append(f"[{covered} = {type}] ")
        else:
            text.append(f" {covered} ", f"black on bright_{colours[mention['type']]}")
            text.append(f" {type} ", f"bold {colours[mention['type']]}")
        place = mention["end"]
    text.append(" ".join(words[place:last]))
    return text.append(" …", "dim") if last < len(words) else text


def _overview(result: Mapping[str, Any]) -> Table:
    """A line per file, and their sums."""
    table = Table(
        Column("file"),
        *(Column(name, justify="right") for name in ("sentences", "words", "mentions", "types", "repeated")),
        box=box.SIMPLE_HEAD,
        title="all files",
        title_justify="left",
    )
    for file in result["files"][:_MAX_LINES]:
        counts = (
            file["sentences"],
            file["words"],
            sum(file["mentions"].values()),
            len(file["mentions"]),
            file["repeated"],
        )
        table.add_row(Text(printable(file["file"])), *(f"{count:,}" for count in counts))
    if len(result["files"]) > _MAX_LINES:
        table.add_row(f"and {len(result['files']) - _MAX_LINES:,} further files")
    sums = (result["sentences"], result["words"], sum(result["mentions"].values()), len(result["mentions"]))
    table.add_section()
    table.add_row("together", *(f"{count:,}" for count in sums), "", style="bold")
    return whole_words(table)


def _indented(content: RenderableType) -> Padding:
    return Padding(content, (0, 0, 1, 2))
