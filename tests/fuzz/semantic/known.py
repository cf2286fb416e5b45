"""Differences from ONNX Runtime that are not ours to mend: each with its reason, and the smallest model that shows it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, TensorProto, helper

from tests.fuzz.semantic.oracle import nodes_behind

_FLAGS = {
    "keepdims", "saturate", "noop_with_empty_axes", "select_last_index", "exclusive", "reverse", "allowzero", "transA", "transB",
    "align_corners", "ceil_mode", "count_include_pad", "largest", "sorted", "is_causal", "half_pixel", "fmod", "upper",
    "interleaved",
}  # fmt: skip
_NARROW = {TensorProto.UINT4, TensorProto.INT4, TensorProto.UINT2, TensorProto.INT2}


@dataclass(frozen=True)
class Known:
    """A node of ``operations`` (none: any) for which ``applies`` may differ, for ``reason``; ``example`` is one that does."""

    operations: frozenset[str]
    condition: str
    reason: str
    applies: Callable[[onnx.NodeProto, onnx.ModelProto], bool]
    example: Callable[[], onnx.ModelProto]


def reason_of(model: onnx.ModelProto, outputs: Collection[str]) -> str:
    """Why a difference in these outputs is not ours; "" where no reason is known."""
    nodes = nodes_behind(model, outputs)
    for known in KNOWN:
        if any((not known.operations or n.op_type in known.operations) and known.applies(n, model) for n in nodes):
            return f"{', '.join(sorted(known.operations)) or 'any'}: {known.condition}: {known.reason}"
    return ""


def _odd_flag(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return any(a.type == AttributeProto.INT and a.name in _FLAGS and a.i not in (0, 1) for a in node.attribute)


def _to_narrow_integers(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    # CastLike takes the type from an operand, whose type the model may not tell.
    return node.op_type == "CastLike" or any(a.name == "to" and a.i in _NARROW for a in node.attribute)


def _halves_to_uint4() -> onnx.ModelProto:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.UINT4)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [9])
    y = helper.make_tensor_value_info("y", TensorProto.UINT4, [9])
    return helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _flag_of_two() -> onnx.ModelProto:
    node = helper.make_node("ReduceMax", ["x"], ["y"], keepdims=2)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None if name == "y" else [2, 3]) for name in "xy")
    graph = helper.make_graph([node], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


KNOWN = (
    Known(frozenset(), "a flag that is neither 0 nor 1",
          "ONNX gives a flag these two values and says nothing of others: here they are true, there some are false",
          _odd_flag, _flag_of_two),
    Known(frozenset({"Cast", "CastLike"}), "floats to integers of 2 or 4 bits",
          "ONNX's reference drops the fraction as for wider integers, ONNX Runtime rounds; beyond the range nothing is defined",
          _to_narrow_integers, _halves_to_uint4),
)  # fmt: skip
"""Every reason; a test runs the examples, so that one which differs no more has to go."""
