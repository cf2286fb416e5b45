"""How often magnitudes occur, counted over many arrays in one pass, and where to end the numbers that integers stand for.

Sources: TensorRT's entropy calibration (S. Migacz, 8-bit inference with TensorRT, GTC 2017); for the others H. Wu et al., Integer
quantization for deep learning inference, arXiv 2004.09602.
"""

import math

import numpy as np

from miniinfer_cli.ir import Array
from miniinfer_cli.passes.sum_rounding import LARGEST

METHODS = ("minmax", "percentile", "entropy", "mse")
PERCENTILE = 99.99
"""Percent of the magnitudes that ``percentile`` keeps."""
_BINS = 2048
_LEVELS = LARGEST + 1
_STEP = 8  # bins between two ends that are tried


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

    def scale(self, method: str, percentile: float = PERCENTILE) -> float:
        """The number that an integer of 1 stands for, by one of METHODS; 1.0 where nothing but zeros came."""
        if self.largest == 0.0:
            return 1.0
        if method == "minmax":
            return self.largest / LARGEST
        if method == "percentile":
            return min(self._percentile(percentile), self.largest) / LARGEST
        end = self._entropy() if method == "entropy" else self._mean_square()
        return min(end * self.width, self.largest) / LARGEST

    def _percentile(self, percentile: float) -> float:
        reached = np.cumsum(self.counts)
        return float(np.searchsorted(reached, reached[-1] * percentile / 100.0) + 1) * self.width

    def _ends(self) -> range:
        """The numbers of bins that are tried, up to the last that holds something."""
        last = int(np.flatnonzero(self.counts)[-1]) + 1
        return range(min(_LEVELS, last), last + _STEP, _STEP)

    def _mean_square(self) -> float:
        """The end that makes the squares of what is lost smallest: by rounding, and beyond it."""
        centres = np.arange(_BINS) + 0.5
        counts = self.counts.astype(np.float64)

        def lost(end: int) -> float:
            scale = end / LARGEST
            kept = np.minimum(np.rint(centres / scale), LARGEST) * scale
            return float(np.dot(counts, np.square(centres - kept)))

        return float(min(self._ends(), key=lost))

    def _entropy(self) -> float:
        """The end at which the distribution in 128 levels diverges least from the one that was counted (Kullback-Leibler)."""
        return float(min(self._ends(), key=self._divergence))

    def _divergence(self, end: int) -> float:
        end = min(end, _BINS)
        counted = self.counts[:end].astype(np.float64)
        level = np.arange(end) * _LEVELS // end
        there = counted > 0
        sums = np.bincount(level, counted, _LEVELS)
        bins = np.maximum(np.bincount(level, there, _LEVELS), 1)
        coarse = np.where(there, (sums / bins)[level], 0.0)
        if not counted.any():
            return math.inf
        counted[-1] += float(self.counts[end:].sum())
        p, q = counted / counted.sum(), coarse / coarse.sum()
        q[(q == 0) & (p > 0)] = 1e-12
        held = p > 0
        return float(np.sum(p[held] * np.log(p[held] / q[held])))
