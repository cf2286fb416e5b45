"""Differences from ONNX Runtime that are not ours to mend: each with its reason, and the smallest model that shows it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.fuzz.semantic.oracle import nodes_behind

_FLAGS = {
    "keepdims", "saturate", "noop_with_empty_axes", "select_last_index", "exclusive", "reverse", "allowzero", "transA", "transB",
    "align_corners", "ceil_mode", "count_include_pad", "largest", "sorted", "is_causal", "half_pixel", "fmod", "upper",
    "interleaved", "training_mode", "periodic",
}  # fmt: skip
_INTEGERS = {
    TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
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


def reason_of(model: onnx.ModelProto, outputs: Collection[str], feeds: Mapping[str, Any] | None = None) -> str:
    """Why a difference in these outputs, for inputs of these values, is not ours; "" where no reason is known."""
    return _first_reason(KNOWN, _with_values(model, feeds or {}), outputs)


def reason_to_refuse(model: onnx.ModelProto) -> str:
    """Why a plan may fail for sizes that ONNX Runtime runs the model with; "" where no reason is known."""
    return _first_reason(REFUSED, model, [o.name for o in model.graph.output])


def _first_reason(listed: Sequence[Known], model: onnx.ModelProto, outputs: Collection[str]) -> str:
    nodes = nodes_behind(model, outputs)
    for known in listed:
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
    return _model([node], [x], helper.make_tensor_value_info("y", TensorProto.UINT4, [9]), 21)


def _to_powers_of_two(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return any(a.name == "to" and a.i == TensorProto.FLOAT8E8M0 for a in node.attribute)


def _negative_to_power_of_two() -> onnx.ModelProto:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT8E8M0)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT8E8M0, [2])
    return _model([node], [], y, 25, [helper.make_tensor("x", TensorProto.FLOAT, [2], [-1.5, 1.0])])


def _integer_mask(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return len(node.input) > 3 and _type_of(node.input[3], model) in _INTEGERS


def _short_integer_mask() -> onnx.ModelProto:
    node = helper.make_node("Attention", ["q", "q", "q", "m"], ["y"], is_causal=1)
    q = helper.make_tensor_value_info("q", TensorProto.FLOAT, [1, 1, 4, 8])
    mask = helper.make_tensor("m", TensorProto.INT64, [2], [0, 1])
    return _model([node], [q], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 25, [mask])


def _scores_after_the_mask(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return any(a.name == "qk_matmul_output_mode" and a.i == 2 for a in node.attribute)


def _masked_scores() -> onnx.ModelProto:
    node = helper.make_node("Attention", ["q", "q", "q"], ["z", "", "", "y"], is_causal=1, qk_matmul_output_mode=2)
    q = helper.make_tensor_value_info("q", TensorProto.FLOAT, [1, 1, 4, 8])
    return _model([node], [q], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 23)


def _split_without_keepdims(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return len(node.input) > 1 and any(a.name == "keepdims" and a.i == 0 for a in node.attribute)


def _split_in_ones() -> onnx.ModelProto:
    nodes = [
        helper.make_node("SplitToSequence", ["x", "one"], ["s"], keepdims=0),
        helper.make_node("SequenceAt", ["s", "one"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    one = helper.make_tensor("one", TensorProto.INT64, [], [1])
    return _model(nodes, [x], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 12, [one])


def _scalar(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return _rank_of(node.input[0], model) in (0, None)


def _scalar_that_is_not_zero() -> onnx.ModelProto:
    node = helper.make_node("NonZero", ["x"], ["y"])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    return _model([node], [], y, 13, [helper.make_tensor("x", TensorProto.FLOAT, [], [1.0])])


def _odd_alpha(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    with np.errstate(over="ignore", under="ignore"):
        alphas = [np.float16(a.f) for a in node.attribute if a.name == "alpha"]
    return any(a == 0 or not np.isfinite(a) for a in alphas)


def _celu_of_alpha_zero() -> onnx.ModelProto:
    node = helper.make_node("Celu", ["x"], ["y"], alpha=-0.0)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT16, [8]) for name in "xy")
    return _model([node], [x], y, 28)


def _beyond_a_double_or_the_type(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Whether integers that the model stores come to more than their type holds, or a double holds exactly."""
    values = [_stored(name, model) for name in node.input]
    base = values[0]
    if base is None or base.dtype.kind not in "iu":
        return False
    x = np.abs(base.astype(np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        if node.op_type == "ReduceProd":
            most = np.prod(np.maximum(x, 1))
        elif node.op_type == "Pow":
            exponent = values[1]
            integers = exponent is not None and exponent.dtype.kind in "iu"
            most = np.max(x, initial=0) ** float(np.max(exponent, initial=0)) if integers else np.float64(0)
        else:
            most = np.sum(np.square(x) if node.op_type in ("ReduceSumSquare", "ReduceL2") else x)
    return bool(most > min(np.iinfo(base.dtype).max, 2**53))


def _product_of_large_integers() -> onnx.ModelProto:
    node = helper.make_node("ReduceProd", ["x"], ["y"], keepdims=0)
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [])
    return _model([node], [], y, 18, [helper.make_tensor("x", TensorProto.INT32, [2], [1 << 16, 3 << 15])])


def _power_of_large_integers() -> onnx.ModelProto:
    node = helper.make_node("Pow", ["x", "e"], ["y"])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [1])
    stored = [helper.make_tensor(name, TensorProto.INT32, [1], [value]) for name, value in (("x", 3), ("e", 40))]
    return _model([node], [], y, 15, stored)


