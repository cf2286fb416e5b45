"""Sub-graphs closed: what they read from outside becomes a capture, a trailing input of node and sub-graph alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Constant, DType, Graph, SequenceType, TensorType, Type, Value
from miniinfer_cli.onnx_import.frame import Failed, Frame, Named
from miniinfer_cli.onnx_import.structure import outer_names
from miniinfer_cli.onnx_import.types import DimNames, read_type

ReadGraph = Callable[[onnx.GraphProto, Frame, str], list[Named]]
"""Reads a sub-graph into its frame and gives the values of its outputs; the text names the owner for faults."""


@dataclass
class Closed:
    """The sub-graphs of a node by attribute, and the values that they all take after their own inputs.

    ``failed``: a sub-graph, or a value that it reads, could not be made. ``notes``: what is taken as meant, see ``Notes``.
    """

    graphs: dict[str, Graph] = field(default_factory=dict)
    captures: tuple[Value, ...] = ()
    failed: bool = False
    notes: list[str] = field(default_factory=list)


def read_subgraphs(
    protos: Sequence[tuple[str, onnx.GraphProto]],
    op: str,
    inputs: Sequence[Named],
    frame: Frame,
    dims: DimNames,
    read_graph: ReadGraph,
    owner: str,
) -> Closed:
    """The sub-graphs of a node ``op`` with these inputs. A constant is not captured: each sub-graph has it for itself."""
    closed = Closed()
    names = dict.fromkeys(name for _, proto in protos for name in outer_names(proto) if frame.has(name))
    seen = {name: frame.find(name) for name in names}
    captured = {n: v for n, v in seen.items() if isinstance(v, Value) and v.constant is None}
    closed.captures = tuple(captured.values())
    for attribute, proto in protos:
        graph = Graph(proto.name or attribute, frame.graph.budget)
        inner = frame.inside(graph)
        formals = _formals(op, attribute, proto, inputs)
        for number, (formal, type) in enumerate(zip(formals, _input_types(op, formals, inputs, dims), strict=True)):
            given = graph.add_input(formal.name, type)
            if op == "Loop" and number < len(_LOOP_OWN) and isinstance(type, TensorType) and type.shape:
                closed.notes.append(
                    f"the body of a Loop declares its {_LOOP_OWN[number]} as {type}, not as a scalar: it gets one item"
                )
                given = _of_one_item(graph, given, type)
            inner.names[formal.name] = given
        for name, value in seen.items():
            if name in captured:
                inner.names.setdefault(name, graph.add_input(name, captured[name].type))
            elif isinstance(value, Value) and value.constant is not None:
                inner.pending.setdefault(name, _giving(value.constant))
            else:
                inner.names.setdefault(name, value)
        outputs = [v for v in read_graph(proto, inner, f"{attribute} of {owner}") if isinstance(v, Value)]
        closed.failed = closed.failed or len(outputs) < len(proto.output)
        graph.set_outputs(outputs, _distinct([v.name for v in proto.output][: len(outputs)]))
        closed.graphs[attribute] = graph
    closed.failed = closed.failed or any(isinstance(v, Failed) for v in seen.values())
    return closed


_LOOP_OWN = ("count of rounds", "condition")  # the first inputs of a Loop's body, which the Loop makes itself


def _formals(op: str, attribute: str, graph: onnx.GraphProto, inputs: Sequence[Named]) -> list[onnx.ValueInfoProto]:
    """The inputs of a sub-graph that its node feeds. One with an initializer is a constant, as models from before IR version 4
    list their constants, unless it takes all to match the node's operands. Raises ModelError for a branch with inputs.
    """
    stored = {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    formals = [v for v in graph.input if v.name not in stored]
    if op == "If" and formals:
        names = ", ".join(repr(v.name) for v in formals)
        raise ModelError(
            f"{attribute} of an If takes no inputs, it has {len(formals)}: {names}",
            hint="a branch reads values of the graph around it by their names",
        )
    # A Scan of version 8 has one operand, which is left out, ahead of those that its body gets.
    fed = max(len(_LOOP_OWN), len(inputs)) if op == "Loop" else sum(v is not None for v in inputs)
    if op != "If" and len(formals) < len(graph.input) == fed:
        return list(graph.input)
    return formals


def _of_one_item(graph: Graph, scalar: Value, declared: TensorType) -> Value:
    """An input of a body, which its Loop gives as a scalar, in the rank that the body declares."""
    ones = (1,) * len(declared.shape or ())
    graph.set_type(scalar, TensorType(declared.dtype, ()))
    shape = graph.add_constant(np.array(ones, np.int64), f"{scalar.name}_shape")
    return graph.add("Reshape", scalar, shape, out=scalar.name, type=TensorType(declared.dtype, ones))


def _input_types(op: str, formals: Sequence[onnx.ValueInfoProto], inputs: Sequence[Named], dims: DimNames) -> list[Type | None]:
    """Provisional types of a sub-graph's own inputs: as declared, else from the operands. The node's rule has the last word.

    Shapes are taken from declarations only: what a loop carries may change its shape.
    """
    operands = [v.type if isinstance(v, Value) else None for v in inputs]
    if op == "Loop":
        operands = [TensorType(DType.I64, ()), TensorType(DType.BOOL, ()), *operands[2:]]
    elif op == "SequenceMap":
        operands = [t.element if isinstance(t, SequenceType) else t for t in operands]
    else:  # Scan; a Scan of version 8 has one operand ahead of those
        operands = operands[-len(formals) :] if len(formals) <= len(operands) else []
    out: list[Type | None] = []
    for index, formal in enumerate(formals):
        given = operands[index] if index < len(operands) else None
        declared = read_type(formal.type, formal.name, dims)
        out.append(declared or (TensorType(given.dtype) if isinstance(given, TensorType) else given))
    return out


def _giving(handle: Constant) -> Callable[[], Constant]:
    return lambda: handle


def _distinct(names: Sequence[str]) -> list[str]:
    """``names`` with a number behind each repetition."""
    out: list[str] = []
    for name in names:
        candidate, number = name, 0
        while candidate in out:
            number += 1
            candidate = f"{name}_{number}"
        out.append(candidate)
    return out
