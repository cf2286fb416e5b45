"""A sweep over numbers of streams and batches: which settings to measure, and what comes out. No engine is in it.

The search is a function of what was measured so far, so that one that was cut short goes on where it ended. First comes a coarse
grid, small loads first; then whatever setting promises most beyond the best one (``promise.py``); then, with what is left, the
loads at which the knee may lie; and last the best one and its rivals once more, as long as noise hides which is best. A setting
that fails is a wall: what is at least as large in both numbers is not tried.
"""

import math
from collections.abc import Callable, Sequence

from miniinfer_cli.measuring.promise import Figures
from miniinfer_cli.measuring.sweep_points import Failed, Point, Reading, Setting

MOST_SETTINGS = 512
"""A sweep over more is refused."""
KNEE_GAIN = 0.10
"""From the knee on, nothing measured gives more throughput by this part."""
_FEW = 12  # so many settings are all measured; of more, so many or a quarter
_CLOSE = 2.0  # standard errors of a difference within which two settings are rivals
_STEADY = 0.02  # noise that is assumed until more is known
_SETTLED = 0.02  # part of the throughput: a difference known so well needs no further measurement


class Sweep:
    """What was measured of the settings that ``streams`` and ``batches`` make, and what is to be measured next.

    ``budget_ms``: the p99 that a setting may have; the best one within it is looked for as well. ``all_points``: no setting is
    left out, but for those beyond one that failed.
    """

    def __init__(
        self, streams: Sequence[int], batches: Sequence[int], *, budget_ms: float | None = None, all_points: bool = False
    ) -> None:
        self.streams, self.batches = tuple(sorted(streams)), tuple(sorted(batches))
        self.settings = tuple(Setting(s, b) for s in self.streams for b in self.batches)
        self.budget_ms = budget_ms
        few = min(len(self.settings), max(_FEW, len(self.settings) // 4))
        self.most = len(self.settings) if all_points else few
        """So many settings are measured at most."""
        self.most_again = few
        """So many measurements are repeated at most."""
        self._points: dict[Setting, Point] = {}
        self.failed: dict[Setting, Failed] = {}

    def add(self, setting: Setting, outcome: Reading | Failed) -> None:
        """Notes what came of a measurement."""
        if isinstance(outcome, Failed):
            self.failed[setting] = outcome
        else:
            before = self._points[setting].readings if setting in self._points else ()
            self._points[setting] = Point.of(setting, (*before, outcome))

    @property
    def points(self) -> tuple[Point, ...]:
        """What was measured, smallest settings first; of one that failed after all there is none."""
        return tuple(p for s, p in sorted(self._points.items()) if s not in self.failed)

    def wall(self, setting: Setting) -> Setting | None:
        """The smallest setting that failed and is no larger than this one; None where there is none."""
        return min((f for f in self.failed if setting.holds(f)), default=None, key=lambda f: f.load)

    def next_setting(self) -> Setting | None:
        """The setting to measure now; None when the sweep is over."""
        free = [s for s in self.settings if s not in self._points and self.wall(s) is None]
        used = len(self._points.keys() | self.failed.keys())
        if free and self.most == len(self.settings):
            return free[0]
        coarse = next((s for s in self._coarse() if s not in self._points and self.wall(s) is None), None)
        if coarse is not None:
            return coarse
        chosen = self._promising(free) if free and used < self.most else None
        return chosen or self._unsure()

    @property
    def best(self) -> Point | None:
        """The setting of most throughput; None where none could be measured."""
        return _best(self.points)

    @property
    def best_within_budget(self) -> Point | None:
        """The one of most throughput among those whose p99 keeps to the budget; None without one."""
        return _best(self._within())

    @property
    def knee(self) -> Point | None:
        """The setting of least load from which nothing measured gives ``KNEE_GAIN`` more; of equal loads the one of least p99."""
        best = self.best
        if best is None:
            return None
        enough = [p for p in self.points if best.throughput < p.throughput * (1 + KNEE_GAIN)]
        return min(enough, key=lambda p: (p.setting.load, p.p99_ms))

    def _within(self) -> tuple[Point, ...]:
        return tuple(p for p in self.points if self.budget_ms is not None and p.p99_ms <= self.budget_ms)

    def _coarse(self) -> list[Setting]:
        """A grid of half the settings that may be measured, the lightest first: each axis from end to end, gaps much alike."""
        counts = [min(len(axis), 2) for axis in (self.streams, self.batches)]
        lengths = [len(self.streams), len(self.batches)]
        while True:
            gaps = [(length - 1) / (count - 1) if count > 1 else 0.0 for length, count in zip(lengths, counts, strict=True)]
            widest = gaps.index(max(gaps))
            counts[widest] += 1
            if gaps[widest] <= 1 or math.prod(counts) > self.most // 2:
                counts[widest] -= 1
                break
        streams, batches = (_spread(axis, count) for axis, count in zip((self.streams, self.batches), counts, strict=True))
        return sorted((Setting(s, b) for s in streams for b in batches), key=lambda s: s.load)

    def _promising(self, free: Sequence[Setting]) -> Setting | None:
        """What may be better than the best, first within the budget where there is one; else what may be the knee."""
        if not self.points:
            return min(free, key=lambda s: s.load)
        figures = Figures(self.points, self.noise)
        chosen = None
        if self.budget_ms is not None:
            within = self._within()
            beyond = [p.setting for p in self.points if p not in within]
            left = [s for s in free if not any(s.holds(b) for b in beyond)]  # latency grows with the load
            chosen = figures.most_promising(left, within, tuple(self.failed), self.budget_ms)
        chosen = chosen or figures.most_promising(free, self.points, tuple(self.failed))
        return chosen or self._near_knee(figures, free)

    def _near_knee(self, figures: Figures, free: Sequence[Setting]) -> Setting | None:
        """A lighter setting than the knee so far that may be it: halfway among them."""
        best, knee = self.best, self.knee
        if best is None or knee is None:
            return None
        lighter = [s for s in free if s.load < knee.setting.load]
        able = sorted(figures.able(lighter, best.throughput / (1 + KNEE_GAIN)), key=lambda s: s.load)
        return able[len(able) // 2] if able else None

    @property
    def noise(self) -> float:
        """How far apart measurements of one setting lie: the standard deviation as a part; some, until several are known."""
        squares, freedom = _STEADY**2, 1
        for point in self._points.values():
            squares += sum(math.log(r.throughput / point.throughput) ** 2 for r in point.readings if len(point.readings) > 1)
            freedom += len(point.readings) - 1
        return math.sqrt(squares / freedom)

    def _unsure(self) -> Setting | None:
        """The setting to measure once more: the best, or a rival that may be better in truth; None when it is clear."""
        again = sum(len(p.readings) - 1 for p in self._points.values())
        if again >= self.most_again:
            return None
        noise = self.noise
        for points in (self.points, self._within()):
            lead = _best(points)
            if lead is None or len(self.settings) == 1:
                continue
            if len(lead.readings) == 1:
                return lead.setting
            rivals = [p for p in points if p is not lead and _are_rivals(lead, p, noise)]
            if rivals:
                return min([lead, *rivals], key=lambda p: (len(p.readings), -p.throughput)).setting
        return None


def run_sweep(sweep: Sweep, measure: Callable[[Setting], Reading | Failed]) -> None:
    """Measures settings until the sweep is over; ``measure`` may raise, and what came before is in the sweep."""
    while (setting := sweep.next_setting()) is not None:
        sweep.add(setting, measure(setting))


def _best(points: Sequence[Point]) -> Point | None:
    return max(points, key=lambda p: (p.throughput, -p.setting.load), default=None)


def _spread(axis: Sequence[int], count: int) -> list[int]:
    """So many of an axis, from end to end."""
    if count == 1:
        return [axis[0]]
    return [axis[round(n * (len(axis) - 1) / (count - 1))] for n in range(count)]


def _are_rivals(lead: Point, other: Point, noise: float) -> bool:
    """Whether the other may be better in truth, by more than does not matter."""
    error = noise * math.sqrt(1 / len(lead.readings) + 1 / len(other.readings))
    return error > _SETTLED and math.log(lead.throughput / other.throughput) < _CLOSE * error
