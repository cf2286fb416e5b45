"""Older versions of operators give what ONNX Runtime gives for the model as it stands."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from miniinfer_cli.onnx_import import import_with_info
from tests.onnx_import.models import BOOL, F32, I64, STR, fault, model, ops_of, read, run, subgraph

RNG = np.random.default_rng(7)
IMAGE = RNG.standard_normal((2, 4, 5, 6)).astype(np.float32)
KINDS = {np.dtype(np.float32): F32, np.dtype(np.int64): I64, np.dtype(bool): BOOL}


def _single(op: str, opset: int, inputs: Mapping[str, np.ndarray], n_outputs: int = 1, **attrs: Any) -> onnx.ModelProto:
    """A model of one node, its outputs untyped; inputs named in capitals are given, the others are initializers."""
    outputs = [f"y{i}" for i in range(n_outputs)]
    node = helper.make_node(op, list(inputs), outputs, **attrs)
    given = {n: (KINDS[a.dtype], list(a.shape)) for n, a in inputs.items() if n.isupper()}
    kept = {n: a for n, a in inputs.items() if not n.isupper()}
    proto = model([node], given, dict.fromkeys(outputs, (F32, None)), kept, opset=opset)
    for output in proto.graph.output:
        output.ClearField("type")
    return proto


def _by_onnxruntime(proto: onnx.ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {v.name: x for v, x in zip(proto.graph.input, inputs, strict=True)})


def _expect_same(proto: onnx.ModelProto, *inputs: np.ndarray) -> None:
    expected = _by_onnxruntime(proto, *inputs)
    found = run(proto, *inputs)
    assert len(found) == len(expected)
    for got, want in zip(found, expected, strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "opset", "attrs"),
    [
        ("Squeeze", 11, {"axes": [0, -2]}),
        ("Squeeze", 8, {}),
        ("Unsqueeze", 11, {"axes": [0, -1]}),
        *((op, 11, {"axes": [-1, 1], "keepdims": 0}) for op in ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceMax")),
        *((op, 13, {"axes": [2]}) for op in ("ReduceProd", "ReduceMin", "ReduceLogSumExp", "ReduceSumSquare")),
        ("ReduceMean", 12, {}),
        ("Slice", 9, {"starts": [0, -2], "ends": [1, 100], "axes": [1, 2]}),
        ("Slice", 9, {"starts": [0, 1], "ends": [1, -1]}),
        ("Pad", 10, {"pads": [0, 1, 0, 2, 0, 1, -1, 0], "value": 2.5}),
        ("Pad", 9, {"pads": [0, 2, 0, 1, 0, 1, 0, 3], "mode": "reflect"}),
        ("Clip", 10, {"min": -0.5, "max": 0.25}),
        ("Clip", 6, {"max": 0.25}),
        ("Clip", 9, {}),
    ],
)
def test_attributes_that_became_inputs(op: str, opset: int, attrs: dict[str, Any]) -> None:
    x = np.abs(RNG.standard_normal((1, 3, 1, 4))).astype(np.float32)
    _expect_same(_single(op, opset, {"X": x}, **attrs), x)


@pytest.mark.parametrize(("opset", "attrs"), [(9, {"split": [1, 3], "axis": 1}), (11, {"axis": 1}), (12, {"axis": -3})])
def test_split(opset: int, attrs: dict[str, Any]) -> None:
    _expect_same(_single("Split", opset, {"X": IMAGE}, n_outputs=2, **attrs), IMAGE)


@pytest.mark.parametrize("inputs", [{"X": IMAGE, "split": np.array([3, 1])}, {"X": IMAGE}])
def test_split_of_version_13(inputs: dict[str, np.ndarray]) -> None:
    _expect_same(_single("Split", 13, inputs, n_outputs=2, axis=1), IMAGE)


def test_top_k() -> None:
    _expect_same(_single("TopK", 9, {"X": IMAGE}, n_outputs=2, k=2, axis=2), IMAGE)


@pytest.mark.parametrize(("opset", "n_outputs"), [(7, 1), (9, 2), (10, 2), (11, 2)])
def test_dropout_only_infers(opset: int, n_outputs: int) -> None:
    found = run(_single("Dropout", opset, {"X": IMAGE}, n_outputs=n_outputs, ratio=0.9), IMAGE)
    np.testing.assert_array_equal(found[0], IMAGE)
    if n_outputs == 2:
        assert (found[1].dtype, found[1].shape) == (np.dtype(np.float32 if opset < 10 else bool), IMAGE.shape)
        assert found[1].all()


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize(("opset", "axis"), [(7, 1), (11, 2), (12, -3), (12, 0), (11, 3), (11, None)])
def test_softmax_over_flattened_axes(op: str, opset: int, axis: int | None) -> None:
    attrs = {} if axis is None else {"axis": axis}
    proto = _single(op, opset, {"X": IMAGE}, **attrs)
    _expect_same(proto, IMAGE)
    assert ops_of(read(proto)) == ([op] if axis == 3 else ["Flatten", op, "Shape", "Reshape"])


def _unranked(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with nothing known of the shapes of its inputs."""
    for value in proto.graph.input:
        value.type.tensor_type.ClearField("shape")
    return proto


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [None, -1, 0, 2, -3, 3])
def test_softmax_of_unknown_rank(op: str, axis: int | None) -> None:
    _expect_same(_unranked(_single(op, 11, {"X": IMAGE}, **({} if axis is None else {"axis": axis}))), IMAGE)


