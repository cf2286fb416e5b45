"""``miniinfer inspect``: what is in a plan, or in an ONNX model, without running it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from engine_format import Plan, PlanError, TacticRecord
from engine_format.layout import MAGIC
from engine_format.records import DimensionRange
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.linting import lint_graph, print_lint
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.placing import place_for_report
from miniinfer_cli.cli.precision import print_recorded
from miniinfer_cli.cli.report import Printer, describe_ranges, write_json
from miniinfer_cli.cli.sources import key_source, model_sources, sources
from miniinfer_cli.devices.placement import Placement, Unplaced, optimal_types
from miniinfer_cli.devices.stored_code import kernel_reports
from miniinfer_cli.diagnosis.lint import HostStep
from miniinfer_cli.errors import CheckFailed, ModelError, PlanFileError, UsageError, refused
from miniinfer_cli.ir import Graph, States
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.limits import Limits, chosen_limits
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.pipes import pipe_contents
from miniinfer_cli.planning.ranges import all_ranges
from miniinfer_cli.planning.thaw import thaw
from miniinfer_cli.plugins import load_plugins
from miniinfer_cli.report.figures import size_of
from miniinfer_cli.runtime.plan_files import open_plan
from miniinfer_cli.runtime.trust import key_in_environment, known_keys, standing
from miniinfer_cli.wording import as_flags

_SOURCE = 12  # characters of the digest of a kernel's source; JSON has all
_WIDEST = 100  # characters of what a tactic computes; JSON has all


@click.command("inspect")
@click.argument("file", type=flags.PATH)
@click.option("--graph", "show_graph", is_flag=True, help="Print the graph as text.")
@click.option("--check", is_flag=True, help="Compare everything in the plan with its digests; exit 1 when something is damaged.")
@click.option("--kernels", "show_kernels", is_flag=True, help="List compiled kernels: registers, local and shared memory.")
@click.option(
    "--lint", "linted", is_flag=True, help="Remark on what keeps it from being faster, as far as that shows with no run."
)
@flags.trust_key_flag
@flags.plugin_flag
@flags.limit_flag
@flags.report_flags("what is known")
def command(
    file: Path, show_graph: bool, check: bool, show_kernels: bool, linted: bool, trust_key: Path | None,
    plugins: tuple[str, ...], limits: dict[str, int], printer: Printer, json_file: Path | None,
) -> None:  # fmt: skip
    """Show what FILE, a plan or an ONNX model, holds."""
    contents = _pipe(file)
    is_plan = contents is None and _is_plan(file)
    read = (sources if is_plan else model_sources)(file, plugins=plugins)
    check_outputs([Output("--json", json_file, json=True)], [*read, *key_source(trust_key)])
    load_plugins(plugins)
    chosen = chosen_limits(limits)
    if is_plan:
        with open_plan(file) as plan:
            if check:
                _check(plan, file)
            graph = thaw(plan, chosen)
            ranges = all_ranges(graph, plan.ranges)
            described = describe_plan(plan, trust_key or key_in_environment())
            document = {"file": str(file), "kind": "plan", **describe_graph(graph), **described}
            document["dimensions"] = describe_ranges(ranges)
            document["outputs"] = _as_listed(document)
            placement = place_for_report(graph, {r.name: r for r in plan.ranges})
            document["gpu"] = placement.to_json()
            _print(printer, document, ranges)
            for line in placement.lines():
                printer.line(as_flags(line))
            if isinstance(placement, Placement) and placement.tactics:
                printer.section("On a GPU without libraries")
                printer.table(("tactic", "chosen by", "steps"), list(placement.tactics))
            if show_kernels:
                _print_kernels(printer, document["targets"])
            if linted:
                document["lint"] = _lint(printer, graph, plan.report.options, plan.ranges, placement)
            if check:
                printer.line("Check: every byte agrees with its digest")
            if show_graph:
                printer.lines(print_graph(graph).rstrip())
    else:
        if check:
            raise UsageError("--check compares a plan with its digests, and an ONNX model has none").at(str(file))
        if show_kernels:
            raise UsageError("--kernels lists the compiled kernels of a plan, and an ONNX model has none").at(str(file))
        graph, model = _read_onnx(file if contents is None else contents, chosen)
        document = {"file": str(file), "kind": "onnx", **describe_graph(graph), "model": model}
        document["outputs"] = _as_listed(document)
        _print(printer, document)
        if linted:
            built = graph.copy()
            optimize(built)  # as a build without flags would have it
            document["lint"] = _lint(printer, built, {}, (), place_for_report(built, {}))
        if show_graph:
            printer.lines(print_graph(graph).rstrip())
    if json_file is not None:
        write_json(json_file, document)


def _lint(
    printer: Printer, graph: Graph, options: Mapping[str, Any], ranges: Sequence[DimensionRange], placement: Placement | Unplaced
) -> list[dict[str, Any]]:
    """The remarks on an optimized graph, printed, and as JSON."""
    placed = placement.host_nodes if isinstance(placement, Placement) else ()
    steps = [HostStep(n.node, n.operation, n.reason, n.copied_nbytes) for n in placed]
    try:
        inputs = optimal_types(graph, {r.name: r for r in ranges})
    except ModelError:  # only a run can tell: sizes contradict each other
        inputs = None
    remarks = lint_graph(graph, inputs, options, steps)
    print_lint(printer, remarks)
    return [r.to_json() for r in remarks]


def describe_graph(graph: Graph) -> dict[str, Any]:
    """Bindings, counts of operations (those inside regions too), and bytes of constants by element type."""
    weights: Counter[str] = Counter()
    seen = set()
    for value in graph.all_constants():
        if value.constant is not None and value.constant not in seen:
            seen.add(value.constant)
            weights[str(value.constant.dtype)] += value.constant.nbytes
    states = States(()) if graph.states is None else graph.states
    held, left = states.inputs, states.outputs
    types = {v.name: str(v.type or "?") for v in graph.inputs}
    outputs = zip(graph.output_names, graph.outputs, strict=True)
    return {
        "graph": graph.name,
        "inputs": [{"name": n, "type": t, "optional": n in graph.defaults} for n, t in types.items() if n not in held],
        "outputs": [{"name": n, "type": str(v.type or "?")} for n, v in outputs if n not in left],
        "states": [
            {"input": p.past, "output": p.present, "type": types[p.past], "rows": None if p.axis is None else states.capacity}
            for p in states.pairs
        ],
        "nodes": len(graph),
        "operations": dict(Counter(f"{n.domain}.{n.op}" if n.domain else n.op for n in graph).most_common()),
        "fused_operations": dict(Counter(i.op for n in graph if n.body is not None for i in n.body).most_common()),
        "constants": len(seen),
        "weight_bytes": dict(weights.most_common()),
    }


def describe_plan(plan: Plan, trust_key: Path | None) -> dict[str, Any]:
    """How the plan was built, its targets, whether they are trusted here, and its digest. Raises UsageError for a faulty key."""
    keys = known_keys(trust_key) if plan.targets or trust_key is not None else []
    return {
        "producer": plan.report.producer,
        "digest": plan.digest,
        "op_sets": dict(plan.op_sets),
        "options": dict(plan.report.options),
        "passes": dict(plan.report.passes),
        "model": dict(plan.report.metadata),
        "targets": [
            {
                "arch": t.arch,
                "libraries": dict(t.libraries),
                "gpu": None if t.gpu is None else t.gpu.name,
                "tactics": len(t.tactics) + len(t.records),
                "records": [_describe_record(r) for r in t.records],
                "kernels": len(t.kernels),
                "compiled": [kernel.to_json() for kernel in kernel_reports(t)],
                "trust": standing(t, keys),
            }
            for t in plan.targets
        ],
    }


def _describe_record(record: TacticRecord) -> dict[str, Any]:
    return {
        "tactic": record.key,
        "chosen_by": str(record.chosen_by),
        "time_us": record.time_us,
        "maker": record.maker,
        "computes": record.signature,
    }


_SHOWN_STATES = 4  # of a plan: a decoder has two for each layer


def _texts(model: Mapping[str, Any], key: str) -> list[str]:
    """What the metadata list under ``key``: a plan of another writer may hold anything there, which is no list of ours then."""
    found = model.get(key, ())
    return [text for text in found if isinstance(text, str)] if isinstance(found, (list, tuple)) else []


def _print(printer: Printer, document: dict[str, Any], ranges: Sequence[DimensionRange] = ()) -> None:
    printer.line(f"File: {document['file']} ({'plan' if document['kind'] == 'plan' else 'ONNX model'})")
    for kind in ("inputs", "outputs"):
        for binding in document[kind]:
            optional = " (optional: the plan holds a default)" if binding.get("optional") else ""
            printer.line(f"{kind[:-1].capitalize()}: {binding['name']}: {binding['type']}{optional}")
    for state in document["states"][:_SHOWN_STATES]:
        rows = "" if state["rows"] is None else f", a cache of {state['rows']} rows"
        printer.line(f"State: {state['input']} -> {state['output']}: {state['type']}{rows}")
    if len(document["states"]) > _SHOWN_STATES:
        printer.line(f"State: {len(document['states']) - _SHOWN_STATES} more (--json lists them)")
    for sizes in ranges:
        printer.line(f"Dimension: {sizes}")
    for note in _texts(document["model"], "notes"):
        printer.line(f"Note: {note}")
    total = sum(document["weight_bytes"].values())
    parts = ", ".join(f"{size_of(n)} {dtype}" for dtype, n in document["weight_bytes"].items())
    printer.line(f"Weights: {size_of(total)} in {document['constants']} constants" + (f" ({parts})" if parts else ""))
    versions = document["op_sets"] if document["kind"] == "plan" else document["model"].get("opsets", {})
    if versions:
        printer.line("Operator sets: " + ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in versions.items()))
    printer.section(f"Operations: {document['nodes']} nodes")
    printer.table(("operation", "count"), list(document["operations"].items()))
    if document["fused_operations"]:
        printer.section("Inside fused nodes")
        printer.table(("operation", "count"), list(document["fused_operations"].items()))
    if document["kind"] == "plan":
        print_recorded(printer, document["options"])
        printer.section("Passes that fired")
        printer.table(("pass", "fired"), [(n, c) for n, c in document["passes"].items() if c])
        for target in document["targets"]:
            gpu = f" ({target['gpu']})" if target["gpu"] else ""
            counts = f"{target['tactics']} tactics, {target['kernels']} kernels"
            printer.line(f"Target: {target['arch']}{gpu}, {counts}, {target['trust']}")
            _print_records(printer, target["records"])
        if not document["targets"]:
            printer.line("Targets: none (kernels are compiled at first use)")
        printer.line(f"Built by: {document['producer']}")
        printer.line(f"Digest: {document['digest']}")


def _print_records(printer: Printer, records: Sequence[Mapping[str, Any]]) -> None:
    if records:
        rows = [
            (r["tactic"], r["chosen_by"], "" if r["time_us"] is None else f"{r['time_us']:.1f}", _shortened(r["computes"]))
            for r in records
        ]
        printer.table(("tactic", "chosen by", "us", "computes"), rows)


def _print_kernels(printer: Printer, targets: Sequence[Mapping[str, Any]]) -> None:
    columns = ("registers", "local_bytes", "shared_bytes", "code_bytes")
    for target in targets:
        if target["compiled"]:
            printer.section(f"Kernels for {target['arch']}")
            rows = [
                (k["kernel"], k["source"][:_SOURCE], *("?" if k[c] is None else k[c] for c in columns))
                for k in target["compiled"]
            ]
            printer.table(("kernel", "source", *(c.replace("_", " ") for c in columns)), rows)


def _shortened(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST // 2]} ... {text[-_WIDEST // 2 :]}"


def _as_listed(document: dict[str, Any]) -> list[dict[str, str]]:
    """The outputs as the model lists them: it may list one more than once."""
    by_name = {output["name"]: output for output in document["outputs"]}
    listed = [by_name[name] for name in _texts(document["model"], "outputs") if name in by_name]
    return [*listed, *(output for output in document["outputs"] if output not in listed)]


def _check(plan: Plan, file: Path) -> None:
    try:
        plan.check()
    except PlanError as error:
        raise CheckFailed(str(error), hint="copy the file again, or build it anew").at(str(file)) from None


def _is_plan(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC or file.suffix == ".plan"
    except OSError as error:
        raise refused(error, f"cannot be read: {error.strerror}", file) from None


def _pipe(file: Path) -> bytes | None:
    """A model that comes through a pipe; None for a file."""
    try:
        contents = pipe_contents(file)
    except OSError as error:
        raise refused(error, f"cannot be read: {error.strerror}", file) from None
    if contents is not None and contents.startswith(MAGIC):
        raise PlanFileError("a plan cannot be read through a pipe", hint="give its file").at(str(file))
    return contents


def _read_onnx(file: Path | bytes, limits: Limits) -> tuple[Graph, dict[str, Any]]:
    from miniinfer_cli.onnx_import import import_with_info  # late: brings onnx, which a plan does not need

    graph, info = import_with_info(file, limits=limits)
    return graph, {k: v for k, v in asdict(info).items() if v}
