"""The table of nodes: a row each, which the page's script sorts and filters; and the time by operation."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from miniinfer_cli.report.document import Node, Result
from miniinfer_cli.report.markup import Html, lone, tag

_TIME = "ms"
_FEW = 100  # GFLOP/s, below which digits behind the point say something
_LONG = 30  # letters, which may not all be seen


@dataclass(frozen=True, slots=True)
class _Column:
    """``value`` of a node, None where there is none; numbers are shown with ``digits`` behind the point."""

    name: str
    value: Callable[[Node], str | float | None]
    digits: int | None = None
    title: str | None = None


def _columns(nodes: Sequence[Node]) -> tuple[_Column, ...]:
    total_ms = sum(n.median_ms for n in nodes)
    fine = max((_rate(n.flops, n) or 0.0 for n in nodes), default=0.0) < _FEW
    return (
        _Column("#", lambda n: n.number, 0, "Place in the program"),
        _Column("node", lambda n: n.label),
        _Column("operation", lambda n: n.operation),
        _Column("how", lambda n: n.how),
        _Column("chosen by", lambda n: n.chosen_by),
        _Column("numbers", lambda n: n.rate, title="What computes, in which numbers"),
        _Column(_TIME, lambda n: n.median_ms, 4, "Median time"),
        _Column("%", lambda n: 100 * n.median_ms / total_ms if total_ms else None, 1, "Part of the sum of all nodes"),
        _Column("gap ms", lambda n: n.gap_ms, 4, "What passes in front of it while nothing computes"),
        _Column("GFLOP/s", lambda n: _rate(n.flops, n), 2 if fine else 0),
        _Column("GB/s", lambda n: _rate(n.nbytes, n), 1),
        _Column("of roofline %", lambda n: None if n.fraction is None else 100 * n.fraction, 0, "100: as fast as the device can"),
        _Column("bound by", lambda n: n.bound_by, title="The ceiling that it is nearer to"),
        _Column(
            "ONNX nodes", lambda n: ", ".join(n.origins) if n.origins != (n.label,) else None, title="Where it is not the same"
        ),
    )


def _rate(amount: int | None, node: Node) -> float | None:
    return None if amount is None or not node.median_ms else amount / node.median_ms / 1e6


def node_table(result: Result) -> Html:
    """All nodes in the order of the program. Columns that no node fills are left out."""
    nodes = result.nodes
    total = sum(n.median_ms for n in nodes)
    columns = [c for c in _columns(nodes) if any(c.value(n) not in (None, "") for n in nodes)]
    head = [
        tag("th", tag("button", c.name, type="button"), title=c.title, class_="num" if c.digits is not None else None)
        for c in columns
    ]
    first = next(n for n, c in enumerate(columns) if c.name == _TIME)
    most = max((n.median_ms for n in nodes), default=0.0) or 1.0
    lines = [tag("tr", *(_cell(c, n, most) for c in columns), id=f"n{n.number}", data_op=n.operation) for n in nodes]
    operations = sorted({n.operation for n in nodes})
    choices = [tag("option", "all", value=""), *(tag("option", o) for o in operations)]
    tools = tag(
        "div",
        tag("label", "Filter ", lone("input", type="search", id="filter", placeholder="part of a name, a tactic …")),
        tag("label", "Operation ", tag("select", *choices, id="op")),
        tag("output", f"{len(nodes)} nodes, {total:.4f} ms", id="shown"),
        class_="tools",
    )
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *lines), id="nodes", class_="sortable", data_first=first)
    return tag("div", tools, tag("div", table, class_="wide tall"))


def _cell(column: _Column, node: Node, most_ms: float) -> Html:
    value = column.value(node)
    if column.digits is None:
        told = "" if value is None else str(value)
        return tag("td", told, title=told if len(told) > _LONG else None)
    if value is None:
        return tag("td", class_="num")
    written = f"{value:.{column.digits}f}"
    bar = f"--part:{100 * node.median_ms / most_ms:.1f}%" if column.name == _TIME else None
    return tag("td", written, class_="num bar" if bar else "num", style=bar)


def operation_bars(result: Result) -> Html:
    """The time by operation, most first, as bars."""
    sums: dict[str, list[float]] = defaultdict(list)
    for node in result.nodes:
        sums[node.operation].append(node.median_ms)
    return bars([(f"{kind} ({len(times)})", sum(times)) for kind, times in sums.items()])


def bars(amounts: Sequence[tuple[str, float]], whole_ms: float | None = None, *, in_order: bool = False) -> Html:
    """Names with times in ms as horizontal bars, most first unless ``in_order``; with their parts of all, or of ``whole_ms``."""
    total = sum(ms for _, ms in amounts) if whole_ms is None else whole_ms
    most = max((ms for _, ms in amounts), default=0.0)
    lines = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", tag("i", style=f"width:{max(100 * ms / most, 0.0) if most > 0 else 0.0:.1f}%"), class_="track"),
            tag("td", f"{ms:.4f} ms", class_="num"),
            tag("td", f"{100 * ms / total:.1f} %" if total else "", class_="num"),
        )
        for name, ms in (amounts if in_order else sorted(amounts, key=lambda a: -a[1]))
    ]
    return tag("div", tag("table", tag("tbody", *lines), class_="bars"), class_="wide")
