"""Which nodes of a plan a GPU would leave to the host, and what their copies would cost; told with no GPU at hand."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine_format.records import DimensionRange
from miniinfer_cli.backends.cuda.choice.coverage import way_of
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, HostStep, Slot, nbytes_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.interface import Program
from miniinfer_cli.backends.reference import kind_of, static_tensor
from miniinfer_cli.errors import MiniinferError, ModelError
from miniinfer_cli.ir import Graph, Node, TensorType, Type
from miniinfer_cli.ir.dims import evaluate, names_in
from miniinfer_cli.planning.branches import BranchedGraphs
from miniinfer_cli.wording import Wording, joined

MOST_BRANCHED = 16
"""Branched graphs that are looked at before it runs: each If that an input decides may double them."""


@dataclass(frozen=True, slots=True)
class HostNode:
    """A node that runs on the host: why, and the bytes it reads from and sends to the device; None where only a run can tell."""

    node: str
    operation: str
    reason: str
    copied_nbytes: int | None


@dataclass(frozen=True, slots=True)
class Placement:
    """A plan at its optimal sizes: steps on the device, host nodes, and segments (runs of steps between two changes of side).

    ``tactics``: keys of what our own kernels do (behind that of a join), who chose each, and of how many steps; libraries are
    asked on a device alone.
    ``late_parts``: parts that are made ready, and then run on the device, once data have decided their sizes.
    ``programs``: programs of which small inputs choose one, by the branches that they decide; this is the one with the most on
    the host.
    """

    device_steps: int
    segments: int
    host_nodes: tuple[HostNode, ...]
    late_parts: int = 0
    programs: int = 1
    tactics: tuple[tuple[str, str, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same with stable keys."""
        return {
            "device_steps": self.device_steps,
            "segments": self.segments,
            "late_parts": self.late_parts,
            "programs": self.programs,
            "tactics": [{"tactic": key, "chosen_by": chooser, "steps": steps} for key, chooser, steps in self.tactics],
            "host_nodes": [asdict(n) for n in self.host_nodes],
        }

    def lines(self) -> list[str]:
        """For a person: one line, and one for each host node."""
        late = (
            f", {self.late_parts} late part{'s' * (self.late_parts > 1)} (made ready once data have decided their sizes)"
            if self.late_parts
            else ""
        )
        if self.programs > 1:
            late += f"; {self.programs} programs, of which small inputs choose one by the branches that they decide"
        if not self.host_nodes:
            return [f"On a GPU: {self.device_steps} steps, all on the device{late}"]
        counts = f"{self.device_steps} steps on the device, {len(self.host_nodes)} nodes on the host, {self.segments} segments"
        return [f"On a GPU: {counts}{late}", *map(_line, self.host_nodes)]


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A plan of which only a run can tell: ``sizes``, the optimal ones, and what stands against them.

    Mostly they do not go through the model; or memory ran out, or the report met a bug of its own. ``inputs``: those whose sizes
    may be others, as ``--opt-shapes`` takes them (``ids:batchxseq``).
    """

    sizes: Mapping[str, int]
    reason: str
    refused: bool = True
    inputs: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same with stable keys."""
        return {"unknown": self.reason, "sizes": dict(self.sizes)}

    def lines(self) -> list[str]:
        """For a person, in one line."""
        at = f" ({', '.join(f'{name} = {size}' for name, size in self.sizes.items())})" if self.sizes else ""
        what = f"the optimal sizes{at} do not go through the model: " if self.refused else ""
        named = ",".join(self.inputs)
        mend = Wording(
            f"; build with sizes that do, opt_shapes of {named}, to see it",
            flags=f"; build with sizes that do, --opt-shapes {named}, to see it",
        )
        told = f"On a GPU: not known before a run: {what}{self.reason}"
        return [joined("", [told, mend]) if self.inputs else told]