@pytest.mark.parametrize("axis", [1, 2, -3, -1, None])
def test_one_sided_broadcasting_of_unknown_ranks(axis: int | None) -> None:
    start = len(IMAGE.shape) - 1 if axis is None else axis % 4
    b = IMAGE[0].reshape(-1)[: IMAGE.shape[start]]
    attrs = {"broadcast": 1} | ({} if axis is None else {"axis": axis})
    (y,) = run(_unranked(_single("Add", 6, {"A": IMAGE, "B": b}, **attrs)), IMAGE, b)
    np.testing.assert_array_equal(y, IMAGE + b.reshape([-1 if i == start else 1 for i in range(4)]))


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_slopes_for_channels_of_unknown_rank(rank: int) -> None:
    x = IMAGE.reshape(-1)[:4] if rank == 1 else IMAGE[:, :, 0, 0] if rank == 2 else IMAGE
    slope = np.array([1, 2, 3, 4], np.float32)
    (y,) = run(_unranked(_single("PRelu", 6, {"X": x, "slope": slope})), x)
    np.testing.assert_array_equal(y, np.where(x < 0, x * slope.reshape(-1, *[1] * max(rank - 2, 0)), x))


@pytest.mark.parametrize(
    ("op", "inputs"),
    [("LayerNormalization", ("scale",)), ("RMSNormalization", ("scale",)), ("GroupNormalization", ("scale", "bias"))],
)
def test_a_stash_type_of_0_is_the_default(op: str, inputs: tuple[str, ...]) -> None:
    size = 4 if op == "GroupNormalization" else 6
    operands = {"X": IMAGE, **{n: np.full(size, 2, np.float32) for n in inputs}}
    attrs = {"num_groups": 2} if op == "GroupNormalization" else {}
    (y,) = run(_single(op, 23, operands, stash_type=0, **attrs), IMAGE)
    np.testing.assert_array_equal(y, run(_single(op, 23, operands, **attrs), IMAGE)[0])
    (note,) = import_with_info(_single(op, 23, operands, stash_type=0, **attrs))[1].notes
    assert note == f"stash_type 0 of {op} is no element type: it is taken as f32, the default (node 'y0')"


def test_softmax_over_an_axis_that_is_not_there() -> None:
    text = fault(_single("Softmax", 12, {"X": IMAGE}, axis=4))
    assert "node 'y0' (Softmax, opset 12): Softmax axis 4 is outside [-4, 3] for input f32[2,4,5,6]" in text
    assert "hint: opset 12 and older flatten the input first; re-export with opset 13 or later" in text


