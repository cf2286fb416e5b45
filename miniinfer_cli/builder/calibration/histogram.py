"""How often magnitudes occur, counted over many arrays in one pass, and where to end what numbers of 8 bits stand for.

Sources: TensorRT's entropy calibration (S. Migacz, 8-bit inference with TensorRT, GTC 2017); for the others H. Wu et al., Integer
quantization for deep learning inference, arXiv 2004.09602. The same for floats of 8 bits, whose levels are not equally far apart:
P. Micikevicius et al., FP8 formats for deep learning, arXiv 2209.05433.
"""

import math

import numpy as np

from miniinfer_cli.ir import Array, numpy_dtype
from miniinfer_cli.ir.quantization import INT8, NumberFormat

METHODS = ("minmax", "percentile", "entropy", "mse")
PERCENTILE = 99.99
"""Percent of the magnitudes that ``percentile`` keeps."""
_BINS = 2048
_STEP = 8  # bins between two ends that are tried
_LEAST = 128  # bins of the first end that is tried


class Histogram:
    """Counts of magnitudes in bins of equal width from 0 on, which double where a larger number comes."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, np.int64)
        self.width = 0.0
        self.largest = 0.0
        self.is_finite = True

    def add(self, array: Array) -> None:
        """Counts the elements of an f32 array. Exact zeros are as good at any scale, and are left out."""
        magnitudes = np.abs(array, dtype=np.float32).reshape(-1)
        largest = float(magnitudes.max(initial=0.0))
        if not math.isfinite(largest):
            self.is_finite = False
            return
        if largest == 0.0:
            return
        self._reach(largest)
        places = (magnitudes[magnitudes > 0] * np.float32(1 / self.width)).astype(np.int32)
        self.counts += np.bincount(np.minimum(places, _BINS - 1), minlength=_BINS)

    def _reach(self, largest: float) -> None:
        """Widens the bins until ``largest`` lies in one; two become one at a time, so that no count is cut."""
        self.largest = max(self.largest, largest)
        self.width = self.width or largest / _BINS
        while largest > self.width * _BINS:
            half = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate((half, np.zeros_like(half)))
            self.width *= 2

    def end(self, method: str, percentile: float = PERCENTILE, format: NumberFormat = INT8) -> float:
        """The magnitude that the largest of the ``format`` stands for, by one of METHODS; 0.0 where nothing but zeros came."""
        if self.largest == 0.0 or method == "minmax":
            return self.largest
        if method == "percentile":
            return min(self._percentile(percentile), self.largest)
        levels = magnitudes_of(format)
        end = self._entropy(levels) if method == "entropy" else self._mean_square(levels)
        return min(end * self.width, self.largest)

    def _percentile(self, percentile: float) -> float:
        reached = np.cumsum(self.counts)
        return float(np.searchsorted(reached, reached[-1] * percentile / 100.0) + 1) * self.width

    def _ends(self) -> range:
        """The numbers of bins that are tried, up to the last that holds something."""
        last = int(np.flatnonzero(self.counts)[-1]) + 1
        return range(min(_LEAST, last), last + _STEP, _STEP)

    def _mean_square(self, levels: Array) -> float:
        """The end that makes the squares of what is lost smallest: by rounding, and beyond it."""
        centres = np.arange(_BINS) + 0.5
        counts = self.counts.astype(np.float64)
        middles = (levels[1:] + levels[:-1]) / 2

        def lost(end: int) -> float:
            kept = levels[np.searchsorted(middles, centres / end)] * end
            return float(np.dot(counts, np.square(centres - kept)))

        return float(min(self._ends(), key=lost))

    def _entropy(self, levels: Array) -> float:
        """The end at which the distribution in ``levels`` diverges least from the one that was counted (Kullback-Leibler)."""
        return float(min(self._ends(), key=lambda end: self._divergence(end, levels)))

    def _divergence(self, end: int, levels: Array) -> float:
        end, count = min(end, _BINS), len(levels)
        counted = self.counts[:end].astype(np.float64)
        level = _level_of(end, levels)
        there = counted > 0
        sums = np.bincount(level, counted, count)
        bins = np.maximum(np.bincount(level, there, count), 1)
        coarse = np.where(there, (sums / bins)[level], 0.0)
        if not counted.any():
            return math.inf
        counted[-1] += float(self.counts[end:].sum())
        p, q = counted / counted.sum(), coarse / coarse.sum()
        q[(q == 0) & (p > 0)] = 1e-12
        held = p > 0
        return float(np.sum(p[held] * np.log(p[held] / q[held])))


class ChannelMaxima:
    """The largest magnitude of each channel, which is the last axis."""

    def __init__(self) -> None:
        self.largest: Array = np.zeros(0, np.float32)
        self.is_finite = True

    def add(self, array: Array) -> None:
        """Looks at an f32 array, of as many channels as the others."""
        found = np.abs(array).reshape(-1, array.shape[-1]).max(axis=0, initial=0.0)
        self.is_finite = self.is_finite and bool(np.isfinite(found).all())
        self.largest = np.maximum(self.largest, found) if self.largest.size else found


def magnitudes_of(format: NumberFormat) -> Array:
    """The magnitudes that there are in a format, in order, as parts of the largest."""
    if not format.is_float:
        return np.arange(int(format.largest) + 1) / format.largest
    numbers = np.arange(128, dtype=np.uint8).view(numpy_dtype(format.dtype)).astype(np.float64)
    return numbers[np.isfinite(numbers)] / format.largest


def _level_of(end: int, levels: Array) -> Array:
    """The level that each of ``end`` bins becomes; integers share them evenly, as TensorRT has it."""
    bins = np.arange(end)
    if np.ptp(np.diff(levels)) < 1e-9:
        return bins * len(levels) // end
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, (bins + 0.5) / end)
