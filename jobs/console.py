"""What all commands share at the terminal: one Rich console on stderr, progress, and stdout kept for results.

A result is shown as one summary, `show`, and in tables, `show_table`: with colours in a terminal, as plain text in a
file or in `ray job logs`. Neither breaks a word, so that paths and commands can be copied.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

console = Console(stderr=True)
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # commands to a terminal too
_NO_LINES = ("scores", "texts", "next")
LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal


@contextmanager
def results() -> Iterator[Callable[[str], None]]:
    """Keep stdout for the result: whatever else writes there meanwhile (Ray, DeepSpeed, Java) goes to stderr."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with _native_messages_aside():
            yield lambda text: _write_all(saved, text + "\n")
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


@contextmanager
def _native_messages_aside() -> Iterator[None]:
    """Let only Python write to the terminal: output of native code to file descriptor 2 goes to a file.

    For each actor pool of Ray Data, Ray's C++ core warns that an argument may be lost (ray-project/ray#53727), which
    is not true here. When the command fails, the file is kept and its path is printed.
    """
    if getattr(sys.stderr, "fileno", lambda: None)() != 2:  # already redirected, as under pytest
        yield
        return
    descriptor, path = tempfile.mkstemp(prefix="ctxner-native-", suffix=".log")
    before, terminal = sys.stderr, os.dup(2)
    before.flush()
    sys.stderr = open(terminal, "w", buffering=1, encoding=before.encoding, errors="backslashreplace")  # noqa: SIM115
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield
    except BaseException:
        if os.path.getsize(path):
            console.print(f"what native code said is in {path}", style="dim", highlight=False, soft_wrap=True)
        else:
            os.unlink(path)
        raise
    else:
        os.unlink(path)
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        sys.stderr.close()
        sys.stderr = before


def as_json(value: Any) -> str:
    """A result as one JSON object on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A bar with a count and an ETA; yields a function of the number done so far and, once known, the total.

    Without a terminal, as in `ray job logs`, a plain line is printed every `LINE_SECONDS`, and one at the end.
    """
    if not console.is_terminal:
        lines = Lines(description, total)
        yield lines.update
        lines.show()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done, total=total: bar.update(task, completed=done, total=total)


class Lines:
    """Progress as lines of text, where there is no terminal.

    Args:
        description: What is done.
        total: Number of things to do; None: not known yet.
    """

    def __init__(self, description: str, total: int | None) -> None:
        self._description, self._total, self._done = description, total, 0
        self._began = self._said = time.monotonic()

    def update(self, done: int, total: int | None = None) -> None:
        """Count, and print a line if the last one is `LINE_SECONDS` old."""
        self._done, self._total = done, self._total if total is None else total
        if time.monotonic() - self._said >= LINE_SECONDS:
            self.show()

    def show(self) -> None:
        """Print a line: the number done, the time gone, and the time left where it can be told."""
        self._said = time.monotonic()
        seconds, done, total = self._said - self._began, self._done, self._total
        parts = [f"{done:,}" if total is None else f"{done:,} of {total:,}"]
        parts += [f"{timedelta(seconds=round(seconds))} gone"]
        if total is not None and 0 < done < total:
            parts.append(f"{timedelta(seconds=round(seconds / done * (total - done)))} left")
        console.print(f"{self._description}: {', '.join(parts)}", highlight=False, markup=False, soft_wrap=True)


class _LineHandler(logging.Handler):
    """Log records as whole lines with the time, for files and `ray job logs`."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(self.format(record), highlight=False, markup=False, soft_wrap=True)


def set_up_logging() -> None:
    """Log to stderr; libraries log only warnings and errors, and Hugging Face shows no progress bars."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when transformers is imported
    to_terminal = console.is_terminal
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s" if to_terminal else "%(asctime)s %(levelname)s %(message)s",
        handlers=[RichHandler(console=console, show_path=False, show_time=False) if to_terminal else _LineHandler()],
    )
    logging.getLogger("ctxner").setLevel(logging.INFO)
    logging.getLogger("jobs").setLevel(logging.INFO)


