"""Pictures of what was measured: a trace for Perfetto, and a report as one HTML file."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.outputs import Output, opened_for_writing
from miniinfer_cli.cli.report import finite
from miniinfer_cli.report.page import page_of, page_of_two


@dataclass(frozen=True, slots=True)
class Pictures:
    """The files that are wanted, None for those that are not."""

    trace: Path | None
    report: Path | None

    @property
    def need_timeline(self) -> bool:
        """True when a few more inferences are to be recorded."""
        return self.trace is not None or self.report is not None

    def outputs(self) -> Iterator[Output]:
        """The files, to be looked at before any work is done."""
        yield Output("--trace", self.trace, json=True)
        yield Output("--report", self.report)


report_flag = click.option(
    "--report",
    type=flags.PATH,
    metavar="FILE.html",
    help="Write a report with pictures to this file: HTML, whole in itself (docs/report.md).",
)
"""Gives the command ``report``, a file or None."""


def picture_flags(command: flags.Command) -> flags.Command:
    """``--trace`` and ``--report``; gives the command ``pictures``, a Pictures."""

    @functools.wraps(command)
    def with_pictures(*args: Any, trace: Path | None, report: Path | None, **kwargs: Any) -> Any:
        return command(*args, pictures=Pictures(trace, report), **kwargs)

    return flags.together(flags.trace_flag, report_flag)(with_pictures)


def write_report(path: Path, document: Any, other: Any = None) -> None:
    """Writes the report of a document of results; with another, of both beside each other.

    Raises UsageError when it is none, or the file cannot be written, OutOfMemoryError when the disk is full.
    """
    page = page_of(finite(document)) if other is None else page_of_two(finite(document), finite(other))
    with opened_for_writing(path) as file:
        file.write(page.encode("utf-8", "backslashreplace"))  # file names that are not UTF-8
