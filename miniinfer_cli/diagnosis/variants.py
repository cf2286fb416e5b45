"""The graph that a change asks for: a plan's graph with other outputs, inputs, types or sizes, and all that passes make of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from miniinfer_cli.diagnosis.change import Change
from miniinfer_cli.diagnosis.lint import FULL_LEVEL
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, Numerics, TensorType, Type
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.type_codes import code_of_dtype
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.passes.precision.narrow_floats import ask


@dataclass(frozen=True, slots=True)
class BuiltAs:
    """How a plan was built: the level of optimization, the passes that were left out, and whether TF32 may be used."""

    level: int = FULL_LEVEL
    disabled: tuple[str, ...] = ()
    tf32: bool = True

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """From the options that a plan records; what is not as we write it counts as the default."""
        level, disabled = options.get("opt_level"), options.get("disable_passes")
        return cls(
            level if type(level) is int else FULL_LEVEL,
            tuple(str(name) for name in disabled) if isinstance(disabled, (list, tuple)) else (),
            options.get("tf32") is not False,
        )


def fixed_nodes(graph: Graph, types: Sequence[Type | None], built: BuiltAs) -> int | None:
    """The nodes that passes leave of the graph where its inputs are of these types; None where they are so already.

    Raises ModelError where the types do not go through it.
    """
    if all(v.type == t for v, t in zip(graph.inputs, types, strict=True)):
        return None
    return len(changed_graph(graph, Change(fixed=True), types, built))


def changed_graph(graph: Graph, change: Change, types: Sequence[Type | None], built: BuiltAs) -> Graph:
    """A copy of ``graph`` with the change, optimized as it was built, or fully.

    ``types``: of the inputs as they are run. Raises ModelError where the graph cannot be changed so.
    """
    changed = graph.copy()
    _dissolve(changed)  # passes fuse primitives alone
    if change.without:
        kept = [(v, n) for v, n in zip(changed.outputs, changed.output_names, strict=True) if n not in change.without]
        changed.set_outputs([v for v, _ in kept], [n for _, n in kept])
    if change.fixed:
        for value, kind in zip(changed.inputs, types, strict=True):
            changed.set_type(value, kind)
    numerics = Numerics(DType.F16)
    if change.half:
        ask(changed, numerics)
    for name in change.uint8:
        _take_bytes(changed, name)
    annotate(changed)
    level, disabled = (max(built.level, FULL_LEVEL), ()) if change.full else (built.level, built.disabled)
    optimize(changed, level, disabled)
    if numerics.lost:
        raise ModelError(f"weight {numerics.lost[0].weight!r} {numerics.lost[0].loss}")
    return changed


def _dissolve(graph: Graph) -> None:
    """The nodes of each region take its place."""
    for node in graph.nodes:
        if node.body is not None:
            graph.replace_node(node, graph.inline(node.body, node.inputs, before=node))


def _take_bytes(graph: Graph, name: str) -> None:
    """The input ``name`` becomes one of uint8, which a Cast makes what it was."""
    old = next(v for v in graph.inputs if v.name == name)
    new = graph.new_value(name, TensorType(DType.U8, old.tensor.shape))
    converted = graph.add(
        "Cast", new, out=name, type=old.type, before=next(iter(graph), None), to=code_of_dtype(old.tensor.dtype)
    )
    graph.replace_uses(old, converted)
    graph.set_graph_inputs([new if v is old else v for v in graph.inputs])