def fail(error: BaseException) -> None:
    """Print an error's message without line breaks, so that paths in it can be copied, and its notes."""
    console.print("error:", Text(str(error)), style="red", highlight=False, soft_wrap=True)
    for note in getattr(error, "__notes__", ()):
        console.print(Text(note), highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning on stderr, without line breaks."""
    console.print("warning:", Text(message), style="yellow", highlight=False, soft_wrap=True)


def show(result: Mapping[str, Any]) -> None:
    """Print a result for people, on stdout.

    Args:
        result: `scores` become a table, `texts` are shown with their entities, `next` are commands to go on with, by
            what they are for; every other entry is a line.
    """
    out = Console(highlight=False)
    if isinstance(scores := result.get("scores"), Mapping):
        show_table(_score_table(scores))
    for tagged in result.get("texts", ()):
        _show_tagged(out, tagged)
    lines = {_label(key): printable(in_words(value)) for key, value in result.items() if key not in _NO_LINES}
    width = max(map(len, lines), default=0) + 2
    for name, value in lines.items():
        wrapped = textwrap.wrap(value, max(out.width - width, 20), break_long_words=False, break_on_hyphens=False)
        text = Text.assemble((name.ljust(width), "bold"), f"\n{' ' * width}".join(wrapped or [""]))
        out.print(text, soft_wrap=True)
    commands = result.get("next", {})
    width = max(map(len, commands), default=0) + 2
    for what, command in commands.items():
        out.print(Text(printable(f"{what + ':':{width}}{command}")), soft_wrap=True)


def _label(key: str) -> str:
    """The name of a line; names with paths in them stay as they are."""
    return printable(key.removeprefix("num_").replace("_", " ") if key.isidentifier() else key)


def show_table(*tables: Table) -> None:
    """Print tables on stdout, with whole words and an empty line after each."""
    out = Console(highlight=False)
    for table in tables:
        out.print(whole_words(table), crop=False)
        out.print()


def whole_words(table: Table) -> Table:
    """The table, with columns that break no word; print it with `crop=False`, as it may be wider than the terminal."""
    for column in table.columns:
        cells = [str(cell) for cell in (column.header, *column.cells) if isinstance(cell, (str, Text))]
        words = [word for cell in cells for word in cell.split()]
        column.min_width = max(map(cell_len, words), default=0)
    return table


def printable(text: str) -> str:
    """The text without control characters, which could be commands to a terminal."""
    return _UNSHOWN.sub("\ufffd", text)


def in_words(value: Any) -> str:
    """A value of a result as a person writes it: `train 12, dev 4` for a mapping, `none` for nothing."""
    if value is None or (isinstance(value, (list, tuple, Mapping)) and not value):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return _joined(f"{name} {in_words(part)}" for name, part in value.items())
    return _joined(map(in_words, value)) if isinstance(value, (list, tuple)) else str(value)


def size(num_bytes: int) -> str:
    """Bytes in the unit that leaves one to four digits before the point."""
    value, unit = float(num_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(f"({part})" if ", " in part else part for part in parts)


def _show_tagged(out: Console, tagged: Mapping[str, Any]) -> None:
    """Print a text, its entities and the passages that were read beside it."""
    text = Text(printable(tagged["text"]))
    for entity in tagged["entities"]:
        text.stylize("bold reverse", entity["start"], entity["end"])
    out.print(text)
    for entity in tagged["entities"]:
        out.print(Text(printable(f"  {entity['text']} = {entity['type']} ({entity['confidence']:.2f})")))
    for passage in tagged["passages"]:
        out.print(Text(printable(f"  read {passage['id']}: {passage['text']}"), style="dim"))


def score_percent(score: Mapping[str, Any], name: str) -> str:
    """Precision, recall or F1 of a score in percent with one decimal; `none` where it is a share of nothing."""
    parts = {"precision": ("num_predicted",), "recall": ("num_gold",), "f1": ("num_predicted", "num_gold")}[name]
    return f"{100 * score[name]:.1f}" if any(score.get(part) for part in parts) else "none"


def _score_table(scores: Mapping[str, Any]) -> Table:
    """Views as columns of precision, recall and F1 in percent, entity types as rows."""
    names = ("type", *(f"{view} {name}" for view in scores for name in ("P", "R", "F1")), "gold")
    table = Table(*names, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    types = dict.fromkeys(type for view in scores.values() for type in view["per_type"])
    for name in ("all", *types):
        rows = [view["micro"] if name == "all" else view["per_type"].get(name, {}) for view in scores.values()]
        cells = [score_percent(row, part) for row in rows for part in ("precision", "recall", "f1")]
        table.add_row(name, *cells, str(rows[0].get("num_gold", 0)), style="bold" if name == "all" else "")
    return table


def _write_all(descriptor: int, text: str) -> None:
    rest = text.encode("utf-8", "replace")
    while rest:
        rest = rest[os.write(descriptor, rest) :]
