"""Nodes with sub-graphs: their captures counted, and Scan with a batch axis."""

from collections.abc import Sequence

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Graph, TensorType, Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import upgrades


@upgrades("If", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def if_(call: Call) -> Sequence[Value]:
    """Its captures follow the condition; all inputs after it are captures, so they need no count."""
    return call.result("If", call.required(0))


@upgrades("Loop", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def loop(call: Call) -> Sequence[Value]:
    """Trip count and condition always stand, if only as None, ahead of what is carried and captured."""
    inputs = (*call.inputs, None, None)[: max(2, len(call.inputs))]
    return call.result("Loop", *inputs, n_captures=len(call.captures))


@upgrades("Scan", 9, 11, 16, 19, 21, 23, 24, 25)
@upgrades("SequenceMap", 17)
def with_captures(call: Call) -> Sequence[Value]:
    """The node with its captures counted."""
    return call.result(call.op, *call.inputs, n_captures=len(call.captures), **call.attrs)


@upgrades("Scan", 8)
def batched_scan(call: Call) -> Sequence[Value]:
    """Axis 0 of everything is the batch: an outer Scan over the batch whose body is today's Scan over one sample."""
    if call.input(0) is not None:
        raise ModelError(
            "Scan-8 with sequence_lens is not supported", hint="re-export with opset 9 or later, where Scan has no batch"
        )
    inputs = [call.required(i) for i in range(1, len(call.inputs))]
    n_scans = call.attrs["num_scan_inputs"]
    body = Graph(f"{call.name}/sample")
    operands = []
    for value in (*inputs, *call.captures):
        operands.append(body.add_input(value.name, _without_batch(value) if value in inputs else value.type))
    outputs = tuple(body.new_value(name or "out") for name in call.outputs)
    inner = {"num_scan_inputs": n_scans, "n_captures": len(call.captures)}
    if "directions" in call.attrs:
        inner["scan_input_directions"] = call.attrs["directions"]
    body.add_node("Scan", operands, outputs, name=f"{call.name}/sample", attrs=inner, graphs=call.graphs)
    body.set_outputs(outputs)
    call.graphs = {"body": body}
    return call.result("Scan", *inputs, num_scan_inputs=len(inputs), n_captures=len(call.captures))


def _without_batch(value: Value) -> TensorType | None:
    type = value.type
    if not isinstance(type, TensorType):
        return None
    return TensorType(type.dtype, type.shape[1:] if type.shape else None)
