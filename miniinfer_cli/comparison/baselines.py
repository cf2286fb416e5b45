"""Times that were measured before, beside those of now: whether the machine is the same, and what the difference says."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.comparison.intervals import t_quantile
from miniinfer_cli.comparison.pair_tests import FALSE_ALARMS, Relation, Verdict

LEAST_WORKERS = 4
"""Workers of now that tell how far apart workers are."""
TIME = "time of an inference"
LATENCY = "median latency"
_UNSTEADY = 0.05  # from the median to the 90th percentile of one process's inferences: more, and other days mean nothing
_NAMES = ("then", "now")
# What bears on the time of an inference and is asked for by flags, and what it is where a document does not have it.
_SETTINGS: Mapping[str, Any] = {
    "streams": 1, "data_transfers": True, "cuda_graph": True, "overlap": True, "pdl": True, "scheduling": "auto",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measurement:
    """Times of one setting on one machine, in ms. ``workers_ms``: an inference, of each process (from result to result).

    ``latencies_ms``: the median latency of each process. A document has at least one of the two. ``unsteady``: the logarithm of
    the 90th percentile of a process's latencies over their median.
    """

    workers_ms: Sequence[float]
    latencies_ms: Sequence[float]
    unsteady: float = 0.0

    def figures(self, what: str) -> Sequence[float]:
        """Those of one kind, TIME or LATENCY."""
        return self.workers_ms if what == TIME else self.latencies_ms


@dataclass(frozen=True, slots=True)
class Found:
    """A Measurement, and where and how it was taken, with keys as results have them; ``shapes`` of the inputs by name."""

    measurement: Measurement
    device: str
    device_facts: Mapping[str, Any]
    host: Mapping[str, Any]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    shapes: Mapping[str, Any]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Found":
        """What a document of docs/results.md holds; of one of the kind ``compare`` side B, in its first case.

        Raises ValueError, in words, where it holds no times of one setting.
        """
        try:
            return _of_comparison(document) if document["kind"] == "compare" else _of_run(document)
        except (KeyError, TypeError, IndexError, AttributeError, ZeroDivisionError) as error:
            raise ValueError(f"what it holds is not complete: {type(error).__name__} {error}") from None


def machine_differences(old: Found, new: Found, names: tuple[str, str] = _NAMES) -> list[str]:
    """What keeps times of two machines from being compared, in words: model, cores, driver, majors of libraries.

    ``names``: what ``old`` and ``new`` are called.
    """
    told = []

    def differ(what: str, a: Any, b: Any) -> None:
        if a != b:
            told.append(f"{what}: {a} {names[0]}, {b} {names[1]}")

    kinds = [found.device.partition(":")[0] for found in (old, new)]
    differ("device", *kinds)
    if kinds[0] != kinds[1]:
        return told
    if kinds[0] == "cpu":
        differ("threads of an inference", old.device_facts.get("threads"), new.device_facts.get("threads"))
    else:
        differ("GPU", old.device_facts.get("name"), new.device_facts.get("name"))
        differ("driver", _major(old.device_facts.get("driver")), _major(new.device_facts.get("driver")))
    differ("processor", old.host.get("processor"), new.host.get("processor"))
    differ("processor cores", old.host.get("cores"), new.host.get("cores"))
    for name in sorted(set(old.versions) & set(new.versions)):
        if name not in ("miniinfer", "python"):
            differ(f"major version of {name}", _major(old.versions[name]), _major(new.versions[name]))
    return told


def setting_differences(old: Found, new: Found, names: tuple[str, str] = _NAMES) -> list[str]:
    """What was measured otherwise, in words: sizes of inputs, and flags that bear on the time. ``names`` as above."""
    told = [
        f"{name}: {old.settings.get(name, default)} {names[0]}, {new.settings.get(name, default)} {names[1]}"
        for name, default in _SETTINGS.items()
        if old.settings.get(name, default) != new.settings.get(name, default)
    ]
    if old.shapes != new.shapes:
        told.append(f"inputs: {_shapes(old.shapes)} {names[0]}, {_shapes(new.shapes)} {names[1]}")
    return told


def judge_apart(
    before: Sequence[float], after: Sequence[float], margin: float, unsteady: float = 0.0, alpha: float = FALSE_ALARMS
) -> Verdict:
    """What times (ms) of processes ``before`` and ``after`` say, which ran at different times: Student's interval of the change.

    How far processes are apart is told by both together: where only one ran before, by the others alone. What the machine was
    like then nobody knows; it is taken to have been as ``unsteady`` (a part) between the two as it was within one process, and
    where that is much, nothing can be told. Equal is what lies within ``margin``, as a part; the error is ``alpha``.
    """
    a, b = ([math.log(t) for t in times] for times in (before, after))
    count, freedom = min(len(a), len(b)), len(a) + len(b) - 2
    change = math.expm1(statistics.fmean(b) - statistics.fmean(a)) if a and b else None
    if not a or not b or max(len(a), len(b)) < LEAST_WORKERS:
        why = f"{_processes(len(a))} of A and {_processes(len(b))} of B do not show how far processes are apart"
        return Verdict(Relation.CANNOT_TELL, count, margin, change=change, why=why, too_few=True)
    if unsteady > _UNSTEADY:
        why = f"inferences of one process differ by {100 * unsteady:.1f} %, so times of different days say nothing"
        return Verdict(Relation.CANNOT_TELL, count, margin, change=change, why=why, too_few=True)
    mean = statistics.fmean(b) - statistics.fmean(a)
    squares = sum((v - statistics.fmean(side)) ** 2 for side in (a, b) for v in side)
    spread = math.sqrt(squares / freedom)
    half = t_quantile(1 - alpha / 2, freedom) * math.sqrt(spread**2 * (1 / len(a) + 1 / len(b)) + unsteady**2)
    low, high, distance = mean - half, mean + half, math.log1p(margin)
    why = ""
    if -distance < low and high < distance:
        relation = Relation.EQUAL
    elif low > 0 or high < 0:
        relation = Relation.SLOWER if mean > 0 else Relation.FASTER
    else:
        relation, why = Relation.CANNOT_TELL, "processes differ too much among themselves"
    return Verdict(relation, count, margin, change, math.expm1(low), math.expm1(high), None, math.expm1(spread), None, why)


def judge_found(before: Measurement, after: Measurement, margin: float, alpha: float = FALSE_ALARMS) -> tuple[Verdict, str]:
    """What ``after`` says beside ``before``, and by which figure: the time of an inference where both have it, else latency.

    ``margin`` and ``alpha`` as for ``judge_apart``.
    """
    what = TIME if before.workers_ms and after.workers_ms else LATENCY
    unsteady = max(before.unsteady, after.unsteady)
    return judge_apart(before.figures(what), after.figures(what), margin, unsteady, alpha), what


def unsteadiness(latency: Mapping[str, float]) -> float:
    """Of a distribution (``median``, ``p90``, ``mean`` in ms): the logarithm of the 90th percentile over the median, 0 or more.

    Where that percentile was not asked for, of the mean.
    """
    return max(math.log(latency.get("p90", latency["mean"]) / latency["median"]), 0.0)


def _processes(count: int) -> str:
    return f"{count} process{'es' * (count != 1)}"


def _of_run(document: Mapping[str, Any]) -> Found:
    latency = float(document["latency_ms"]["median"])
    shapes = {i["name"]: i["shape"] for i in document["inputs"]}
    measurement = Measurement((), _positive([latency]), unsteadiness(document["latency_ms"]))
    return _found(document, measurement, document["settings"], shapes)


def _of_comparison(document: Mapping[str, Any]) -> Found:
    case = document["cases"][0]
    times = case["times"]
    if times is None or times.get("b") is None:
        raise ValueError("no times were compared in it")
    b = times["b"]
    shapes = {i["name"]: i["shape"] for i in case["inputs"]}
    measurement = Measurement(_positive(b["workers_ms"]), _positive(b["latency_medians_ms"]), unsteadiness(b["latency_ms"]))
    return _found(document["b"], measurement, document["settings"], shapes)


def _found(where: Mapping[str, Any], measurement: Measurement, settings: Mapping[str, Any], shapes: Mapping[str, Any]) -> Found:
    return Found(
        measurement, str(where["device"]), dict(where["device_facts"]), dict(where["host"]), dict(where["versions"]),
        dict(settings), shapes,
    )  # fmt: skip


def _positive(times: Sequence[Any]) -> list[float]:
    found = [float(t) for t in times]
    if not all(0 < t < math.inf for t in found):
        raise ValueError("a time in it is not above 0")
    return found


def _major(version: Any) -> str:
    return str(version).partition(".")[0]


def _shapes(shapes: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {shape if shape is None else 'x'.join(map(str, shape)) or 'scalar'}" for name, shape in shapes.items()
    )
