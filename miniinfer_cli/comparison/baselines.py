"""Times that were measured before, beside those of now: whether the machine is the same, and what the difference says."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.comparison.intervals import t_quantile
from miniinfer_cli.comparison.pair_tests import FALSE_ALARMS, Relation, Verdict
from miniinfer_cli.errors import UsageError
from miniinfer_cli.fields import Fields

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
            fields = Fields(document)
            return _of_comparison(fields) if fields.text("kind") == "compare" else _of_run(fields)
        except UsageError as error:
            raise ValueError(error.message) from None


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


def _of_run(fields: Fields) -> Found:
    latency = _object(fields, "latency_ms")
    measurement = Measurement((), [_time(latency, "median")], _unsteadiness_of(latency))
    return _found(fields, fields, measurement, _shapes_of(fields))


def _of_comparison(fields: Fields) -> Found:
    cases = fields.objects("cases")
    times = cases[0].object("times") if cases else None
    b = None if times is None else times.object("b")
    if b is None:
        raise ValueError("no times were compared in it")
    workers, medians = (_positive(b.amounts(key), key) for key in ("workers_ms", "latency_medians_ms"))
    measurement = Measurement(workers, medians, _unsteadiness_of(_object(b, "latency_ms")))
    return _found(_object(fields, "b"), fields, measurement, _shapes_of(cases[0]))


def _found(where: Fields, fields: Fields, measurement: Measurement, shapes: Mapping[str, Any]) -> Found:
    device = where.text("device")
    if device is None:
        raise ValueError(_MISSING.format("device"))
    facts, host, versions = (dict(_object(where, key).values) for key in ("device_facts", "host", "versions"))
    return Found(measurement, device, facts, host, versions, dict(_object(fields, "settings").values), shapes)


_MISSING = "what it holds is not complete: there is no {}"


def _object(fields: Fields, key: str) -> Fields:
    found = fields.object(key)
    if found is None:
        raise ValueError(_MISSING.format(key))
    return found


def _shapes_of(fields: Fields) -> dict[str, Any]:
    if fields.values.get("inputs") is None:
        raise ValueError(_MISSING.format("inputs"))
    return {i.text("name") or "": list(i.counts("shape")) if "shape" in i else None for i in fields.objects("inputs")}


def _unsteadiness_of(latency: Fields) -> float:
    known = {key: _time(latency, key) for key in ("median", "mean")}
    return unsteadiness({**known, **({"p90": _time(latency, "p90")} if "p90" in latency else {})})


def _time(fields: Fields, key: str) -> float:
    found = fields.amount(key)
    if found is None:
        raise ValueError(_MISSING.format(f"{key} of latency_ms"))
    return _positive([found], key)[0]


def _positive(times: Sequence[float], key: str) -> list[float]:
    if not all(times):
        raise ValueError(f"{key}: a time in it is not above 0")
    return list(times)


def _major(version: Any) -> str:
    return str(version).partition(".")[0]


def _shapes(shapes: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {shape if shape is None else 'x'.join(map(str, shape)) or 'scalar'}" for name, shape in shapes.items()
    )
