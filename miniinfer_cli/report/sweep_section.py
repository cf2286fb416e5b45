"""What a sweep found: the chosen settings, curves over the batch, and every setting in a table."""

from typing import Any

from miniinfer_cli.report.document import Point, Sweep
from miniinfer_cli.report.figures import rate_of, time_of
from miniinfer_cli.report.markup import Html, tag


def unit_of(sweep: Sweep) -> str:
    """Of throughput."""
    return "samples/s" if any(p.samples_per_second is not None for p in sweep.points) else "inferences/s"


def _told(point: Point) -> str:
    return f"streams {point.streams}" + ("" if point.batch is None else f", batch {point.batch}")


def chosen_cards(sweep: Sweep) -> Html:
    """The best settings and the knee."""
    return tag(
        "div",
        *(
            tag(
                "div",
                tag("b", _told(point)),
                tag("span", f"{name}: {rate_of(point.rate)} {unit_of(sweep)}, p99 {time_of(point.p99_ms)}"),
                class_="card",
            )
            for name, point in sweep.chosen.items()
        ),
        class_="cards",
    )


def curves(sweep: Sweep) -> dict[str, Any] | None:
    """Throughput and p99 over the load, a line for each number of streams, for the page's script.

    The load is the batch; where only the streams differ, these, as one line. None where nothing was measured.
    """
    if not sweep.points:
        return None
    batches = {p.batch for p in sweep.points}
    by_batch = len(batches) > 1
    lines: dict[str, dict[int, Point]] = {}
    for point in sweep.points:
        name = f"streams {point.streams}" if by_batch else "all"
        lines.setdefault(name, {})[(point.batch or 1) if by_batch else point.streams] = point
    loads = sorted({load for line in lines.values() for load in line})

    def series(value: str) -> list[list[float | None]]:
        return [[getattr(line[x], value) if x in line else None for x in loads] for line in lines.values()]

    names = list(lines) if len(lines) > 1 else [""]
    return {
        "x": loads,
        "axis": "batch" if by_batch else "streams",
        "names": names,
        "unit": unit_of(sweep),
        "throughput": series("rate"),
        "p99": series("p99_ms"),
    }


def points_table(sweep: Sweep) -> Html:
    """Every setting that was measured; and why others were not."""
    with_batch = any(p.batch is not None for p in sweep.points)
    names = ["streams", *(["batch"] if with_batch else []), unit_of(sweep), "p50 ms", "p99 ms", "it is"]
    head = tag("tr", *(tag("th", n, class_="num" if n != "it is" else None) for n in names))
    lines = []
    for p in sweep.points:
        figures = [str(p.streams), *([str(p.batch)] if with_batch else []), f"{p.rate:.2f}", f"{p.p50_ms:.4f}", f"{p.p99_ms:.4f}"]
        chosen = ", ".join(name for name, point in sweep.chosen.items() if point == p)
        lines.append(tag("tr", *(tag("td", f, class_="num") for f in figures), tag("td", chosen)))
    table = tag("div", tag("table", tag("thead", head), tag("tbody", *lines)), class_="wide tall")
    left = [tag("li", f"{setting}: {why}") for setting, why in sweep.unmeasured]
    if not left:
        return table
    folded = tag("details", tag("summary", f"{len(left)} settings were not measured"), tag("ul", *left))
    return tag("div", table, folded)