def _odd_scale(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return any(not np.isfinite(np.float16(np.sqrt(a.f))) for a in node.attribute if a.name == "scale")


def _infinite_scale() -> onnx.ModelProto:
    node = helper.make_node("Attention", ["q", "k", "k"], ["z", "", "", "y"], scale=float("inf"))
    q = helper.make_tensor_value_info("q", TensorProto.FLOAT, [1, 1, 4, 2])
    keys = helper.make_tensor("k", TensorProto.FLOAT, [1, 1, 2, 2], [1, -1, -2, 1])
    return _model([node], [q], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 23, [keys])


def _align_corners_by_scales(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    mode = any(a.name == "coordinate_transformation_mode" and a.s == b"align_corners" for a in node.attribute)
    scales = _stored(node.input[2], model) if mode and len(node.input) > 2 else None
    sizes = _shape_of(node.input[0], model)
    if scales is None or sizes is None or not scales.size:
        return False
    return any(s * d != int(s * d) for s, d in zip(scales[-len(sizes) :].tolist(), sizes, strict=False))


def _corners_of_a_fraction() -> onnx.ModelProto:
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear", coordinate_transformation_mode="align_corners")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 4])
    scales = helper.make_tensor("s", TensorProto.FLOAT, [4], [1, 1, 1, 0.6])
    return _model([node], [x], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 19, [scales])


def _odd_softcap(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return any(a.name == "softcap" and not 0 <= a.f < np.inf for a in node.attribute)


def _negative_softcap() -> onnx.ModelProto:
    node = helper.make_node("Attention", ["q", "q", "q"], ["z", "", "", "y"], softcap=-0.5, qk_matmul_output_mode=1)
    q = helper.make_tensor_value_info("q", TensorProto.FLOAT, [1, 1, 4, 8])
    return _model([node], [q], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 23)


def _other_floats_that_spread(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    if len(node.input) < 4:
        return False
    shape, types = _shape_of(node.input[3], model), [_type_of(node.input[i], model) for i in (0, 3)]
    return bool(shape) and shape[-1] == 1 and types[0] != types[1]


def _mask_of_one_half() -> onnx.ModelProto:
    node = helper.make_node("Attention", ["q", "q", "q", "m"], ["y"])
    q = helper.make_tensor_value_info("q", TensorProto.FLOAT, [1, 1, 4, 8])
    mask = helper.make_tensor("m", TensorProto.FLOAT16, [1], [0.0])
    return _model([node], [q], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 23, [mask])


def _holds_nan(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    data = _stored(node.input[0], model)
    return data is not None and data.dtype.kind == "f" and bool(np.isnan(data).any())


def _largest_of_nan() -> onnx.ModelProto:
    node = helper.make_node("ReduceMax", ["x"], ["y"])
    data = helper.make_tensor("x", TensorProto.FLOAT, [2], [np.inf, np.nan])
    return _model([node], [], helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]), 18, [data])


def _least_place_of_nan() -> onnx.ModelProto:
    node = helper.make_node("ArgMin", ["x"], ["y"])
    data = helper.make_tensor("x", TensorProto.FLOAT, [3], [0.0, np.nan, -1.0])
    return _model([node], [], helper.make_tensor_value_info("y", TensorProto.INT64, [1]), 13, [data])


def _trained_with_infinity(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    attrs = {a.name: a for a in node.attribute}
    return "training_mode" in attrs and attrs["training_mode"].i == 1 and "epsilon" in attrs and attrs["epsilon"].f == -np.inf


def _root_of_minus_infinity() -> onnx.ModelProto:
    node = helper.make_node("BatchNormalization", ["x", *["s"] * 4], ["y", "m", "v"], epsilon=-np.inf, training_mode=1)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4, 5])
    ones = helper.make_tensor("s", TensorProto.FLOAT, [3], [1.0] * 3)
    return _model([node], [x], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 15, [ones])


def _strides_beyond_the_kernel(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    attrs = {a.name: a for a in node.attribute}
    if (
        "output_shape" in attrs
        or "strides" not in attrs
        or "auto_pad" not in attrs
        or not attrs["auto_pad"].s.startswith(b"SAME")
    ):
        return False
    strides = attrs["strides"].ints
    kernel = (_shape_of(node.input[1], model) or ())[2:]
    dilations = attrs["dilations"].ints if "dilations" in attrs else [1] * len(strides)
    return any(s > (k - 1) * d + 1 for s, k, d in zip(strides, kernel, dilations, strict=False))


def _stride_of_seven() -> onnx.ModelProto:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[7])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 3])
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 3], [1.0, 2.0, 3.0])
    return _model([node], [x], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 22, [weights])


