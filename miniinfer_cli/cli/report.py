"""What commands print: plain stable lines when piped, tables and a spinner on a terminal; and JSON."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine_format.records import DimensionRange
from miniinfer_cli.cli.outputs import opened_for_writing
from miniinfer_cli.cli.progress import Extent, drawn_bar, drawn_share, drawn_stages, is_watched
from miniinfer_cli.measuring.metrics import Distribution, Summary
from miniinfer_cli.visible import visible, visible_json


def describe_ranges(ranges: Sequence[DimensionRange]) -> dict[str, dict[str, int | None]]:
    """The sizes that dimensions may have, by name, as JSON has them; ``max`` is None where there is no largest."""
    return {r.name: {"min": r.minimum, "opt": r.optimum, "max": r.largest} for r in ranges}


class Printer:
    """Prints to standard output; says nothing with ``quiet``. On a terminal, tables and progress are drawn by rich."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.on_terminal = sys.stdout.isatty()

    def line(self, text: str = "") -> None:
        """One line of text. Names in it come out of files, so it is shown ``visible``."""
        if not self.quiet:
            print(visible(text))

    def lines(self, text: str) -> None:
        """Several lines."""
        for line in text.split("\n"):
            self.line(line)

    def section(self, title: str) -> None:
        """A heading."""
        self.line(f"=== {title} ===")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; columns whose cells are all numbers are aligned to the right."""
        if self.quiet:
            return
        cells = [[visible(_cell(c, name)) for c, name in zip(row, columns, strict=True)] for row in rows]
        right = [all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(columns))]
        if self.on_terminal:
            _rich_table(columns, cells, right)
            return
        widths = [max(len(columns[i]), *(len(r[i]) for r in cells)) if cells else len(columns[i]) for i in range(len(columns))]
        for row in (list(columns), *cells):
            padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
            print("  ".join(padded).rstrip())

    @contextmanager
    def progress(self, extents: Mapping[str, Extent]) -> Iterator[Callable[[str, int], None]]:
        """Gives a function to call with a stage, a key of ``extents``, and the number done in it; draws a bar on a terminal."""
        if self.quiet or not is_watched():
            yield lambda stage, done: None
            return
        with drawn_bar(extents) as show:
            yield show

    @contextmanager
    def stages(self) -> Iterator[Callable[[str], None]]:
        """Gives a function to call with the name of each stage as it begins; a spinner on a terminal (standard error)."""
        if self.quiet or not is_watched():
            yield lambda stage: None
            return
        with drawn_stages() as show:
            yield show

    @contextmanager
    def share(self) -> Iterator[Callable[[str, float], None]]:
        """Gives a function to call with what is being done, and how much of all is done; a terminal shows the time left."""
        if self.quiet or not is_watched():
            yield lambda what, part: None
            return
        with drawn_share() as show:
            yield show


def print_summary(printer: Printer, summary: Summary) -> None:
    """The rows of the performance summary, one line each."""
    printer.section("Performance summary")
    print_rates(printer, summary)
    printer.line(f"End-to-end latency: {distribution_row(summary.end_to_end)}")
    for name, row in summary.rows.items():
        printer.line(f"{name}: {distribution_row(row)}")
    printer.line(f"Total host walltime: {summary.walltime_s:.3f} s")
    printer.line(f"Total {'GPU ' if summary.rows else ''}compute time: {summary.compute_s:.3f} s")
    printer.line(f"Inferences: {summary.iterations}" + (f" on {summary.streams} streams" if summary.streams > 1 else ""))
    for hint in summary.hints:
        printer.line(f"hint: {hint}")


def print_rates(printer: Printer, summary: Summary) -> None:
    """Throughput and latency, one line each."""
    samples = "" if summary.batch in (None, 0, 1) else f" ({summary.throughput_qps * (summary.batch or 1):.2f} samples/s)"
    printer.line(f"Throughput: {summary.throughput_qps:.2f} qps{samples}")
    printer.line(f"Latency: {distribution_row(summary.latency)}")


def print_state(printer: Printer, state: Mapping[str, Any]) -> None:
    """The state of a GPU in one line; nothing where nothing is known."""
    clock, top = state.get("sm_clock_mhz"), state.get("max_sm_clock_mhz")
    parts = [
        "" if clock is None else f"SM clock {clock}" + (f" of {top} MHz" if top else " MHz"),
        "" if state.get("memory_clock_mhz") is None else f"memory clock {state['memory_clock_mhz']} MHz",
        "" if state.get("temperature_c") is None else f"{state['temperature_c']} C",
        "" if state.get("power_w") is None else f"{state['power_w']:.0f} W",
    ]
    reasons = state.get("throttle_reasons")
    if reasons is not None:
        parts.append(f"slowed down: {', '.join(reasons)}" if reasons else "not slowed down")
    others = state.get("other_processes")
    if others is not None:
        parts.append(f"{len(others)} other processes on it" if others else "no other process on it")
    if any(parts):
        printer.line("GPU: " + ", ".join(p for p in parts if p))


RESULTS_VERSION = 1
"""Of the documents that docs/results.md describes; a key that goes or changes its meaning makes it one more."""


def results_head(kind: str) -> dict[str, Any]:
    """The first keys of a document of measured results."""
    return {"schema_version": RESULTS_VERSION, "kind": kind}


def write_json(target: Path, document: Any) -> None:
    """Writes a document to a file, or to standard output for ``-``. Infinities and NaN, which JSON lacks, become null.

    Raises UsageError when the file cannot be written, OutOfMemoryError when the disk is full.
    """
    ascii_only = str(target) == "-" and (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
    text = visible_json(json.dumps(finite(document), indent=2, ensure_ascii=ascii_only, allow_nan=False)) + "\n"
    if str(target) == "-":
        sys.stdout.write(text)
        return
    with opened_for_writing(target) as file:
        file.write(text.encode("utf-8", "backslashreplace"))  # file names that are not UTF-8


def distribution_row(d: Distribution) -> str:
    """A row of times in one line."""
    figures = [("min", d.minimum), ("max", d.maximum), ("mean", d.mean), ("median", d.median)]
    figures += [(f"percentile({p:g}%)", t) for p, t in d.percentiles]
    return ", ".join(f"{name} = {value:.4f} ms" for name, value in figures)


def finite(value: Any) -> Any:
    """A document with null in the place of infinities and NaN, which JSON lacks; tuples become lists."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {k: finite(v) for k, v in value.items()}
        case list() | tuple():
            return [finite(v) for v in value]
    return value


_DECIMALS = {"%": 1, "median ms": 4, "sum ms": 4}  # of a column; otherwise 3


def _cell(value: Any, column: str) -> str:
    return f"{value:.{_DECIMALS.get(column, 3)}f}" if isinstance(value, float) else str(value)


def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, numeric in zip(columns, right, strict=True):
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(escape(c) for c in row))
    Console().print(table)
