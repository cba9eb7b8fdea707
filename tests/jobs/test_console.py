"""What commands print where there is no terminal, as in `ray job logs`: whole lines, and not too many."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from jobs import console as terminal


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    file = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=file, width=80))
    return file


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_progress_is_a_line_every_half_minute_with_the_time_left(written: io.StringIO, clock: list[float]) -> None:
    with terminal.progress("tagging", 1000) as done:
        for second in range(0, 65, 5):
            clock[0] = float(second)
            done(10 * second)
    assert written.getvalue().splitlines() == [
        "tagging: 300 of 1,000, 0:00:30 gone, 0:01:10 left",
        "tagging: 600 of 1,000, 0:01:00 gone, 0:00:40 left",
        "tagging: 600 of 1,000, 0:01:00 gone, 0:00:40 left",
    ]


def test_the_total_may_come_late_or_never(written: io.StringIO, clock: list[float]) -> None:
    with terminal.progress("staging", None) as done:
        done(7)
    with terminal.progress("retrieving", None) as done:
        done(7, 7)
    assert written.getvalue().splitlines() == ["staging: 7, 0:00:00 gone", "retrieving: 7 of 7, 0:00:00 gone"]


def test_a_log_record_is_one_line_without_control_characters(written: io.StringIO) -> None:
    handler = terminal._LineHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    message = f"[red]{'a long path/' * 20}[/]"
    handler.handle(logging.LogRecord("x", logging.INFO, "file", 1, message, None, None))
    assert written.getvalue() == f"INFO {message}\n"


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (120 * 2**30, "120 GiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_bytes_have_a_unit_that_leaves_few_digits(num_bytes: int, text: str) -> None:
    assert terminal.size(num_bytes) == text
