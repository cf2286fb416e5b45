"""A report: one HTML file that asks nothing of any network. Its parts stand in the files beside this one."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from miniinfer_cli.report.comparison import is_comparison, read_comparison
from miniinfer_cli.report.comparison_section import assertions_list, layers_part, outputs_part, times_part
from miniinfer_cli.report.diagnosis_section import account_bars, diagnosis
from miniinfer_cli.report.document import Result, read_result
from miniinfer_cli.report.graph_chart import graph_chart
from miniinfer_cli.report.markup import Html, data_block, joined, lone, tag
from miniinfer_cli.report.node_table import node_table, operation_bars
from miniinfer_cli.report.pair_section import differences, figures_table, pair_header, pairs_table
from miniinfer_cli.report.roofline_chart import roofline_chart
from miniinfer_cli.report.summary import cards, environment, facts_list, header, hints_list, rows_table, title_of
from miniinfer_cli.report.sweep_section import chosen_cards, curves, points_table
from miniinfer_cli.report.timeline_chart import timeline_chart


@dataclass(frozen=True, slots=True)
class _Section:
    """A part of the page. ``key`` is its place in the address."""

    key: str
    title: str
    parts: tuple[Html, ...]


def page_of(document: Any) -> str:
    """The report of a document that docs/results.md describes, as the text of an HTML file.

    Sections whose keys the document lacks are left out. Raises UsageError for what is no such document.
    """
    if is_comparison(document):
        return _page_of_comparison(document)
    result = read_result(document)
    sections = [s for s in _sections(result) if s.parts]
    return _page(f"{title_of(result)} · miniinfer", header(result), sections, _data(result))


def page_of_two(document: Any, other: Any) -> str:
    """The report of two documents beside each other, with their nodes aligned. Raises UsageError as ``page_of``."""
    a, b = read_result(document), read_result(other)
    found = (
        _Section("figures", "Figures", (figures_table(a, b),)),
        _Section("pairs-section", "Nodes side by side", _there(pairs_table(a, b))),
        _Section("environment", "What is not the same", _there(differences(a, b))),
    )
    return _page(f"{title_of(a)} and {title_of(b)} · miniinfer", pair_header(a, b), [s for s in found if s.parts], {})


def _page_of_comparison(document: Any) -> str:
    found = read_comparison(document)
    a, b = found.a, found.b
    at = tag("p", f"Of an inference of {found.nodes_of}.", class_="muted") if found.nodes_of else None
    settings = facts_list({"Settings": found.settings}) if found.settings else None
    sections = (
        _Section("times", "Times", _there(times_part(found))),
        _Section("assertions", "Assertions", _there(assertions_list(found))),
        _Section("outputs", "Outputs", _there(outputs_part(found))),
        _Section("layers", "Where they begin to differ", _there(layers_part(found.layers))),
        _Section("pairs-section", "Nodes side by side", _there(*((at, t) if (t := pairs_table(a, b)) is not None else ()))),
        _Section("environment", "What is not the same", _there(differences(a, b), settings)),
    )
    return _page(f"{title_of(a)} and {title_of(b)} · miniinfer", pair_header(a, b), [s for s in sections if s.parts], {})


def _sections(result: Result) -> Iterator[_Section]:
    if result.sweep is None:
        yield _Section("summary", "Summary", _there(cards(result), hints_list(result), rows_table(result)))
    else:
        charts = () if curves(result.sweep) is None else (_chart("throughput"), _chart("p99"))
        parts = (chosen_cards(result.sweep), hints_list(result), *charts, points_table(result.sweep))
        yield _Section("sweep", "Sweep", _there(*parts))
    if result.histogram is not None:
        beyond = result.histogram.beyond
        told = tag("p", f"Longer than what is shown: {beyond}.", class_="muted") if beyond else None
        yield _Section("latency", "Latency", _there(_chart("histogram"), told))
    yield _Section("diagnosis", "Diagnosis", _there(diagnosis(result)))
    if result.account is not None:
        yield _Section("account", "Where an inference goes", (account_bars(result.account),))
    yield _Section("timeline", "Timeline", _there(timeline_chart(result)))
    if result.nodes:
        yield _Section("operations", "Time by operation", (operation_bars(result),))
    yield _Section("roofline", "Roofline", _there(roofline_chart(result)))
    if result.nodes:
        yield _Section("nodes-section", "Nodes", (node_table(result),))
    yield _Section("graph-section", "Graph", _there(graph_chart(result)))
    yield _Section("environment", "Environment", (environment(result),))


def _there(*parts: Html | None) -> tuple[Html, ...]:
    return tuple(p for p in parts if p is not None)


def _chart(name: str) -> Html:
    """Where the page's script draws."""
    return tag("div", tag("noscript", "This chart is drawn by JavaScript."), class_="chart", data_chart=name)


def _data(result: Result) -> dict[str, Any]:
    """What the page's script draws: histogram and curves."""
    found: dict[str, Any] = {}
    h = result.histogram
    if h is not None:
        found["histogram"] = {"from": h.from_ms, "width": h.width_ms, "counts": list(h.counts)}
        latency = result.rows.get("Latency", {})
        found["histogram"]["marks"] = {k: latency[k] for k in ("median", "p99") if k in latency}
    drawn = None if result.sweep is None else curves(result.sweep)
    if drawn is not None:
        found["sweep"] = drawn
    return found


def _page(title: str, top: Html, sections: Sequence[_Section], data: dict[str, Any]) -> str:
    links = tag("nav", *(tag("a", s.title, href=f"#{s.key}") for s in sections))
    body = [tag("section", tag("h2", s.title), *s.parts, id=s.key) for s in sections]
    scripts = [_asset("third_party/uplot/uPlot.iife.min.js"), _asset("assets/page.js")]
    styles = _asset("third_party/uplot/uPlot.min.css") + _asset("assets/page.css")
    # Nothing is fetched, and no script runs but these two.
    allowed = " ".join(f"'sha256-{_digest(s)}'" for s in scripts)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        lone("meta", charset="utf-8"),
        lone("meta", http_equiv="Content-Security-Policy", content=policy),
        lone("meta", name="viewport", content="width=device-width, initial-scale=1"),
        lone("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Html(styles)),
    )
    ends = (data_block("data", data), *(tag("script", Html(s)) for s in scripts))
    page = tag("html", head, tag("body", tag("main", top, links, *body), *ends), lang="en")
    return joined((Html("<!doctype html>\n"), page, Html("\n")))


def _asset(path: str) -> str:
    return (resources.files("miniinfer_cli.report") / path).read_text("utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