def _sequence_of_none(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    lengths = _stored(node.input[4], model) if len(node.input) > 4 else None
    return lengths is not None and bool((lengths == 0).any())


def _state_of_no_steps() -> onnx.ModelProto:
    node = helper.make_node("RNN", ["x", "w", "r", "", "n", "h"], ["", "y"], hidden_size=1)
    inputs = [helper.make_tensor_value_info(*named) for named in (
        ("x", TensorProto.FLOAT, [1, 2, 1]), ("n", TensorProto.INT32, [2]), ("h", TensorProto.FLOAT, [1, 2, 1]),
    )]  # fmt: skip
    weights = [helper.make_tensor(name, TensorProto.FLOAT, [1, 1, 1], [1.0]) for name in "wr"]
    return _model([node], inputs, helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 14, weights)


def _squares_beyond_the_type(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    data = _stored(node.input[0], model)
    axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
    scale = _shape_of(node.input[1], model)
    if data is None or data.dtype != np.float32 or scale is None or len(scale) <= (-axis if axis < 0 else data.ndim - axis):
        return False
    return bool((np.abs(data[np.isfinite(data)]) > np.sqrt(np.finfo(np.float32).max)).any())


def _variance_beyond_the_type() -> onnx.ModelProto:
    node = helper.make_node("LayerNormalization", ["x", "s"], ["y"])
    data = helper.make_tensor("x", TensorProto.FLOAT, [2, 2], [1e30, -2e30, 3e30, 4e30])
    ones = helper.make_tensor("s", TensorProto.FLOAT, [2, 2], [1.0] * 4)
    return _model([node], [], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 17, [data, ones])


def _mask_of_infinity(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    mask = _stored(node.input[3], model) if len(node.input) > 3 else None
    return mask is not None and mask.dtype.kind == "f" and bool(np.isposinf(mask).any())


def _infinity_let_through() -> onnx.ModelProto:
    node = helper.make_node("Attention", ["q", "k", "k", "m", "", "", "n"], ["y"], is_causal=1)
    q, k = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, size, 8]) for n, size in (("q", 3), ("k", 6)))
    mask = helper.make_tensor("m", TensorProto.DOUBLE, [3], [0.0, np.inf, 1e30])
    keys = helper.make_tensor("n", TensorProto.INT64, [1], [1])
    return _model([node], [q, k], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 24, [mask, keys])


def _deviation_of_one(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    shape = _shape_of(node.input[0], model)
    axes = next((a.ints for a in node.attribute if a.name == "axes"), (0, 2, 3))
    return shape is not None and all(shape[a] == 1 for a in axes if -len(shape) <= a < len(shape))


def _normalized_one() -> onnx.ModelProto:
    node = helper.make_node("MeanVarianceNormalization", ["x"], ["y"], axes=[1])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 1]) for name in "xy")
    return _model([node], [x], y, 13)


def _zeros_allowed_by_two() -> onnx.ModelProto:
    node = helper.make_node("Reshape", ["x", "s"], ["y"], allowzero=2)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in (("x", [2, 3]), ("y", None)))
    return _model([node], [x, helper.make_tensor_value_info("s", TensorProto.INT64, [2])], y, 21)  # of zeros, as drawn


