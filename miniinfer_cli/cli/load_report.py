"""What a load came to, for people and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.cli.report import Printer, distribution_row, print_state, results_head
from miniinfer_cli.measuring.conditions import Conditions
from miniinfer_cli.measuring.load import Scenario
from miniinfer_cli.measuring.load_summary import KEPT, LoadSummary


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A load that is over, or was interrupted. ``served``: who answered; ``identity``: what was run, how, where and when."""

    summary: LoadSummary
    served: Mapping[str, Any]
    interrupted: bool
    identity: Mapping[str, Any]
    gpu_state: Mapping[str, Any]
    conditions: Conditions
    """What went on meanwhile."""


def print_load(printer: Printer, result: LoadResult) -> None:
    """The counts, the rates, and the rows of times."""
    s = result.summary
    load = s.load
    printer.section(f"Load: {load.scenario}")
    if result.interrupted:
        printer.line("Interrupted: what was measured so far is shown")
    asked = f" (by chance, {load.rate:g} a second)" if load.rate is not None else ""
    parts = [f"{s.issued} issued{asked}", f"{s.completed} completed", f"{s.dropped} dropped"]
    each = "" if s.batch is None else f"; {s.batch} sample{'s' * (s.batch != 1)} each"
    printer.line("Requests: " + ", ".join(parts + ([f"{s.unfinished} unfinished"] if s.unfinished else [])) + each)
    printer.line(f"Served by: {_served(result.served)}")
    samples = f" ({s.throughput_qps * s.batch:.2f} samples/s)" if s.batch is not None else ""
    printer.line(f"Throughput: {s.throughput_qps:.2f} qps{samples}")
    if s.goodput_qps is not None and s.within_budget is not None:
        ended = s.issued - s.unfinished
        part = 100 * s.within_budget / ended if ended else 0.0
        verdict = (
            "" if load.scenario is not Scenario.SERVER else f": {'kept' if s.kept else 'not kept'}, {KEPT * 100:g} % are wanted"
        )
        printer.line(f"Goodput: {s.goodput_qps:.2f} qps within {s.budget_ms:g} ms ({part:.2f} % of what came{verdict})")
    for name, row in (
        ("Latency", s.latency), ("Queueing", s.queueing), ("Service", s.service), ("Sent late", s.sent_late),
    ):  # fmt: skip
        if row is not None:
            printer.line(f"{name}: {distribution_row(row)}")
    if s.most_waiting is not None:
        printer.line(f"Longest queue: {s.most_waiting} requests")
    printer.line(f"Total host walltime: {s.walltime_s:.4f} s")
    if s.metric is not None:
        printer.line(f"MLPerf's figure: {s.metric.name}: {s.metric.value:.4f} {s.metric.unit}")
    for hint in s.hints:
        printer.line(f"hint: {hint}")
    for flag in result.conditions.flags:
        printer.line(f"hint: {flag}")
    print_state(printer, result.gpu_state)


def load_to_json(result: LoadResult) -> dict[str, Any]:
    """The same with stable keys, as docs/results.md describes a document of the kind ``load``."""
    return {
        **results_head("load"),
        **result.identity,
        **result.summary.to_json(),
        "interrupted": result.interrupted,
        "served": dict(result.served),
        "gpu_state": result.gpu_state,
        "conditions": result.conditions.to_json(),
    }


def _served(served: Mapping[str, Any]) -> str:
    contexts = f"{served['contexts']} context{'s' * (served['contexts'] > 1)}"
    if served["by"] == "contexts":
        return f"{contexts}, each request by itself"
    return (
        f"a Batcher of up to {served['batch_sizes'][-1]} rows, delay {served['max_delay_ms']:g} ms, {contexts};"
        f" {served['batches']} batches of {served['mean_batch']:.1f} rows on average"
        + "".join(f"; {d['rows']} rows on {name}" for name, d in served.get("devices", {}).items())
    )