def place(graph: Graph, ranges: Mapping[str, DimensionRange]) -> Placement | Unplaced:
    """How a GPU would run the graph at the optimal sizes (1 where a plan has none); Unplaced where that cannot be told.

    Nothing in a graph makes this raise a MiniinferError or a MemoryError: a report fails neither a build nor an inspection.
    """
    placements, refusals = [], []
    try:
        types = optimal_types(graph, ranges)
        for branched in BranchedGraphs(graph).possible(types, MOST_BRANCHED):
            try:
                placements.append(placement_of(make_program(branched, types, Target())))
            except ModelError as error:
                refusals.append(error)
    except ModelError as error:  # an input's contents decide, or sizes contradict each other: only a run can tell
        refusals.append(error)
    except (MiniinferError, MemoryError, RecursionError) as error:
        return Unplaced({}, _first_line(error), refused=False)
    if placements:
        return replace(max(placements, key=lambda p: len(p.host_nodes)), programs=len(placements))
    names = dict.fromkeys(n for v in graph.inputs for n in _names_of(v.type))
    sizes = {n: ranges[n].optimum if n in ranges else 1 for n in names}
    reasons = dict.fromkeys(": ".join((*e.where, e.message)) for e in refusals)
    reason = "; ".join(reasons) or "none of the branches that small inputs may choose fit these sizes"
    return Unplaced(sizes, reason, inputs=tuple(_flag_of(v.name, v.type) for v in graph.inputs if _names_of(v.type)))


def _first_line(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "this machine's memory ran out"
    return "the graph is nested too deep" if isinstance(error, RecursionError) else str(error).partition("\n")[0]


def optimal_types(graph: Graph, ranges: Mapping[str, DimensionRange]) -> list[Type | None]:
    """The types of the graph's inputs at the optimal sizes, 1 where there is none."""
    sizes = {name: r.optimum for name, r in ranges.items()}
    return [_at(v.type, sizes) for v in graph.inputs]


def placement_in(program: Program) -> Placement | None:
    """Of a program that an engine has made; None where the engine is on a CPU."""
    return placement_of(program.made) if isinstance(program, LoadedProgram) else None


def placement_of(program: CudaProgram) -> Placement:
    """The same of a program that is made already."""
    device = [s for s in program.steps if not isinstance(s, HostStep)]
    late = sum(s.tactic == "late" for s in program.steps)
    inner = [n for s in program.steps if isinstance(s, HostStep) and s.tactic != "host" for n in _hosted_within(s.node)]
    nodes = (*(_node(program, s) for s in program.host_steps), *inner)
    chosen = Counter((s.choice.how, str(s.choice.chosen_by)) for s in device)
    tactics = tuple((*how, steps) for how, steps in chosen.most_common())
    return Placement(len(device), len(program.segments()), nodes, late, tactics=tactics)


def _line(node: HostNode) -> str:
    copied = "unknown" if node.copied_nbytes is None else f"{node.copied_nbytes} B"
    return f"  host: {node.node} ({node.operation}): {node.reason}; copies {copied}"


def _hosted_within(outer: Node) -> Iterator[HostNode]:
    """What has no way onto the device in the bodies of a control node or in a late part, whatever the sizes will be."""
    bodies = [*outer.graphs.values(), *([outer.body] if outer.body is not None else [])]
    for node in (n for body in bodies for n in body):
        if node.graphs or node.body is not None:
            yield from _hosted_within(node)
        elif way_of(node.domain, node.op) == "host":
            yield HostNode(node.name, kind_of(node), f"no lowering, within {outer.name!r}", None)


def _node(program: CudaProgram, step: HostStep) -> HostNode:
    read = {s for s in step.inputs if s is not None and program.slots[program.slots[s].root].origin in ("device", "input")}
    sent = {s for s in step.outputs if s in program.uploads}
    return HostNode(step.label, step.kind, step.reason, sum(_nbytes(program.slots[s]) for s in read | sent))


def _nbytes(slot: Slot) -> int:
    kind = static_tensor(slot.type)
    return 0 if kind is None else nbytes_of(kind)


def _at(type: Type | None, sizes: Mapping[str, int]) -> Type | None:
    if not isinstance(type, TensorType) or type.shape is None:
        return type
    known = dict.fromkeys(_names_of(type), 1) | dict(sizes)
    return TensorType(type.dtype, tuple(evaluate(d, known) or 0 for d in type.shape))


def _flag_of(name: str, type: Type | None) -> str:
    """An input with its dimensions, as ``--opt-shapes`` takes it."""
    return f"{name}:{'x'.join(map(str, type.shape or ()))}" if isinstance(type, TensorType) else name


def _names_of(type: Type | None) -> list[str]:
    return [n for d in type.shape or () for n in sorted(names_in(d))] if isinstance(type, TensorType) else []
