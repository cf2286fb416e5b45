"""What settings that were not measured may give, by those that were: the choice of the next one in a sweep.

Throughput goes on growing at most as it did in the last step to the next smaller setting measured; in proportion to the load,
as latency does not fall when the load grows. So what is too small for the best needs no measurement. Where a larger setting
is known, growth ended somewhere between the two, and so what lies between is halved by and by: a knee, a cliff, or the edge
of memory, is found by bisection. What a setting promises is that gain over the best so far, by the odds that it is there: the
nearer to what was measured, and the farther from what is larger and known, or failed, the better they are. Throughput, load
and latency are looked at as logarithms.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from miniinfer_cli.measuring.sweep_points import Point, Setting

_GROWTH = (0.5, 0.9)  # exponents of throughput over streams and over batch where nothing is known yet
_MOST_GAIN = 0.65  # a greater promise is no better reason
_LEAST_GAIN = 0.01  # a smaller one is none
_LEAST_WORTH = 0.004  # gain by odds that is not worth a measurement
_OTHER_SHAPE = 0.25  # doublings from a wall that a setting counts whose load has failed in another shape

# Latencies between those that were measured (kriging):
_REACH = 4.0  # doublings within which they tell of each other
_SPREAD = 0.3  # least standard deviation, in natural logarithms, of one that no other tells of
_TAME = 0.5  # how much less steep their plane is than they are
_EXACT = 0.005  # least noise
_LEAST_MS = 1e-6  # of a latency

_Floats = npt.NDArray[np.float64]


class Figures:
    """What was measured, as a surface of throughput over settings. ``noise``: of one measurement, as a part."""

    def __init__(self, points: Sequence[Point], noise: float) -> None:
        self._points = tuple(points)
        self._places = _places([p.setting for p in points])
        self._values = np.log([p.throughput for p in points])
        self._latencies = np.log([max(p.p99_ms, _LEAST_MS) for p in points])
        self._noise = np.array([max(noise, _EXACT) / math.sqrt(len(p.readings)) for p in points])
        self._growth = np.column_stack([self._grown(axis) for axis in (0, 1)])

    def most_promising(
        self, free: Sequence[Setting], held: Sequence[Point], walls: Sequence[Setting], budget_ms: float | None = None
    ) -> Setting | None:
        """The one of ``free`` to measure: of most gain over ``held``, by its odds; the lightest, as long as nothing is held.

        ``walls`` are too large; p99 is to be no more than ``budget_ms``. None where nothing promises enough.
        """
        if not free or not held:
            return min(free, default=None, key=lambda s: s.load)
        places, standing = _places(free), _places([p.setting for p in held])
        odds = _odds(places, standing, _places(walls))
        if len(walls):
            lightest = min(s.load for s in walls)
            short = np.log2(lightest / np.array([s.load for s in free], np.float64))
            odds = np.minimum(odds, _share(np.maximum(short, _OTHER_SHAPE), _beyond(standing, places)))
        if budget_ms is not None:
            odds = odds * self._within(free, budget_ms)
        gain = np.expm1(np.minimum(self._trend(places) - math.log(max(p.throughput for p in held)), math.log1p(_MOST_GAIN)))
        for number in np.flatnonzero(gain > _LEAST_GAIN):
            larger = (self._places >= places[number]).all(axis=1)
            if larger.any():  # growth has ended before that
                smaller = standing[~(standing >= places[number]).all(axis=1)]
                odds[number] = min(odds[number], _odds(places[number : number + 1], smaller, self._places[larger])[0])
        worth = np.where(gain > _LEAST_GAIN, gain * odds, 0.0)
        chosen = int(np.argmax(worth))
        return free[chosen] if worth[chosen] > _LEAST_WORTH else None

    def able(self, free: Sequence[Setting], throughput: float) -> list[Setting]:
        """Those of ``free`` that may have this throughput."""
        if not free:
            return []
        may = self._trend(_places(free)) >= math.log(throughput)
        return [s for s, able in zip(free, may, strict=True) if able]

    def _within(self, free: Sequence[Setting], budget_ms: float) -> _Floats:
        """How likely the p99 of each is within the budget, as normal deviates."""
        middle, deviation = self._latency(free)
        short = (math.log(budget_ms) - middle) / np.maximum(deviation, _EXACT)
        return np.array([(1 + math.erf(x / math.sqrt(2))) / 2 for x in short])

    def _trend(self, places: _Floats) -> _Floats:
        """What there is where growth goes on as it was: the least that smaller settings say."""
        steps = np.maximum(places[:, None] - self._places, 0)
        told = self._values + (steps * self._growth).sum(axis=2) * math.log(2)
        least: _Floats = np.where(_is_under(self._places, places), told, np.inf).min(axis=1)
        return np.where(np.isinf(least), -np.inf, least)

    def _grown(self, axis: int) -> _Floats:
        """Exponents of growth along one axis, each from the next smaller setting there; ``_GROWTH`` where there is none."""
        grown = np.full(len(self._points), _GROWTH[axis])
        order = np.lexsort((self._places[:, axis], self._places[:, 1 - axis]))
        for last, here in itertools.pairwise(order):
            if self._places[last, 1 - axis] == self._places[here, 1 - axis]:
                step = (self._places[here, axis] - self._places[last, axis]) * math.log(2)
                grown[here] = np.clip((self._values[here] - self._values[last]) / step, 0, 1)
        return grown

    def _latency(self, free: Sequence[Setting]) -> tuple[_Floats, _Floats]:
        """Expectation and standard deviation of the logarithm of p99: a plane, and what lies near does not fit it."""
        places, values, noise, wanted = self._places, self._latencies, self._noise, _places(free)
        plane = np.column_stack([np.ones(len(places)), places])
        weights = np.linalg.solve(plane.T @ plane + np.diag([1e-6, _TAME, _TAME]), plane.T @ values)
        rest = values - plane @ weights
        variance = max(float(rest.var()), _SPREAD**2)
        likeness = _likeness(places, places) + np.diag(noise**2) / variance
        near = _likeness(places, wanted)
        shares = np.linalg.solve(likeness, near)
        middle = np.column_stack([np.ones(len(wanted)), wanted]) @ weights + rest @ shares
        deviation = np.sqrt(variance * np.maximum(1 - (near * shares).sum(axis=0), 0))
        return middle, deviation


def _places(settings: Sequence[Setting]) -> _Floats:
    """A row of two for each setting: its doublings of streams and of batch."""
    return np.log2(np.array([(s.streams, s.batch) for s in settings], np.float64).reshape(-1, 2))


def _likeness(some: _Floats, others: _Floats) -> _Floats:
    """How much the figures of some settings tell of those of others, from 0 to 1: a row for each of some."""
    likeness: _Floats = np.exp(-np.abs(some[:, None] - others).sum(axis=2) / _REACH)
    return likeness


def _is_under(lower: _Floats, places: _Floats) -> npt.NDArray[np.bool_]:
    """Which of ``lower`` are no larger than a place in either number: a row for each place."""
    return (lower[:, 0] <= places[:, :1]) & (lower[:, 1] <= places[:, 1:])


def _beyond_each(lower: _Floats, places: _Floats) -> _Floats:
    """Doublings by which a place exceeds each of ``lower``: a row for each place."""
    beyond: _Floats = np.maximum(places[:, None] - lower, 0).sum(axis=2)
    return beyond


def _beyond(standing: _Floats, places: _Floats) -> _Floats:
    """Doublings by which each place exceeds the nearest of those that stand, of the smaller ones where there are any."""
    each = _beyond_each(standing, places)
    smaller = np.where(_is_under(standing, places), each, np.inf).min(axis=1, initial=np.inf)
    nearest: _Floats = np.where(np.isinf(smaller), each.min(axis=1, initial=np.inf), smaller)
    return nearest


def _odds(places: _Floats, standing: _Floats, walls: _Floats) -> _Floats:
    """How likely each place holds, from how far it is to what stands and to the walls; 1 where there is no wall."""
    if not len(walls) or not len(standing):
        return np.ones(len(places))
    to_walls = np.maximum(walls - places[:, None], 0).sum(axis=2).min(axis=1)
    return _share(to_walls, _beyond(standing, places))


def _share(ahead: _Floats, behind: _Floats) -> _Floats:
    """``ahead`` as a part of the way; half where there is none."""
    whole = ahead + behind
    return np.where(whole > 0, ahead / np.where(whole > 0, whole, 1), 0.5)
