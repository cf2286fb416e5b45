"""The graph of the engine: its nodes in layers, coloured by time or by the numbers that it computes in."""

from collections.abc import Sequence
from itertools import pairwise

from miniinfer_cli.report.document import Node, Result
from miniinfer_cli.report.figures import shortened, time_of
from miniinfer_cli.report.layered import Drawing, drawing_of
from miniinfer_cli.report.markup import Html, joined, tag, text
from miniinfer_cli.report.svg import words

_NODE = (188.0, 36.0)
MOST_NODES = 5000  # beyond that, nobody finds a way through the picture
_LETTERS = 27
# Parts of the whole time, in percent, from which on a node has the next colour.
_STEPS = (0.2, 0.5, 1.0, 2.0, 5.0)
_TYPES = {
    "f32": "t0",
    "tf32": "t7",
    "f16": "t1",
    "bf16": "t2",
    **dict.fromkeys(("f8e4m3", "f8e5m2", "f8e4m3fnuz", "f8e5m2fnuz", "f4e2m1"), "t3"),
    **dict.fromkeys(("i8", "u8", "i4", "u4", "i2", "u2"), "t4"),
    **dict.fromkeys(("f64", "c64", "c128"), "t5"),
}
_TYPE_NAMES = {
    "t0": "f32", "t7": "TF32", "t1": "f16", "t2": "bf16", "t3": "f8, f4", "t4": "integers of 8 bits or fewer",
    "t5": "f64, complex", "t6": "other, or not known",
}  # fmt: skip


def graph_chart(result: Result) -> Html | None:
    """The picture, and what chooses its colours; None where nothing is known of who reads what."""
    nodes = result.nodes
    if not any(n.reads for n in nodes):
        return None
    if len(nodes) > MOST_NODES:
        return tag("p", f"A graph of {len(nodes)} nodes is too large to be drawn.", class_="muted")
    drawing = drawing_of([n.reads for n in nodes], node=_NODE)
    total = sum(n.median_ms for n in nodes) or 1.0
    edges = [tag("path", d=_curve(points)) for _, _, points in drawing.edges]
    boxes = [_box(n, drawing, 100 * n.median_ms / total) for n in nodes]
    size = f"{drawing.width:.0f}", f"{drawing.height:.0f}"
    svg = tag(
        "svg",
        tag("g", *edges, class_="edges"),
        *boxes,
        width=size[0],
        height=size[1],
        viewBox=f"0 0 {size[0]} {size[1]}",
        id="graph",
        role="img",
        aria_label="Graph of the engine",
    )
    return tag("div", _tools(nodes), tag("div", svg, class_="wide tall pan"), id="graph-box", data_by="time")


def _tools(nodes: Sequence[Node]) -> Html:
    names = [f"< {_STEPS[0]:g} %", *(f"{a:g}–{b:g} %" for a, b in pairwise(_STEPS)), f"≥ {_STEPS[-1]:g} %"]
    by_time = [_swatch(f"s{n}", name) for n, name in enumerate(names)]
    there = {_type_class(n) for n in nodes}
    by_type = [_swatch(key, name) for key, name in _TYPE_NAMES.items() if key in there]
    return tag(
        "div",
        tag("span", _choice("time", "time", chosen=True), _choice("type", "precision", chosen=False), class_="switch"),
        tag(
            "span",
            *(tag("button", sign, type="button", data_zoom=by, title=title) for sign, by, title in _ZOOMS),
            class_="switch",
        ),
        tag("span", *by_time, class_="legend of-time"),
        tag("span", *by_type, class_="legend of-type"),
        class_="tools",
    )


_ZOOMS = (("−", "0.8", "Smaller"), ("+", "1.25", "Larger"), ("fit", "fit", "As wide as the page"))


def _choice(by: str, name: str, *, chosen: bool) -> Html:
    return tag("button", f"by {name}", type="button", data_by=by, aria_pressed="true" if chosen else "false")


def _swatch(key: str, name: str) -> Html:
    return tag("span", tag("i", class_=f"swatch {key}"), name)


def _box(node: Node, drawing: Drawing, percent: float) -> Html:
    x, y = drawing.nodes[node.number]
    left, top = x - _NODE[0] / 2, y - _NODE[1] / 2
    step = sum(percent >= s for s in _STEPS)
    told = (node.label, f"{node.operation}, {node.how}", f"{time_of(node.median_ms)}, {percent:.1f} %")
    second = f"{shortened(node.operation.rpartition('.')[2], 16)} · {time_of(node.median_ms)}"
    parts = (
        tag("title", joined(Html(f"{text(line)}\n") for line in told)),
        tag("rect", x=f"{left:.1f}", y=f"{top:.1f}", width=f"{_NODE[0]:g}", height=f"{_NODE[1]:g}", rx=5),
        words(left + 8, y - 3, shortened(node.label, _LETTERS)),
        words(left + 8, y + 12, second),
    )
    return tag("a", *parts, href=f"#n{node.number}", class_=f"s{step} {_type_class(node)}")


def _type_class(node: Node) -> str:
    return _TYPES.get(node.numbers or "", "t6")


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """A smooth line downwards through points."""
    way = [f"M{points[0][0]:.0f} {points[0][1]:.0f}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        way.append(f"C{x0:.0f} {middle:.0f} {x1:.0f} {middle:.0f} {x1:.0f} {y1:.0f}")
    return "".join(way)
