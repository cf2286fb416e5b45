"""The plans of a server by name and version, each of which can be taken again from its file while it serves."""

from collections.abc import Callable, Sequence
from pathlib import Path

from miniinfer_cli.errors import UsageError
from miniinfer_cli.server.contract import Plans
from miniinfer_cli.server.figures import BatchTotals, Figures
from miniinfer_cli.server.plans import OpenPlan
from miniinfer_cli.server.settings import PlanOptions
from miniinfer_cli.server.sources import Source


class ServedPlan:
    """A plan that is served under a name and a version, whatever is in its file meanwhile.

    ``current`` answers requests. ``figures``: of all that was answered under this name.
    """

    def __init__(self, source: Source, options: PlanOptions) -> None:
        self.source = source
        self.figures = Figures()
        self._options = options
        self._opened_from = self._state()
        self.current = OpenPlan(source.path if source.held is None else source.held, options)
        self._leaving: list[OpenPlan] = []

    @property
    def name(self) -> str:
        """What clients call it."""
        return self.source.name

    @property
    def version(self) -> str:
        """The version, a whole number as text."""
        return self.source.version

    def is_stale(self) -> bool:
        """True where the file is another one by now, and is there."""
        state = self._state()
        return state is not None and state != self._opened_from

    def open_again(self) -> OpenPlan:
        """Opens and warms up what is in the file now. It takes long; ``swap`` puts it in place."""
        self._opened_from = self._state()  # before it is read: what comes meanwhile is taken the next time
        return OpenPlan(self.source.path, self._options)

    def _state(self) -> tuple[int, int, int] | None:
        return None if self.source.held is not None else _state_of(self.source.path)

    def swap(self, opened: OpenPlan) -> OpenPlan:
        """Puts ``opened`` in place, and gives what was there, whose requests end on it: to be closed, then ``retire``d."""
        before, self.current = self.current, opened
        self._leaving.append(before)
        return before

    def retire(self, closed: OpenPlan) -> None:
        """What ``swap`` gave is closed: its figures count on."""
        self._leaving.remove(closed)
        self.figures.retire(closed.stats())

    def totals(self) -> BatchTotals:
        """Batches, rows and seconds, of all that were in place so far."""
        return self.figures.totals([p.stats() for p in (self.current, *self._leaving)])


class Repository(Plans[ServedPlan]):
    """All plans that are served. Raises UsageError where two have one name and version; closes all when one does not open."""

    def __init__(
        self, sources: Sequence[Source], options: PlanOptions, told: Callable[[ServedPlan], None] = lambda _: None
    ) -> None:
        super().__init__()
        for source in sources:
            if sum(s.name == source.name and s.version == source.version for s in sources) > 1:
                hint = "give each a name, or a version, of its own: NAME=PLAN, NAME:2=PLAN"
                raise UsageError(f"two plans are called {source.name}, version {source.version}", hint=hint)
        try:
            for source in sources:
                served = ServedPlan(source, options)
                self.add(served)
                told(served)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Computes what waits, and lets all go."""
        for served in self:
            served.current.close()


def _state_of(path: Path) -> tuple[int, int, int] | None:
    """What tells one file from another at the same path; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
