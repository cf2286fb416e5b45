"""The head of a report: what was measured, the figures that matter most, the rows of the summary, hints, the environment."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from miniinfer_cli.report.document import Result
from miniinfer_cli.report.figures import rate_of, size_of, time_of
from miniinfer_cli.report.markup import Html, joined, tag


def title_of(result: Result) -> str:
    """The plan's name, without its folder."""
    return PurePath(result.plan).name or "a plan"


def header(result: Result) -> Html:
    """The plan, where and when it ran."""
    return tag("header", tag("h1", title_of(result)), tag("p", " · ".join(told_of(result)), class_="sub"))


def told_of(result: Result) -> list[str]:
    """Where, at which setting and when it ran."""
    where = result.device if result.device_name in ("", result.device) else f"{result.device_name} ({result.device})"
    batch, streams = result.figures.get("batch"), result.figures.get("streams", 1)
    at = ["" if batch is None else f"batch {batch:g}", f"{streams:g} streams" if streams > 1 else ""]
    return [part for part in (where, *at, result.date) if part]


def cards(result: Result) -> Html:
    """The figures that matter most."""
    figures, rows = result.figures, result.rows
    latency = rows.get("Latency", {})
    found: list[tuple[str, str | None]] = [
        ("samples per second", _rate(figures.get("samples_per_second"))),
        ("requests per second" if result.kind == "load" else "inferences per second", _rate(figures.get("throughput_qps"))),
        ("offered per second", _rate(figures.get("offered_qps"))),
        ("per second within the budget", _rate(figures.get("goodput_qps"))),
        ("median latency", _time(latency.get("median"))),
        ("p99 latency", _time(latency.get("p99"))),
        ("GPU compute, median", _time(rows.get("GPU compute time", {}).get("median"))),
        ("weights", _size(figures.get("weights_bytes"))),
        ("activations", _size(figures.get("arena_bytes"))),
    ]
    shown = [tag("div", tag("b", value), tag("span", name), class_="card") for name, value in found if value is not None]
    return tag("div", *shown, class_="cards")


def _rate(value: float | None) -> str | None:
    return None if value is None else rate_of(value)


def _time(value: float | None) -> str | None:
    return None if value is None else time_of(value)


def _size(value: float | None) -> str | None:
    return None if value is None else size_of(value)


def rows_table(result: Result) -> Html | None:
    """The distributions, a row each; None where there are none."""
    if not result.rows:
        return None
    columns = list(dict.fromkeys(key for row in result.rows.values() for key in row))
    head = tag("tr", tag("th", "milliseconds"), *(tag("th", c, class_="num") for c in columns))
    lines = [
        tag("tr", tag("th", name, scope="row"), *(tag("td", f"{row[c]:.4f}" if c in row else "", class_="num") for c in columns))
        for name, row in result.rows.items()
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *lines)), class_="wide")


def hints_list(result: Result) -> Html | None:
    """Hints and notes; None where there are none."""
    found = [tag("li", hint) for hint in result.hints] + [tag("li", note, class_="muted") for note in result.notes]
    return tag("ul", *found, class_="hints") if found else None


def environment(result: Result) -> Html:
    """What was run, how and where."""
    return facts_list(result.facts)


def facts_list(facts: Mapping[str, Sequence[tuple[str, str]]]) -> Html:
    """Names and values in groups."""

    def group(name: str) -> Html:
        pairs = joined(joined((tag("dt", key), tag("dd", value))) for key, value in facts[name])
        return tag("div", tag("h3", name), tag("dl", pairs), class_="facts")

    return tag("div", *(group(name) for name in facts), class_="groups")
