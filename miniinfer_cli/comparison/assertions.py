"""What may be asserted of times: ``p99<5ms``, ``>2000``; and whether a measurement holds it, fails it, or cannot tell."""

import itertools
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from miniinfer_cli.comparison.intervals import t_quantile
from miniinfer_cli.comparison.pair_tests import Verdict
from miniinfer_cli.measuring.metrics import Samples, nearest_rank

_NUMBER = r"(\d{1,15}(?:\.\d{1,9})?(?:e[+-]?\d{1,2})?)"
_LATENCY = re.compile(rf"(p\d{{1,3}}(?:\.\d{{1,6}})?|median|mean|min|max)\s*(<=?)\s*{_NUMBER}\s*(us|ms|s)?", re.IGNORECASE)
_THROUGHPUT = re.compile(rf"(>=?)\s*{_NUMBER}\s*(qps|samples/s)?", re.IGNORECASE)
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_CONFIDENCE = 0.95  # on either side of a figure
_BATCHES = 20  # of inferences in their order, whose means are nearly independent


class Outcome(StrEnum):
    """How an assertion ended."""

    HELD = "held"
    FAILED = "failed"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Asserted:
    """An assertion as it was given, how it ended, the figure that was measured, None where there is none, and all in words."""

    assertion: str
    outcome: Outcome
    measured: float | None
    why: str

    def to_json(self) -> dict[str, Any]:
        """Stable keys; ``measured`` in the unit of the assertion's kind: ms, inferences or samples a second, or a part."""
        return {"assertion": self.assertion, "outcome": str(self.outcome), "measured": self.measured, "why": self.why}


@dataclass(frozen=True, slots=True)
class Disturbed:
    """What made times longer, in words, and how many ``times_longer`` at most in the middle; infinite where nobody knows."""

    why: tuple[str, ...] = ()
    times_longer: float = math.inf


UNDISTURBED = Disturbed()


@dataclass(frozen=True, slots=True)
class LatencyBound:
    """``p99<5ms``: a figure of the latency of one inference is below so many milliseconds, or equal (``<=``)."""

    text: str
    figure: str
    limit_ms: float
    or_equal: bool

    @property
    def percent(self) -> float | None:
        """The percentile; None for the mean, the least and the most."""
        return 50.0 if self.figure == "median" else float(self.figure[1:]) if self.figure.startswith("p") else None

    def of(self, times_ms: Sequence[float]) -> "Bounded":
        """The figure of at least one latency, in their order, and what it may be in truth."""
        ordered = sorted(times_ms)
        if self.percent is not None:
            return _percentile(ordered, self.percent)
        if self.figure == "mean":
            return _mean(times_ms)
        value = ordered[0 if self.figure == "min" else -1]
        return Bounded(value, value, value)

    def check(self, times_ms: Sequence[float], disturbed: Disturbed = UNDISTURBED, counted: str = "inferences") -> Asserted:
        """Whether latencies of what is ``counted`` hold it."""
        found = self.of(times_ms)
        told = f"{self.figure} is {found.value:.4f} ms over {len(times_ms)} {counted}"
        return self._judged(found, _MEDIAN.of(times_ms), told, disturbed)

    def check_workers(self, workers: Sequence[Sequence[float]], disturbed: Disturbed = UNDISTURBED) -> Asserted:
        """The same for several processes, by the latencies of each: the figure is the mean of theirs."""
        found, middle = (_of_workers([bound.of(times).value for times in workers]) for bound in (self, _MEDIAN))
        told = f"{self.figure} is {found.value:.4f} ms over {len(workers)} workers"
        return self._judged(found, middle, told, disturbed)

    def _judged(self, found: "Bounded", middle: "Bounded", told: str, disturbed: Disturbed) -> Asserted:
        """What delays the slowest by however much does not delay the one in the ``middle``."""
        undisturbed = min(found.low, middle.low) / disturbed.times_longer
        return _judged(self.text, found, undisturbed, self.limit_ms, True, self.or_equal, told, found.between("ms", 4), disturbed)


