"""Nodes with sub-graphs: their captures counted, and Scan with a batch axis."""

from collections.abc import Sequence
from typing import Any

from miniinfer_cli.errors import MiniinferError, ModelError
from miniinfer_cli.ir import Graph, TensorType, Type, Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import upgrades
from miniinfer_cli.onnx_import.types import DimNames, read_type
from miniinfer_cli.ops.inference import infer_outputs


@upgrades("If", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def if_(call: Call) -> Sequence[Value]:
    """Its captures follow the condition; all inputs after it are captures, so they need no count."""
    outputs = call.result("If", call.required(0))
    for name, branch in call.graphs.items():
        _note_misfit(call, branch, f"the {name} of an If does not fit what it reads, and fails if it is taken")
    return outputs


@upgrades("Loop", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def loop(call: Call) -> Sequence[Value]:
    """Trip count and condition always stand, if only as None, ahead of what is carried and captured."""
    inputs = (*call.inputs, None, None)[: max(2, len(call.inputs))]
    declared = _declared(call, len(inputs) - 1)
    outputs = call.result("Loop", *inputs, n_captures=len(call.captures), **declared)
    _note_misfit(call, call.graphs["body"], _BODY_MISFIT.format("a Loop"))
    return outputs


@upgrades("SequenceMap", 17)
def with_captures(call: Call) -> Sequence[Value]:
    """The node with its captures counted."""
    outputs = call.result(call.op, *call.inputs, n_captures=len(call.captures), **call.attrs)
    _note_misfit(call, call.graphs["body"], _BODY_MISFIT.format("a SequenceMap"))
    return outputs


@upgrades("Scan", 9, 11, 16, 19, 21, 23, 24, 25)
def scan(call: Call) -> Sequence[Value]:
    """The node with its captures counted, and what its body declares."""
    declared = _declared(call, len(call.inputs) - call.attrs["num_scan_inputs"])
    outputs = call.result("Scan", *call.inputs, n_captures=len(call.captures), **call.attrs, **declared)
    _note_misfit(call, call.graphs["body"], _BODY_MISFIT.format("a Scan"))
    return outputs


@upgrades("Scan", 8)
def batched_scan(call: Call) -> Sequence[Value]:
    """Axis 0 of everything is the batch: an outer Scan over the batch whose body is today's Scan over one sample."""
    if call.input(0) is not None:
        raise ModelError(
            "Scan-8 with sequence_lens is not supported", hint="re-export with opset 9 or later, where Scan has no batch"
        )
    inputs = [call.required(i) for i in range(1, len(call.inputs))]
    n_scans = call.attrs["num_scan_inputs"]
    body = Graph(f"{call.name}/sample", call.graph.budget)
    operands = []
    for value in (*inputs, *call.captures):
        operands.append(body.add_input(value.name, _without_batch(value) if value in inputs else value.type))
    outputs = tuple(body.new_value(name or "out") for name in call.outputs)
    inner = {"num_scan_inputs": n_scans, "n_captures": len(call.captures), **_declared(call, len(inputs) - n_scans)}
    if "directions" in call.attrs:
        inner["scan_input_directions"] = call.attrs["directions"]
    body.add_node("Scan", operands, outputs, name=f"{call.name}/sample", attrs=inner, graphs=call.graphs, origins=(call.name,))
    body.set_outputs(outputs)
    call.graphs = {"body": body}
    return call.result("Scan", *inputs, num_scan_inputs=len(inputs), n_captures=len(call.captures))


_BODY_MISFIT = "the body of {} does not fit what it reads, and fails when it runs"


def _note_misfit(call: Call, graph: Graph, what: str) -> None:
    """Notes a sub-graph with a node that does not fit, as its inputs were inferred last; one within another goes without."""
    if call.lenient or all(v.type is not None for v in graph.outputs):
        return
    try:
        infer_outputs(graph, [v.type for v in graph.inputs])
    except MiniinferError as fault:
        call.notes.add(f"{what}: {': '.join((*fault.where, fault.message))}", call.name)


def _declared(call: Call, first: int) -> dict[str, Any]:
    """The attribute with the types that the body declares for its outputs from ``first`` on, which are scanned.

    Empty where the declarations tell no more than the body's nodes do.
    """
    body = next((a.g for a in call.origin.attributes if a.name == "body"), None) if call.origin is not None else None
    if body is None:
        return {}
    types = [read_type(v.type, v.name, DimNames()) for v in body.output[first:]]
    found = [v.type for v in call.graphs["body"].outputs[first:]]
    return (
        {}
        if all(_is_static(t) or not isinstance(d, TensorType) for t, d in zip(found, types, strict=False))
        else {"scanned_types": types}
    )


def _is_static(type: Type | None) -> bool:
    return isinstance(type, TensorType) and type.is_static


def _without_batch(value: Value) -> TensorType | None:
    type = value.type
    if not isinstance(type, TensorType):
        return None
    return TensorType(type.dtype, type.shape[1:] if type.shape else None)
