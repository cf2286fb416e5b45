"""Two results beside each other: figures, nodes, and what is different about how they came about."""

from collections.abc import Sequence

from miniinfer_cli.report.aligning import Pair, aligned
from miniinfer_cli.report.document import Node, Result
from miniinfer_cli.report.markup import Html, tag
from miniinfer_cli.report.summary import title_of, told_of

_NEAR = 0.02  # a part that is not worth a colour

_FIGURES = {
    "throughput_qps": "per second",
    "samples_per_second": "samples per second",
    "weights_bytes": "bytes of weights",
    "arena_bytes": "bytes of activations",
    "nodes_sum_ms": "sum of the nodes, ms",
}
_MORE_IS_BETTER = {"per second", "samples per second"}


def pair_header(one: Result, other: Result) -> Html:
    """Both plans, where and when they ran."""
    sides = [
        tag("p", tag("b", f"{name}: {title_of(result)}"), f" · {' · '.join(told_of(result))}", class_="sub")
        for name, result in (("A", one), ("B", other))
    ]
    return tag("header", tag("h1", f"{title_of(one)} and {title_of(other)}"), *sides)


def figures_table(one: Result, other: Result) -> Html:
    """The figures that both have, and how many times B is of A."""
    rows = [(name, one.figures.get(key), other.figures.get(key)) for key, name in _FIGURES.items()]
    for row, figures in one.rows.items():
        theirs = other.rows.get(row, {})
        rows += [(f"{row}, {key}, ms", figures.get(key), theirs.get(key)) for key in ("median", "p99")]
    head = tag("tr", tag("th", ""), *(tag("th", name, class_="num") for name in ("A", "B", "B / A")))
    lines = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(tag("td", _figure(value), class_="num") for value in (a, b)),
            tag("td", f"{b / a:.3f}" if a else "", class_=f"num {_judged(name, a, b)}".strip()),
        )
        for name, a, b in rows
        if a is not None and b is not None
    ]
    told = (
        "These are two runs, one of each: how much of a difference is chance, they do not tell. "
        "miniinfer compare measures both in turn, and does."
    )
    table = tag("table", tag("thead", head), tag("tbody", *lines), class_="narrow")
    return tag("div", tag("div", table, class_="wide"), tag("p", told, class_="muted"))


def _figure(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.4f}" if value < 100 else f"{value:.2f}"


def _judged(name: str, a: float, b: float) -> str:
    if not a or abs(b / a - 1) <= _NEAR or name.startswith("bytes"):
        return ""
    return "faster" if (b > a) == (name in _MORE_IS_BETTER) else "slower"


def pairs_table(one: Result, other: Result) -> Html | None:
    """The nodes of both beside each other; None where one has none."""
    if not one.nodes or not other.nodes:
        return None
    pairs = aligned(one.nodes, other.nodes)
    names = ("#", "A", "how", "ms A", "ms B", "B − A", "how", "B")
    head = tag("tr", *(tag("th", tag("button", n, type="button"), class_="num" if n in _NUMBERS else None) for n in names))
    lines = [tag("tr", *_cells(number, pair)) for number, pair in enumerate(pairs)]
    alone = sum(not p.left or not p.right for p in pairs)
    told = f"{len(pairs)} rows: nodes that compute parts of the same nodes of the model stand in one."
    if alone:
        told += f" {alone} of them have no counterpart."
    sums = [sum(n.median_ms for n in result.nodes) for result in (one, other)]
    told += f" All nodes of A take {sums[0]:.4f} ms, all of B {sums[1]:.4f} ms."
    table = tag("table", tag("thead", head), tag("tbody", *lines), id="pairs", class_="sortable", data_first="5")
    return tag("div", tag("p", told, class_="muted"), tag("div", table, class_="wide tall"))


_NUMBERS = ("#", "ms A", "ms B", "B − A")


def _cells(number: int, pair: Pair) -> list[Html]:
    a, b = pair.left_ms, pair.right_ms
    judged = "" if abs(b - a) <= _NEAR * max(a, b) else "faster" if b < a else "slower"
    return [
        tag("td", str(number), class_="num"),
        _side([n.label for n in pair.left]),
        _side(_hows(pair.left)),
        tag("td", f"{a:.4f}" if pair.left else "", class_="num"),
        tag("td", f"{b:.4f}" if pair.right else "", class_="num"),
        tag("td", f"{b - a:+.4f}", class_=f"num {judged}".strip()),
        _side(_hows(pair.right)),
        _side([n.label for n in pair.right]),
    ]


def _hows(nodes: Sequence[Node]) -> list[str]:
    return list(dict.fromkeys(n.how for n in nodes))


def _side(texts: Sequence[str]) -> Html:
    told = ", ".join(texts)
    return tag("td", told, title=told if len(told) > 30 else None)


def differences(one: Result, other: Result) -> Html | None:
    """What is not the same in both environments; None where nothing is."""
    lines = []
    for group in dict.fromkeys((*one.facts, *other.facts)):
        a, b = (dict(result.facts.get(group, ())) for result in (one, other))
        lines += [
            tag("tr", tag("th", f"{group}: {key}", scope="row"), tag("td", a.get(key, "")), tag("td", b.get(key, "")))
            for key in dict.fromkeys((*a, *b))
            if a.get(key) != b.get(key)
        ]
    if not lines:
        return None
    head = tag("tr", tag("th", "not the same"), tag("th", "A"), tag("th", "B"))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *lines)), class_="wide")