def _number_of_open_size(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return any(_shape_of(name, model) not in ((), (1,), None) for name in node.input[2:] if name)


def _several_numbers_of_boxes() -> onnx.ModelProto:
    node = helper.make_node("NonMaxSuppression", ["b", "s", "n"], ["y"])
    inputs = [helper.make_tensor_value_info(*named) for named in (
        ("b", TensorProto.FLOAT, [1, 4, 4]), ("s", TensorProto.FLOAT, [1, 1, 4]), ("n", TensorProto.INT64, ["N"]),
    )]  # fmt: skip
    return _model([node], inputs, helper.make_tensor_value_info("y", TensorProto.INT64, None), 11)


def _with_values(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> onnx.ModelProto:
    """A copy of the model that stores the numbers it was fed."""
    given = onnx.ModelProto()
    given.CopyFrom(model)
    for name, value in feeds.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "iufb":
            given.graph.initializer.append(numpy_helper.from_array(value, name))
    return given


def _stored(name: str, model: onnx.ModelProto) -> "np.ndarray[Any, Any] | None":
    """What the main graph stores under the name, None where that is no constant."""
    tensors = [t for t in model.graph.initializer if t.name == name]
    tensors += [
        a.t for n in model.graph.node if n.op_type == "Constant" and name in n.output for a in n.attribute if a.name == "value"
    ]
    return numpy_helper.to_array(tensors[0]) if tensors else None


def _type_of(name: str, model: onnx.ModelProto) -> int:
    """The element type that the model tells of a value of its main graph, 0 where it tells none."""
    stored = [t.data_type for t in model.graph.initializer if t.name == name]
    declared = [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.value_info) if v.name == name]
    return next(iter((*stored, *declared)), 0)


def _rank_of(name: str, model: onnx.ModelProto) -> int | None:
    shape = _shape_of(name, model)
    return None if shape is None else len(shape)


def _shape_of(name: str, model: onnx.ModelProto) -> tuple[int, ...] | None:
    """The sizes that the model tells of a value of its main graph, 0 for one that it only names; None where it tells none."""
    stored = [tuple(t.dims) for t in model.graph.initializer if t.name == name]
    declared = [
        tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in (*model.graph.input, *model.graph.value_info)
        if v.name == name
    ]
    return next(iter((*stored, *declared)), None)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
    opset: int,
    stored: Sequence[TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, [output], list(stored))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)


def _flag_of_two() -> onnx.ModelProto:
    node = helper.make_node("ReduceMax", ["x"], ["y"], keepdims=2)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    return _model([node], [x], helper.make_tensor_value_info("y", TensorProto.FLOAT, None), 18)