_MEDIAN = LatencyBound("median", "median", 0.0, False)


@dataclass(frozen=True, slots=True)
class ThroughputBound:
    """``>2000``: more inferences a second than that, or as many (``>=``); with ``samples``, samples: times the batch."""

    text: str
    limit: float
    or_equal: bool
    samples: bool

    def check(
        self, measured: Samples, batch: int | None, disturbed: Disturbed = UNDISTURBED, counted: str = "inferences"
    ) -> Asserted:
        """Whether a measurement of what is ``counted`` holds it. ``batch``: samples of each; None where inputs share no batch."""
        if self.samples and batch is None:
            return Asserted(self.text, Outcome.CANNOT_TELL, None, "the inputs share no batch: there are no samples to count")
        factor = (batch or 1) if self.samples else 1
        value = factor * len(measured.latency_ms) / measured.walltime_s
        times = _mean(measured.latency_ms)
        mean = max(times.value, 1e-12)  # as many times longer as an inference may take in truth, as many times fewer there are
        found = Bounded(value, value * mean / max(times.high, mean), value * mean / times.low if times.low > 0 else math.inf)
        unit = "samples/s" if self.samples else f"{counted}/s"
        told = f"it is {value:.2f} {unit} over {len(measured.latency_ms)} {counted}"
        return self._judged(found, told, unit, disturbed)

    def check_workers(self, times_ms: Sequence[float], batch: int | None, disturbed: Disturbed = UNDISTURBED) -> Asserted:
        """The same for several processes, by the milliseconds that an inference took each."""
        if self.samples and batch is None:
            return Asserted(self.text, Outcome.CANNOT_TELL, None, "the inputs share no batch: there are no samples to count")
        factor = (batch or 1) if self.samples else 1
        found = _of_workers([1e3 * factor / t for t in times_ms])
        unit = "samples/s" if self.samples else "inferences/s"
        told = f"it is {found.value:.2f} {unit} over {len(times_ms)} workers"
        return self._judged(found, told, unit, disturbed)

    def _judged(self, found: "Bounded", told: str, unit: str, disturbed: Disturbed) -> Asserted:
        undisturbed = found.high * disturbed.times_longer
        return _judged(self.text, found, undisturbed, self.limit, False, self.or_equal, told, found.between(unit, 2), disturbed)


@dataclass(frozen=True, slots=True)
class RegressionBound:
    """``5%``: an inference takes at most so much longer than the baseline's, as a part."""

    text: str
    limit: float

    def check(self, verdict: Verdict) -> Asserted:
        """Whether the change of the time that a ``verdict`` tells holds it."""
        name, v = f"regression<={self.text}", verdict
        if v.change is None or v.low is None or v.high is None or v.too_few:
            return Asserted(name, Outcome.CANNOT_TELL, v.change, v.why)
        told = f"the time changed by {100 * v.change:+.2f} % ({100 * v.low:+.2f} to {100 * v.high:+.2f} %)"
        if v.high <= self.limit:
            return Asserted(name, Outcome.HELD, v.change, told)
        if v.low > self.limit:
            return Asserted(name, Outcome.FAILED, v.change, told)
        return Asserted(name, Outcome.CANNOT_TELL, v.change, f"{told}: measure longer")


@dataclass(frozen=True, slots=True)
class Bounded:
    """A figure, and the bounds that it lies within; an infinite one where too little was measured to have one."""

    value: float
    low: float
    high: float

    def between(self, unit: str, decimals: int) -> str:
        """The bounds in words."""
        if math.isinf(self.high):
            return f"anything from {self.low:.{decimals}f} {unit} on"
        return f"{self.low:.{decimals}f} to {self.high:.{decimals}f} {unit}"


