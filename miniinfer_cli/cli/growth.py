"""``build --verify --per-layer``: where, node by node of the ONNX model, a plan's error against f32 grows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine_format import Plan
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.building import build_plan
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.comparison.per_layer import (
    ComparedLayers,
    LayerDifference,
    Shared,
    compare_layers,
    compared_in_order,
    count_values,
    first_beyond,
    shared_values,
    showing,
    steepest,
)
from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import DType, Graph
from miniinfer_cli.limits import chosen_limits
from miniinfer_cli.passes.pipeline import FUSING
from miniinfer_cli.planning.thaw import thaw
from miniinfer_cli.runtime.bindings import defaults_of
from miniinfer_cli.runtime.random_inputs import random_inputs
from miniinfer_cli.verification import SizeResult
from miniinfer_cli.verification.comparison import tolerance_of
from miniinfer_cli.verification.origins import origins
from miniinfer_cli.verification.verify import as_types, half_of, least_tolerance

_SHOWN = 5  # values in front of the one that matters


class Growth(ComparedLayers):
    """The values that the plan, the second, shares with the model in f32."""

    __slots__ = ()

    def print(self, printer: Printer) -> None:
        """The values up to the first that is beyond its tolerance, or to the one at which the error grows most."""
        printer.section("Error against f32, layer by layer")
        printer.line(f"Size: {self.label}")
        printer.line(f"Values: {self.shared} that both have, of {self.values[0]} in the model and {self.values[1]} in the plan")
        at = self.first if self.first is not None else steepest(self.found)
        if self.found:
            end = len(self.found) if at is None else at + 1
            rows = [_row(layer) for layer in self.found[max(end - 1 - _SHOWN, 0) : end]]
            printer.table(("value", "ONNX nodes", "relative error", "largest difference", "allowed", "result"), rows)
        printer.line(self.told)

    @property
    def told(self) -> str:
        """What came out, in words."""
        if not self.found:
            return "Grows: nobody can tell: the plan and the model have no value in common"
        if self.first is not None:
            return f"First beyond what is allowed: {self.named(self.first)}"
        at = steepest(self.found)
        if at is None:
            worst = max(layer.difference.error.relative for layer in self.found)
            return f"Grows: nowhere by much; {worst:.1e} at most"
        before = max((layer.difference.error.relative for layer in self.found[:at]), default=0.0)
        now = self.found[at].difference.error.relative
        return f"Grows most, from {before:.1e} to {now:.1e}: {self.named(at)}"

    @property
    def at_fault(self) -> tuple[str, ...]:
        """The nodes of the model that make the first value beyond its tolerance."""
        return () if self.first is None else self.found[self.first].nodes


def error_growth(
    model: Any, plan: Plan, built: BuildOptions, size: SizeResult, given: Mapping[str, Any], seed: int, device: str,
    options: DeviceOptions, printer: Printer,
) -> Growth:  # fmt: skip
    """Runs ``plan`` on ``device``, and ``model`` in f32 on the CPU, on the inputs of ``size``; both show all that both have.

    Where the first to differ is a region, the plan is ``built`` without regions, too, which tells its nodes apart.
    """
    with printer.stages() as stage:
        stage("layers")
        graph = thaw(plan, chosen_limits(options.limits))
        exact = build_plan(model, None, BuildOptions(opt_level=0, overridable=tuple(graph.defaults), limits=options.limits)).plan
        reference = thaw(exact, chosen_limits(options.limits))
        counts = (count_values(reference), count_values(graph))
        shared = shared_values(reference, graph)
        with load(plan, device, options) as engine:
            shaped = dict(defaults_of([b for b in engine.inputs if b.name not in size.drawn])) | dict(given)
            known = as_types(shaped, {b.name: b.type for b in engine.inputs})
            feeds = random_inputs(engine.inputs, engine.ranges, size.shapes, known, seed, size.integers)
        sides = ((exact, reference), (plan, graph), feeds, device, options)
        found = compared_in_order(shared, lambda part: _compared(part, *sides), stage)
        first = first_beyond(found)
        if first is not None and len(found[first].nodes) > 1:
            stage("layers of one region")
            group = set(found[first].nodes)
            apart = build_plan(model, None, replace(built, disable_passes=(*built.disable_passes, *FUSING))).plan
            graph = thaw(apart, chosen_limits(options.limits))
            part = [s for s in shared_values(reference, graph) if group.issuperset(s.nodes)]
            inner = _compared(part, (exact, reference), (apart, graph), feeds, device, options)
            if first_beyond(inner) is not None:
                found[first : first + 1] = inner
    return Growth(size.label, len(shared), counts, found)


def _compared(
    part: Sequence[Shared], exact: tuple[Plan, Graph], plan: tuple[Plan, Graph], feeds: Mapping[str, Any], device: str,
    options: DeviceOptions,
) -> list[LayerDifference]:  # fmt: skip
    with load(showing(*exact, [s.a for s in part]), "cpu", options) as engine:
        expected = engine.run(as_types(feeds, {b.name: b.type for b in engine.inputs}))
    with load(showing(*plan, [s.b for s in part]), device, options) as engine:
        got = engine.run(feeds)
        tf32 = engine.device != "cpu" and bool(plan[0].report.options.get("tf32", True))
        found = origins(engine.graph)
    half = half_of(plan[0])
    types: set[DType] = set() if half is None else {half}
    steady = [s for s in part if not found[s.b.name].random]
    allowed = {
        s.name: max(
            tolerance_of(found[s.b.name].types | types, tf32 and found[s.b.name].products),
            least_tolerance(plan[0]) if found[s.b.name].products else 0.0,
        )
        if found[s.b.name].types
        else 0.0
        for s in steady
    }
    return list(compare_layers(steady, expected, got, allowed, None))


def _row(layer: LayerDifference) -> tuple[str, ...]:
    e = layer.difference.error
    nodes = ", ".join(layer.nodes) if len(layer.nodes) < 3 else f"{layer.nodes[0]} to {layer.nodes[-1]} ({len(layer.nodes)})"
    return e.name, nodes, f"{e.relative:.2e}", f"{e.absolute:.2e}", layer.difference.allowed, e.result
