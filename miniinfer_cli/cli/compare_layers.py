"""``compare --per-layer``: which node of the ONNX model is the first whose result differs."""

from collections.abc import Iterable, Sequence
from typing import Any

from engine_format import Plan
from miniinfer_cli.builder.building import build_plan
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.cli.compare_sides import Compared, Ran
from miniinfer_cli.cli.compare_wanted import CompareWanted
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.cli.sides import Kind, told_of
from miniinfer_cli.comparison.per_layer import (
    ComparedLayers,
    LayerDifference,
    Shared,
    compare_layers,
    compared_in_order,
    count_values,
    shared_values,
    showing,
)
from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import Graph
from miniinfer_cli.limits import chosen_limits
from miniinfer_cli.planning.thaw import thaw
from miniinfer_cli.runtime.plan_files import open_plan
from miniinfer_cli.verification.comparison import tolerance_of
from miniinfer_cli.verification.origins import origins

_SHOWN = 5  # values in front of the first that diverges


class Layers(ComparedLayers):
    """The values that both sides have. A value is beyond its tolerance where it diverges."""

    __slots__ = ()

    def print(self, printer: Printer) -> None:
        """The first value that diverges, behind some that do not; or the worst."""
        printer.section("Layers")
        if self.label:
            printer.line(f"Inputs: {self.label}")
        printer.line(f"Values: {self.shared} that both have, of {self.values[0]} in A and {self.values[1]} in B")
        first = self.first
        if first is None:
            shown = sorted(self.found, key=lambda layer: -layer.difference.error.relative)[:_SHOWN]
        else:
            shown = list(self.found[max(first - _SHOWN, 0) : first + 1])
        rows = [_row(layer) for layer in shown]
        if rows:
            printer.table(("value", "ONNX nodes", "largest difference", "relative norm", "allowed", "result"), rows)
        printer.line(self.told)

    @property
    def told(self) -> str:
        """What came out, in words."""
        if not self.found:
            return "First to diverge: nobody can tell: no value has the same name on both sides"
        if self.first is None:
            return "First to diverge: none of them"
        return f"First to diverge: {self.named(self.first)}"


def compare_per_layer(compared: Compared, wanted: CompareWanted, printer: Printer) -> Layers:
    """Runs both sides with more outputs, in the first case whose outputs differ; where none do, in the first of all."""
    wrong = [n for n, outputs in enumerate(compared.outputs) if not all(d.error.ok for d in outputs.differences)]
    number = wrong[0] if wrong else 0
    with printer.stages() as stage:
        stage("layers")
        plans = [_plan(ran, wanted) for ran in compared.ran]
        try:
            limits = chosen_limits(wanted.gpu.limits)
            graphs = [thaw(plan, limits) for plan in plans]
            shared = shared_values(*graphs)
            values = (count_values(graphs[0]), count_values(graphs[1]))

            def compare(part: Sequence[Shared]) -> Iterable[LayerDifference]:
                sides = [[s.a for s in part], [s.b for s in part]]
                ran = [_outputs(*one, number, wanted) for one in zip(compared.ran, plans, graphs, sides, strict=True)]
                (a, of_a), (b, of_b) = ran
                known = [s for s in part if s.a.name in of_a and s.b.name in of_b]
                tolerances = {s.name: max(of_a[s.a.name], of_b[s.b.name]) for s in known}
                return compare_layers(known, a, b, tolerances, wanted.closeness)

            found = compared_in_order(shared, compare, stage)
        finally:
            for plan in plans:
                plan.close()
    return Layers(compared.cases[number].label, len(shared), values, found)


def _plan(ran: Ran, wanted: CompareWanted) -> Plan:
    """A plan as it is; of an ONNX model one that is not optimized, so that its nodes are those of the model."""
    if ran.side.kind is Kind.PLAN:
        return open_plan(ran.plan)
    options = BuildOptions(opt_level=0, plugins=wanted.plugins, limits=wanted.gpu.limits)
    with told_of(ran.side):
        return build_plan(ran.side.source, None, options).plan


def _outputs(
    ran: Ran, plan: Plan, graph: Graph, values: Sequence[Any], number: int, wanted: CompareWanted
) -> tuple[dict[str, Any], dict[str, float]]:
    """The values that the side computes, and the relative errors that those are allowed that are not random, by name."""
    shown = showing(plan, graph, values)
    with told_of(ran.side), load(shown, ran.identity["device"], wanted.gpu) as engine:
        outputs = engine.run(ran.feeds[number])
        tf32 = engine.device != "cpu" and bool(plan.report.options.get("tf32", True))
        found = origins(engine.graph)
    steady = {name: origin for name, origin in found.items() if not origin.random}
    return outputs, {name: tolerance_of(origin.types, tf32 and origin.products) for name, origin in steady.items()}


def _row(layer: LayerDifference) -> tuple[str, ...]:
    d = layer.difference
    return d.error.name, ", ".join(layer.nodes), f"{d.error.absolute:.2e}", f"{d.error.relative:.2e}", d.allowed, d.error.result
