"""Differences from ONNX Runtime that are not ours to mend: each with its reason, and the smallest model that shows it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, TensorProto, helper

_FLAGS = {
    "keepdims", "saturate", "noop_with_empty_axes", "select_last_index", "exclusive", "reverse", "allowzero", "transA", "transB",
    "align_corners", "ceil_mode", "count_include_pad", "largest", "sorted", "is_causal", "half_pixel", "fmod", "upper",
    "interleaved",
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """``applies`` says of a model whether the reason may be behind a difference; ``example`` is one that differs."""

    reason: str
    applies: Callable[[onnx.ModelProto], bool]
    example: Callable[[], onnx.ModelProto]


def reason_of(model: onnx.ModelProto) -> str:
    """Why a difference in this model is not ours; "" where no reason is known."""
    return next((known.reason for known in KNOWN if known.applies(model)), "")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def _odd_flag(model: onnx.ModelProto) -> bool:
    nodes = [*_nodes(model.graph), *(n for f in model.functions for n in f.node)]
    attributes = [a for n in nodes for a in n.attribute if a.type == AttributeProto.INT]
    return any(a.name in _FLAGS and a.i not in (0, 1) for a in attributes)


def _flag_of_two() -> onnx.ModelProto:
    node = helper.make_node("ReduceMax", ["x"], ["y"], keepdims=2)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None if name == "y" else [2, 3]) for name in "xy")
    graph = helper.make_graph([node], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


KNOWN = (
    Known("ONNX gives a flag the values 0 and 1 and says nothing of others: here they are true, there some are false",
          _odd_flag, _flag_of_two),
)  # fmt: skip
"""Every reason; a test runs the examples, so that one which differs no more has to go."""