def parse_latency(text: str) -> LatencyBound:
    """``p99<5ms``: a percentile, ``median``, ``mean``, ``min`` or ``max``; ``us``, ``ms`` (the default) or ``s``.

    Raises ValueError for another form, and for a percentile outside (0, 100].
    """
    found = _LATENCY.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not of the form p99<5ms")
    figure, sign, limit, unit = found[1].lower(), found[2], float(found[3]), (found[4] or "ms").lower()
    if figure.startswith("p") and not 0 < float(figure[1:]) <= 100:
        raise ValueError(f"{text!r}: a percentile is above 0 and at most 100")
    return LatencyBound(text.strip(), figure, limit * _UNITS_MS[unit], sign == "<=")


def parse_throughput(text: str) -> ThroughputBound:
    """``>2000``, ``>=2000qps``, ``>64000samples/s``. Raises ValueError for another form."""
    found = _THROUGHPUT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not of the form >2000 or >2000samples/s")
    return ThroughputBound(text.strip(), float(found[2]), found[1] == ">=", (found[3] or "").lower() == "samples/s")


def parse_percent(text: str) -> float:
    """``5%``, or ``5``: a part of the whole, 0 or more. Raises ValueError for another form."""
    found = re.fullmatch(rf"{_NUMBER}\s*%?", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not of the form 5%")
    return float(found[1]) / 100


def _of_workers(values: Sequence[float]) -> Bounded:
    """The mean over processes, which differ among themselves."""
    value = statistics.fmean(values)
    if len(values) < 2:
        return Bounded(value, 0.0, math.inf)
    half = t_quantile(_CONFIDENCE, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Bounded(value, max(value - half, 0.0), value + half)


def _percentile(ordered: Sequence[float], percent: float) -> Bounded:
    """By order statistics, whatever the distribution. Fewer than show the percentile (100 for p99) have no bound above."""
    count, part = len(ordered), percent / 100
    value = nearest_rank(ordered, percent)
    reach = statistics.NormalDist().inv_cdf(_CONFIDENCE) * math.sqrt(count * part * (1 - part))
    low, high = max(math.floor(count * part - reach), 1), math.ceil(count * part + reach) + 1
    shown = percent == 100 or count * (1 - part) >= 1 - 1e-9
    above = ordered[min(high, count) - 1] if shown else math.inf
    return Bounded(value, ordered[low - 1], above)


def _mean(times: Sequence[float]) -> Bounded:
    """By the means of batches: neighbours are alike."""
    value = statistics.fmean(times)
    bounds = [len(times) * i // _BATCHES for i in range(_BATCHES + 1)] if len(times) > _BATCHES else range(len(times) + 1)
    means = [statistics.fmean(times[a:b]) for a, b in itertools.pairwise(bounds)]
    if len(means) < 2:
        return Bounded(value, 0.0, math.inf)
    half = t_quantile(_CONFIDENCE, len(means) - 1) * statistics.stdev(means) / math.sqrt(len(means))
    least = min(means) if 0.5 ** len(means) < 1 - _CONFIDENCE else 0.0  # times are skewed to the right: not all means lie above
    return Bounded(value, max(value - half, least), value + half)


def _judged(
    text: str, found: Bounded, undisturbed: float, limit: float, below: bool, or_equal: bool, told: str, between: str,
    disturbed: Disturbed,
) -> Asserted:  # fmt: skip
    """How it ended. ``undisturbed``: what the figure may at best have been without what disturbed it."""

    def good(value: float) -> bool:
        return value == limit if or_equal and value == limit else (value < limit if below else value > limit)

    if good(found.high if below else found.low):
        return Asserted(text, Outcome.HELD, found.value, told)
    if good(found.low if below else found.high):
        return Asserted(text, Outcome.CANNOT_TELL, found.value, f"{told}, and may be {between}: measure longer")
    if not disturbed.why:
        return Asserted(text, Outcome.FAILED, found.value, told)
    why = "; ".join(disturbed.why)
    if good(undisturbed):
        return Asserted(text, Outcome.CANNOT_TELL, found.value, f"{told}, but {why}")
    explained = f"{told}; {why}, which explains a factor of {disturbed.times_longer:.2g} at most"
    return Asserted(text, Outcome.FAILED, found.value, explained)