def _statistics(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    positive = {n: np.abs(RNG.standard_normal(shape)).astype(np.float32) for n in ("scale", "variance")}
    others = {n: RNG.standard_normal(shape).astype(np.float32) for n in ("bias", "mean")}
    return {n: (positive | others)[n] for n in ("scale", "bias", "mean", "variance")}


@pytest.mark.parametrize("opset", [7, 9, 13, 14])
def test_batch_normalization(opset: int) -> None:
    _expect_same(_single("BatchNormalization", opset, {"X": IMAGE, **_statistics((4,))}, epsilon=0.01), IMAGE)


def test_batch_normalization_with_statistics_per_element() -> None:
    s = _statistics((4, 5, 6))
    (y,) = run(_single("BatchNormalization", 7, {"X": IMAGE, **s}, epsilon=0.01, spatial=0), IMAGE)
    expected = (IMAGE - s["mean"]) / np.sqrt(s["variance"] + 0.01) * s["scale"] + s["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_batch_normalization_in_training_is_refused() -> None:
    text = fault(_single("BatchNormalization", 9, {"X": IMAGE, **_statistics((4,))}, n_outputs=3))
    assert "BatchNormalization-9 with 3 outputs is its training form" in text
    assert "export the model in evaluation mode" in text


def test_group_normalization_with_parameters_per_group() -> None:
    scale, bias = np.array([2, 3], np.float32), np.array([-1, 1], np.float32)
    proto = _single("GroupNormalization", 18, {"X": IMAGE, "scale": scale, "bias": bias}, num_groups=2)
    (y,) = run(proto, IMAGE)
    groups = IMAGE.reshape(2, 2, -1)
    normal = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-5)
    expected = (normal * scale[:, None] + bias[:, None]).reshape(IMAGE.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


UP, DOWN, MIXED = [1, 1, 2, 3], [1, 1, 0.5, 0.4], [1, 1, 0.6, 1.5]


@pytest.mark.parametrize(
    ("op", "opset", "scales", "mode"),
    [
        *(("Upsample", 7, UP, mode) for mode in ("nearest", "linear")),
        *(("Upsample", 9, UP, mode) for mode in ("nearest", "linear")),
        *(("Resize", 10, scales, mode) for mode in ("nearest", "linear") for scales in (UP, DOWN)),
        ("Resize", 10, MIXED, "linear"),
    ],
)
def test_resize_from_the_corner(op: str, opset: int, scales: list[float], mode: str) -> None:
    if opset == 7:
        proto = _single(op, opset, {"X": IMAGE}, scales=[float(s) for s in scales], mode=mode)
    else:
        proto = _single(op, opset, {"X": IMAGE, "scales": np.array(scales, np.float32)}, mode=mode)
    _expect_same(proto, IMAGE)


def test_resize_that_grows_one_axis_and_shrinks_another() -> None:
    proto = _single("Resize", 10, {"X": IMAGE, "scales": np.array([1, 1, 0.5, 2], np.float32)})
    (y,) = run(proto, IMAGE)
    np.testing.assert_array_equal(y, IMAGE[:, :, [0, 2]].repeat(2, axis=3))


EMPTY = np.zeros(0, np.float32)


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_with_empty_operands(opset: int, mode: str) -> None:
    by_scales = {"X": IMAGE, "roi": EMPTY, "scales": np.array([1, 1, 1.5, 2], np.float32)}
    _expect_same(_single("Resize", opset, by_scales, mode=mode), IMAGE)
    if opset < 18:  # newer versions of ONNX Runtime want the name left out
        by_sizes = {"X": IMAGE, "roi": EMPTY, "scales": EMPTY, "sizes": np.array([2, 4, 7, 9])}
        _expect_same(_single("Resize", opset, by_sizes, mode=mode), IMAGE)


def test_resize_with_half_pixels_for_nearest() -> None:
    operands = {"X": IMAGE, "roi": EMPTY, "scales": np.array([1, 1, 1.7, 0.6], np.float32)}
    mode = {"coordinate_transformation_mode": "tf_half_pixel_for_nn"}
    for nearest in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
        _expect_same(_single("Resize", 11, operands, mode="nearest", nearest_mode=nearest, **mode), IMAGE)
    for blended in ("linear", "cubic"):
        for factors in ([1, 1, 1.7, 0.6], [1, 1, 1, 0.6]):
            operands["scales"] = np.array(factors, np.float32)
            _expect_same(_single("Resize", 11, operands, mode=blended, **mode), IMAGE)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample(mode: str) -> None:
    grid = RNG.uniform(-1.2, 1.2, (2, 3, 4, 2)).astype(np.float32)
    _expect_same(_single("GridSample", 16, {"X": IMAGE, "grid": grid}, mode=mode, align_corners=1), IMAGE)


@pytest.mark.parametrize("opset", [10, 16])
def test_roi_align(opset: int) -> None:
    rois = {"rois": np.array([[0.5, 1, 4, 4.5]], np.float32), "batch": np.array([1])}
    _expect_same(_single("RoiAlign", opset, {"X": IMAGE, **rois}, output_height=2, output_width=3, sampling_ratio=2), IMAGE)


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
def test_transposed_convolution_to_a_shape(auto_pad: str) -> None:
    # Version 1 gives the odd one of the three rows of padding to the end, but for SAME_UPPER.
    weights = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    proto = _single("ConvTranspose", 10, {"X": IMAGE, "w": weights}, strides=[3, 3], output_shape=[12, 15], auto_pad=auto_pad)
    (y,) = run(proto, IMAGE)
    (full,) = run(_single("ConvTranspose", 10, {"X": IMAGE, "w": weights}, strides=[3, 3]), IMAGE)
    start = 2 if auto_pad == "SAME_UPPER" else 1
    np.testing.assert_allclose(y, full[:, :, start : start + 12, start : start + 15], rtol=1e-5, atol=1e-6)


def test_scatter_is_scatter_elements() -> None:
    indices, updates = np.array([[1, 0, 2]]), np.array([[7, 8, 9]], np.float32)
    x = np.zeros((3, 3), np.float32)
    for opset in (9, 11):
        (y,) = run(_single("Scatter", opset, {"X": x, "indices": indices, "updates": updates}, axis=0), x)
        assert y.tolist() == [[0, 8, 0], [7, 0, 0], [0, 0, 9]]


@pytest.mark.parametrize(("opset", "expected"), [(9, [[0, 1, 0], [0, 0, 0]]), (11, [[0, 1, 0], [0, 0, 1]])])
def test_one_hot_of_negative_indices(opset: int, expected: list[list[int]]) -> None:
    inputs = {"X": np.array([1, -1]), "depth": np.array([3]), "values": np.array([0, 1], np.float32)}
    (y,) = run(_single("OneHot", opset, inputs), inputs["X"])
    assert y.tolist() == expected


@pytest.mark.parametrize(("op", "gates"), [("RNN", 1), ("LSTM", 4)])
def test_recurrent_nets_of_opset_6(op: str, gates: int) -> None:
    x = RNG.standard_normal((3, 2, 4)).astype(np.float32)
    w = {n: RNG.standard_normal((1, gates * 5, k)).astype(np.float32) for n, k in (("w", 4), ("r", 5))}
    (old,) = run(_single(op, 6, {"X": x, **w}, hidden_size=5, output_sequence=1), x)
    (new,) = run(_single(op, 14, {"X": x, **w}, hidden_size=5), x)
    np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(("shape", "axis"), [((4,), 1), ((4, 5), 1), ((2, 4), 0), ((6,), None), ((1,), None), ((5, 6), -2)])
def test_one_sided_broadcasting(shape: tuple[int, ...], axis: int | None) -> None:
    b = RNG.standard_normal(shape).astype(np.float32)
    attrs = {} if axis is None else {"axis": axis}
    (y,) = run(_single("Mul", 6, {"X": IMAGE, "b": b}, broadcast=1, **attrs), IMAGE)
    start = IMAGE.ndim - b.ndim if axis is None else axis % IMAGE.ndim
    lined_up = b.reshape(*[1] * start, *shape, *[1] * (IMAGE.ndim - start - b.ndim))
    np.testing.assert_array_equal(y, IMAGE * lined_up)


def test_one_slope_per_channel() -> None:
    slope = np.array([1, 2, 3, 4], np.float32)
    (y,) = run(_single("PRelu", 6, {"X": IMAGE, "slope": slope}), IMAGE)
    np.testing.assert_array_equal(y, np.where(IMAGE < 0, IMAGE * slope[:, None, None], IMAGE))


def test_upsample_by_two_factors() -> None:
    (y,) = run(_single("Upsample", 6, {"X": IMAGE}, height_scale=2.0, width_scale=3.0), IMAGE)
    np.testing.assert_array_equal(y, IMAGE.repeat(2, 2).repeat(3, 3))


def _running_sum(opset: int, directions: str, step: int) -> onnx.ModelProto:
    body = subgraph(
        [helper.make_node("Add", ["s", "x"], ["t"]), helper.make_node("Mul", ["t", "factor"], ["scaled"])],
        {"s": (F32, [2]), "x": (F32, [2])},
        {"t": (F32, [2]), "scaled": (F32, [2])},
    )
    inputs = ["", "S", "X"] if opset == 8 else ["S", "X"]
    node = helper.make_node("Scan", inputs, ["last", "all"], body=body, num_scan_inputs=1, **{directions: [step]})
    given = {"S": (F32, ["b", 2]), "X": (F32, ["b", "t", 2])} if opset == 8 else {"S": (F32, [2]), "X": (F32, ["t", 2])}
    proto = model([node], given, {"last": (F32, None), "all": (F32, None)}, opset=opset)
    proto.graph.input.add().CopyFrom(helper.make_tensor_value_info("factor", F32, [1]))
    return proto


@pytest.mark.parametrize("step", [0, 1])
def test_scan_with_a_batch_axis(step: int) -> None:
    s, x, factor = np.ones((3, 2), np.float32), RNG.standard_normal((3, 5, 2)).astype(np.float32), np.array([2], np.float32)
    last, every = run(_running_sum(8, "directions", step), s, x, factor)
    singles = [run(_running_sum(9, "scan_input_directions", step), s[i], x[i], factor) for i in range(3)]
    np.testing.assert_array_equal(last, np.stack([r[0] for r in singles]))
    np.testing.assert_array_equal(every, np.stack([r[1] for r in singles]))


def test_scan_with_lengths_is_refused() -> None:
    proto = _running_sum(8, "directions", 0)
    proto.graph.node[0].input[0] = "lengths"
    proto.graph.input.add().CopyFrom(helper.make_tensor_value_info("lengths", I64, [3]))
    assert "Scan-8 with sequence_lens is not supported" in fault(proto)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e30])
def test_numbers_that_a_type_of_integers_has_not(value: float) -> None:
    pad = _single("Pad", 6, {"X": np.zeros((2, 3), np.int64)}, pads=[0, 1, 0, 1], value=value)
    assert f"Pad-2 value is {value:g}, which no i64 is\n  hint: give a value within the range" in fault(pad)
    clip = _single("Clip", 6, {"X": np.zeros(3, np.int64)}, max=value)
    assert f"Clip-6 max is {value:g}, which no i64 is" in fault(clip)


def test_numbers_that_a_type_of_integers_has() -> None:
    (y,) = run(_single("Pad", 6, {"X": np.ones((1, 1), np.int64)}, pads=[0, 1, 0, 0], value=-7.0), np.ones((1, 1), np.int64))
    assert (y.dtype, y.tolist()) == (np.int64, [[-7, 1]])


def test_a_number_is_no_padding_of_strings() -> None:
    proto = model([helper.make_node("Pad", ["x"], ["y"], pads=[1, 0])], {"x": (STR, [2])}, {"y": (STR, None)}, opset=6)
    assert "Pad-2 value is the number 0, its input is of str" in fault(proto)
