"""What a comparison found: the verdict on the times of each case, outputs, values on the way, assertions."""

from collections.abc import Sequence

from miniinfer_cli.report.comparison import Case, Comparison, Difference, Layers, SideTimes, Times
from miniinfer_cli.report.figures import rate_of, time_of
from miniinfer_cli.report.markup import Html, tag
from miniinfer_cli.report.race_chart import race_chart

_HEADINGS = {"faster": "B is faster", "slower": "B is slower"}


def verdict_of(times: Times) -> str:
    """The verdict in few words."""
    if times.verdict == "equal":
        return f"equal within {100 * times.margin:g} %"
    return _HEADINGS.get(times.verdict, times.verdict)


def times_part(found: Comparison) -> Html | None:
    """The verdict, figures and a picture of each case; None where no times were compared."""
    parts = [part for case in found.cases if case.times is not None for part in _times_of(case, case.times, len(found.cases) > 1)]
    if not parts:
        return None
    hints = [tag("li", hint) for hint in found.hints] + [tag("li", told, class_="muted") for told in found.told]
    return tag("div", *parts, tag("ul", *hints, class_="hints") if hints else "")


def _times_of(case: Case, times: Times, named: bool) -> list[Html]:
    judged = times.verdict if times.verdict in _HEADINGS else None
    cards = [tag("div", tag("b", verdict_of(times), class_=judged), tag("span", _bounds(times)), class_="card")]
    sides = (("A", times.a), ("B", times.b))
    cards += [
        tag("div", tag("b", time_of(side.time_ms)), tag("span", f"an inference of {letter}"), class_="card")
        for letter, side in sides
        if side is not None
    ]
    parts = [tag("h3", case.label)] if named and case.label else []
    parts.append(tag("div", *cards, class_="cards"))
    if times.why:
        parts.append(tag("p", times.why, class_="muted"))
    chart = race_chart(times)
    rows = [_row(letter, side) for letter, side in sides if side is not None]
    if rows:
        names = ("", "ms an inference", "least", "most", "latency p50", "latency p99", "per second", "workers")
        head = tag("tr", *(tag("th", n, class_="num" if n else None) for n in names))
        parts.append(tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="wide"))
    return [*parts, *((chart,) if chart is not None else ())]


def _bounds(times: Times) -> str:
    if times.change is None:
        return f"{times.pairs} pairs of workers"
    change = f"{100 * times.change:+.2f} % of A's time"
    if times.low is None or times.high is None:
        return change
    p = "" if times.p is None else f", p = {times.p:.4f}"
    spread = "" if times.spread is None else f"; spread {100 * times.spread:.2f} %"
    return f"{change} ({100 * times.low:+.2f} to {100 * times.high:+.2f} %{p}{spread})"


def _row(letter: str, side: SideTimes) -> Html:
    workers = side.workers_ms or (side.time_ms,)
    latency = [side.latency.get(key) for key in ("median", "p99")]
    figures = [
        *(f"{t:.4f}" for t in (side.time_ms, min(workers), max(workers))),
        *("" if t is None else f"{t:.4f}" for t in latency),
        rate_of(1e3 / side.time_ms) if side.time_ms else "",
        str(len(side.workers_ms)),
    ]
    return tag("tr", tag("th", letter, scope="row"), *(tag("td", f, class_="num") for f in figures))


def assertions_list(found: Comparison) -> Html | None:
    """How what was asserted ended; None where nothing was."""
    if not found.assertions:
        return None
    head = tag("tr", *(tag("th", n) for n in ("asserted of B", "it", "why")))
    marks = {"failed": "slower", "held": "faster"}
    rows = [
        tag("tr", tag("th", name, scope="row"), tag("td", outcome, class_=marks.get(outcome)), tag("td", why))
        for name, outcome, why in found.assertions
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="wide")


def outputs_part(found: Comparison) -> Html | None:
    """The outputs of each case beside each other; None where none were compared."""
    parts: list[Html] = []
    for case in found.cases:
        if case.agree is None:
            continue
        if len(found.cases) > 1 and case.label:
            parts.append(tag("h3", case.label))
        parts += [tag("p", note, class_="muted") for note in case.notes]
        if case.outputs:
            parts.append(_differences(case.outputs, "output"))
        parts += [tag("p", f"Left out, since it is random: {one}", class_="muted") for one in case.left_out]
    return tag("div", *parts) if parts else None


def layers_part(layers: Layers | None) -> Html | None:
    """The values that both sides have, in their order; None where they were not asked for."""
    if layers is None:
        return None
    where = f" ({layers.label})" if layers.label else ""
    first = "none of them diverges" if layers.first is None else f"the first that diverges is {layers.first}"
    told = tag("p", f"{layers.shared} values that both sides have{where}; {first}.")
    if not layers.values:
        return tag("div", told)
    return tag("div", told, _differences(layers.values, "value", layers.first))


def _differences(found: Sequence[Difference], what: str, first: str | None = None) -> Html:
    nodes = any(d.nodes for d in found)
    names = [what, *(["ONNX nodes"] if nodes else []), "largest difference", "relative norm", "cosine", "arg-max", "allowed", ""]
    head = tag("tr", *(tag("th", n, class_=None if n in (what, "ONNX nodes", "") else "num") for n in names))
    rows = []
    for d in found:
        figures = [
            "" if d.absolute is None else f"{d.absolute:.2e}",
            "" if d.relative is None else f"{d.relative:.2e}",
            "" if d.cosine is None else f"{d.cosine:.8f}",
            "" if d.argmax is None else f"{100 * d.argmax:.4g} %",
            "by element" if d.tolerance is None else f"{d.tolerance:.0e}",
        ]
        origins = [tag("td", ", ".join(d.nodes))] if nodes else []
        told = tag("td", "ok" if d.ok else f"differs {d.reason}".strip(), class_="faster" if d.ok else "slower")
        cells = [tag("th", d.name, scope="row"), *origins, *(tag("td", f, class_="num") for f in figures), told]
        rows.append(tag("tr", *cells, class_="chosen" if not d.ok and d.name == first else None))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="wide tall")