KNOWN = (
    Known(frozenset(), "a flag that is neither 0 nor 1",
          "ONNX gives a flag these two values and says nothing of others: here they are true, there some are false",
          _odd_flag, _flag_of_two),
    Known(frozenset({"Cast", "CastLike"}), "floats to integers of 2 or 4 bits",
          "ONNX's reference drops the fraction as for wider integers, ONNX Runtime rounds; beyond the range nothing is defined",
          _to_narrow_integers, _halves_to_uint4),
    Known(frozenset({"Cast"}), "to float8e8m0",
          "ONNX leaves open what negative numbers become, which random inputs hold: their magnitude here, as in its reference",
          _to_powers_of_two, _negative_to_power_of_two),
    Known(frozenset({"Attention"}), "a mask of integers",
          "ONNX describes masks of bools and of floats; where such a mask is short, ONNX Runtime lets through what it should not",
          _integer_mask, _short_integer_mask),
    Known(frozenset({"Attention"}), "qk_matmul_output_mode is 2",
          "what is masked is minus infinity in that output, as in ONNX's reference; ONNX Runtime gives the lowest finite number",
          _scores_after_the_mask, _masked_scores),
    Known(frozenset({"SplitToSequence"}), "keepdims is 0 beside a split",
          "ONNX ignores keepdims where there is a split; ONNX Runtime drops the axis where all parts are of size 1",
          _split_without_keepdims, _split_in_ones),
    Known(frozenset({"NonZero"}), "a scalar", "ONNX gives the shape [0, N] for a scalar, ONNX Runtime gives [1, N] as numpy did",
          _scalar, _scalar_that_is_not_zero),
    Known(frozenset({"Celu"}), "alpha is 0 or not finite as a half",
          "ONNX's formula is 0 / 0 or infinity * 0 there, which is NaN; ONNX Runtime runs the function, which rounds alpha first",
          _odd_alpha, _celu_of_alpha_zero),
    Known(frozenset({"ReduceProd", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceMean"}),
          "integers that come to more than their type holds, or a double holds exactly",
          "they wrap here, as in ONNX's reference; ONNX Runtime computes in doubles and takes the nearest integer of the type",
          _beyond_a_double_or_the_type, _product_of_large_integers),
    Known(frozenset({"Pow"}), "an integer to the power of an integer is more than the type holds, or a double holds exactly",
          "it wraps here, as in ONNX's reference; ONNX Runtime computes in doubles, and the least integer is what is too large",
          _beyond_a_double_or_the_type, _power_of_large_integers),
    Known(frozenset({"Attention"}), "scale is negative, not finite, or beyond what halves hold",
          "ONNX multiplies queries and keys by its root before their product, where infinities of both signs meet: NaN; "
          "ONNX Runtime multiplies the product, and takes NaN for no scale",
          _odd_scale, _infinite_scale),
    Known(frozenset({"Attention"}), "softcap is negative or not finite",
          "ONNX's formula and its function cap by every number but 0; ONNX Runtime by positive ones alone",
          _odd_softcap, _negative_softcap),
    Known(frozenset({"Attention"}), "a mask of another type than the queries, with a last dimension of 1",
          "ONNX pads a mask that is short with minus infinity; for such types ONNX Runtime runs a function, which spreads it",
          _other_floats_that_spread, _mask_of_one_half),
    Known(frozenset({"Resize"}), "align_corners, and scales that give no whole size",
          "ONNX and its suite take the size with its fraction for where the corners are, ONNX Runtime the whole one",
          _align_corners_by_scales, _corners_of_a_fraction),
    Known(frozenset({"ReduceMax", "ReduceMin"}), "of what holds NaN",
          "ONNX says nothing of NaN: here it is the result, as in ONNX's reference; in ONNX Runtime that hangs on its place",
          _holds_nan, _largest_of_nan),
    Known(frozenset({"ArgMax", "ArgMin"}), "of what holds NaN",
          "ONNX says nothing of NaN: here it is found, as in ONNX's reference; in ONNX Runtime it compares false",
          _holds_nan, _least_place_of_nan),
    Known(frozenset({"BatchNormalization"}), "training_mode with an epsilon of minus infinity",
          "the root of minus infinity is NaN, as in ONNX's reference and ONNX Runtime's inference; its training gives the bias",
          _trained_with_infinity, _root_of_minus_infinity),
    Known(frozenset({"ConvTranspose"}), "SAME, and a stride beyond what the kernel spans",
          "ONNX has the size of the input times the stride; ONNX Runtime pads by 0 at least and gives what the kernel reaches",
          _strides_beyond_the_kernel, _stride_of_seven),
    Known(frozenset({"LSTM", "GRU", "RNN"}), "a sequence of no steps",
          "ONNX does not say what the last state is: here the first one, in ONNX Runtime zeros",
          _sequence_of_none, _state_of_no_steps),
    Known(frozenset({"LayerNormalization"}), "numbers whose squares are beyond f32, and a scale that changes along other axes",
          "ONNX has the first stage in f32 (stash_type), where the variance is infinite; ONNX Runtime takes f64 for such scales",
          _squares_beyond_the_type, _variance_beyond_the_type),
    Known(frozenset({"Attention"}), "a mask that adds infinity",
          "infinity less infinity is NaN in ONNX's formula and its reference; ONNX Runtime gives numbers where masks meet",
          _mask_of_infinity, _infinity_let_through),
    Known(frozenset({"MeanVarianceNormalization"}), "over axes of size 1",
          "ONNX's function divides 0 by a small number, so that it is 0; ONNX Runtime divides 0 by 0",
          _deviation_of_one, _normalized_one),
)  # fmt: skip
"""Every reason; a test runs the examples, so that one which differs no more has to go."""

REFUSED = (
    Known(frozenset({"Reshape"}), "allowzero is neither 0 nor 1",
          "ONNX has 0 and 1, and every other number for true in its reference; to ONNX Runtime 1 alone is",
          _odd_flag, _zeros_allowed_by_two),
    Known(frozenset({"NonMaxSuppression"}), "limits of an open size",
          "ONNX has one number for each; of several, ONNX Runtime takes the first",
          _number_of_open_size, _several_numbers_of_boxes),
)  # fmt: skip
"""Reasons for plans that fail where ONNX Runtime runs the model; a test runs the examples of these, too."""
