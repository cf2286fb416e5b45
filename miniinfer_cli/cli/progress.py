"""How far a command is, drawn on a terminal (standard error) and nowhere else."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from miniinfer_cli.visible import visible

_REDRAW_S = 0.25  # seconds between two drawings of a bar


@dataclass(frozen=True, slots=True)
class Extent:
    """What ends a stage: so many of what is counted and so many seconds, both; 0 for what does not count."""

    count: int = 0
    seconds: float = 0.0

    def part(self, done: int, elapsed_s: float) -> float | None:
        """How much of the stage is over, from 0 to 1; None when nothing is known of its end."""
        parts = [done / self.count] if self.count else []
        parts += [elapsed_s / self.seconds] if self.seconds else []
        return min(1.0, *parts) if parts else None


@contextmanager
def drawn_bar(extents: Mapping[str, Extent]) -> Iterator[Callable[[str, int], None]]:
    """Gives a function to call with a stage (a key of ``extents``) and the number done in it. A stage begins when it is named."""
    from rich.console import Console  # late: start-up time of piped runs
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[done]}"))
    # What is measured must not pay for being watched: no thread that draws, and no drawing but at these intervals.
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=None, done="")
        current, begun, drawn = "", 0.0, 0.0

        def show(stage: str, done: int) -> None:
            nonlocal current, begun, drawn
            now = time.monotonic()
            if stage != current:
                current, begun, drawn = stage, now, 0.0
                bar.reset(task, description=stage)
            if now - drawn >= _REDRAW_S:
                part = extents[stage].part(done, now - begun)
                bar.update(task, total=None if part is None else 1.0, completed=part or 0.0, done=done, refresh=True)
                drawn = now

        yield show


@contextmanager
def drawn_stages() -> Iterator[Callable[[str], None]]:
    """Gives a function to call with the name of each stage as it begins; a spinner stands beside it."""
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield lambda stage: status.update(stage)


@contextmanager
def drawn_share() -> Iterator[Callable[[str, float], None]]:
    """Gives a function to call with what is being done, and how much of all is done, from 0 to 1; shows the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    told = TextColumn("{task.description}", markup=False)  # names of nodes may hold brackets
    columns = (told, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # As above: what is timed must not pay for a thread that draws.
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, part: bar.update(task, description=visible(what), completed=part, refresh=True)


def is_watched() -> bool:
    """True when there is a terminal to draw on."""
    return sys.stderr.isatty()
