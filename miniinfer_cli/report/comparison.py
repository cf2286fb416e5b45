"""A document of ``compare`` (docs/results.md) as records: both sides, and what came out at each set of sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.errors import UsageError
from miniinfer_cli.fields import Fields
from miniinfer_cli.report.document import Result, read_result


@dataclass(frozen=True, slots=True)
class Difference:
    """An output, or a value on the way, of B beside that of A; ``nodes``: those of the ONNX model that make a value."""

    name: str
    nodes: tuple[str, ...]
    absolute: float | None
    relative: float | None
    cosine: float | None
    argmax: float | None
    tolerance: float | None
    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class SideTimes:
    """The workers of one side, in the order of the pairs, in ms; ``latency``: of all of their inferences."""

    time_ms: float
    workers_ms: tuple[float, ...]
    latency: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Times:
    """What the times of one case say; changes are of B's time, as parts of A's."""

    verdict: str
    change: float | None
    low: float | None
    high: float | None
    p: float | None
    spread: float | None
    margin: float
    pairs: int
    why: str
    a: SideTimes | None
    b: SideTimes | None


@dataclass(frozen=True, slots=True)
class Case:
    """One set of sizes. ``agree``: whether the outputs do; None where none were compared."""

    label: str
    outputs: tuple[Difference, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    agree: bool | None
    times: Times | None


@dataclass(frozen=True, slots=True)
class Layers:
    """Values that both sides have, in order; ``first``: the name of the first that diverges."""

    label: str
    shared: int
    first: str | None
    values: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One document. ``a``, ``b``: the sides as results, with their nodes where these were timed, of the case ``nodes_of``."""

    a: Result
    b: Result
    cases: tuple[Case, ...]
    layers: Layers | None
    nodes_of: str
    hints: tuple[str, ...]
    told: tuple[str, ...]
    assertions: tuple[tuple[str, str, str], ...]
    settings: Sequence[tuple[str, str]]


def is_comparison(document: Any) -> bool:
    """Whether it says that it is one."""
    return isinstance(document, Mapping) and document.get("kind") == "compare"


def read_comparison(document: Any) -> Comparison:
    """The records of a document of the kind ``compare``. Raises UsageError where a key is of the wrong kind, or lacks."""
    fields = Fields(document)
    date, settings = fields.text("date") or "", fields.object("settings")
    cases = tuple(_case(found) for found in fields.objects("cases"))
    if not cases:
        raise UsageError("cases: there are none", hint="give a result as JSON, as a comparison wrote it")
    race, layers = fields.object("race"), fields.object("per_layer")
    conditions = None if race is None else race.object("conditions")
    return Comparison(
        a=_side(fields, "a", date),
        b=_side(fields, "b", date),
        cases=cases,
        layers=None if layers is None else _layers(layers),
        nodes_of=fields.text("nodes_label") or "",
        hints=() if conditions is None else conditions.texts("flags"),
        told=() if race is None else _told(race),
        assertions=tuple(
            (one.text("assertion") or "", one.text("outcome") or "", one.text("why") or "")
            for one in fields.objects("assertions")
        ),
        settings=() if settings is None else [(k.replace("_", " "), v) for k, v in settings.pairs() if v],
    )


def _side(fields: Fields, key: str, date: str) -> Result:
    """A side as the result that it would be alone."""
    if (side := fields.object(key)) is None:
        raise UsageError(f"{key}: the side is not there", hint="give a result as JSON, as a comparison wrote it")
    try:
        return read_result({**side.values, "kind": "profile", "plan": side.text("file"), "date": date})
    except UsageError as error:
        raise UsageError(f"{key}.{error.message}", hint=error.own_hint) from None


def _case(found: Fields) -> Case:
    times, left_out = found.object("times"), found.object("left_out")
    return Case(
        label=found.text("label") or "",
        outputs=tuple(_difference(d) for d in found.objects("outputs")),
        left_out=() if left_out is None else tuple(f"{name}: {operations}" for name, operations in left_out.pairs()),
        notes=found.texts("notes"),
        agree=found.flag("agree"),
        times=None if times is None else _times(times),
    )


def _difference(found: Fields) -> Difference:
    return Difference(
        name=found.text("name") or "",
        nodes=found.texts("nodes"),
        absolute=found.amount("max_abs_error"),
        relative=found.amount("relative_error"),
        cosine=found.number("cosine"),
        argmax=found.amount("argmax_agreement"),
        tolerance=found.amount("tolerance"),
        ok=bool(found.flag("ok")),
        reason=found.text("reason") or "",
    )


def _times(found: Fields) -> Times:
    return Times(
        verdict=found.text("verdict") or "cannot tell",
        change=found.number("change"),
        low=found.number("low"),
        high=found.number("high"),
        p=found.amount("p"),
        spread=found.amount("spread"),
        margin=found.amount("margin") or 0.0,
        pairs=found.count("pairs") or 0,
        why=found.text("why") or "",
        a=_workers(found.object("a")),
        b=_workers(found.object("b")),
    )


def _workers(found: Fields | None) -> SideTimes | None:
    time_ms = None if found is None else found.amount("time_ms")
    if found is None or time_ms is None:
        return None
    latency = found.object("latency_ms")
    return SideTimes(time_ms, found.amounts("workers_ms"), {} if latency is None else latency.numbers())


def _layers(found: Fields) -> Layers:
    first = found.object("first")
    return Layers(
        label=found.text("label") or "",
        shared=found.count("shared_values") or 0,
        first=None if first is None else first.text("name"),
        values=tuple(_difference(d) for d in found.objects("values")),
    )


def _told(race: Fields) -> tuple[str, ...]:
    pairs, lost, seconds = race.count("pairs") or 0, race.count("disturbed_pairs") or 0, race.amount("seconds") or 0.0
    disturbed = f"; other work disturbed {lost} of them, which do not count" if lost else ""
    ended = "; interrupted" if race.flag("interrupted") else ""
    return (f"{pairs} pairs of workers in {seconds:.1f} s{disturbed}{ended}",)
