"""Size operands that a build cannot know: of an input of a named length, and computed from data. Every operation that has one
gives the CPU's answer on the emulated device, and what is said of a GPU ahead does not fail.
"""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from miniinfer_cli.devices.placement import place
from miniinfer_cli.planning.thaw import thaw
from tests.everywhere import outputs_everywhere


def data(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 7 - 3) / 2


def size(*items: Any, dtype: Any = np.int64) -> tuple[np.ndarray]:
    """An operand that decides sizes, marked so by being in a tuple."""
    return (np.array(items, dtype),)


IMAGE = data(1, 2, 4, 4)
AFFINE = np.array([[[1, 0, 0], [0, 1, 0.5]]], np.float32)
CROP = size(0, 0, 0, 0.1, 1, 1, 0.5, 0.9, dtype=np.float32)
SCALES = size(1, 1, 2, 0.5, dtype=np.float32)
OPERATIONS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "AffineGrid": ([AFFINE, size(1, 1, 3, 4)], {}),
    "CenterCropPad": ([data(5, 3), size(2, 6)], {}),
    "Col2Im": ([data(1, 5, 5), size(5, 5), size(1, 5)], {}),
    "ConstantOfShape": ([size(2, 3)], {}),
    "Expand": ([data(1, 3), size(2, 3)], {}),
    "MaxUnpool": (
        [data(1, 1, 2, 2), np.array([[[[0, 3], [8, 10]]]]), size(1, 1, 4, 4)],
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
    "OneHot": ([np.array([0, 2]), size(4), np.array([0, 1], np.float32)], {}),
    "Pad": ([data(2, 3), size(1, 0, 0, 2)], {}),
    "Pad axes": ([data(2, 3), size(1, 2), None, size(1)], {"mode": "reflect"}),
    "ReduceSum": ([data(2, 3, 4), size(1)], {"keepdims": 0}),
    "Reshape": ([data(2, 6), size(3, 4)], {}),
    "Resize scales": ([IMAGE, None, SCALES], {"mode": "linear"}),
    "Resize sizes": ([IMAGE, None, None, size(1, 2, 6, 3)], {"mode": "cubic"}),
    "Resize roi": ([IMAGE, CROP, SCALES], {"coordinate_transformation_mode": "tf_crop_and_resize"}),
    "Slice": ([data(5, 3), size(1, 0), size(4, 2), size(0, 1), size(2, 1)], {}),
    "Slice steps": ([data(5, 3), np.array([4]), np.array([-9]), np.array([0]), size(-2)], {}),
    "Split": ([data(5, 3), size(2, 3)], {}),
    "Squeeze": ([data(1, 3, 1), size(0)], {}),
    "Tile": ([data(2, 3), size(2, 1)], {}),
    "TopK": ([data(2, 6), size(3)], {}),
    "Unsqueeze": ([data(2, 3), size(0, 2)], {}),
}


def model_of(kind: str, late: bool) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The operation with its operands as inputs: their axes are named, or sizes are cut from a tensor too large to be a shape."""
    op, operands, attrs = kind.split()[0], *OPERATIONS[kind]
    nodes, inputs, feeds, names = [], [], {}, []
    for i, operand in enumerate(operands):
        decides, array = isinstance(operand, tuple), operand[0] if isinstance(operand, tuple) else operand
        if array is None:
            names.append("")
            continue
        name = f"x{i}"
        names.append(name)
        feeds[name] = array
        shape: Any = [f"{name}_{axis}" for axis in range(array.ndim)]
        if decides and late:
            feeds[name] = np.concatenate([array, np.zeros(100, array.dtype)])
            parts = numpy_helper.from_array(np.array([array.size, 100]))
            nodes += [
                helper.make_node("Constant", [], [f"{name}_parts"], value=parts),
                helper.make_node("Split", [name, f"{name}_parts"], [f"{name}_size", f"{name}_rest"]),
            ]
            names[-1] = f"{name}_size"
            shape = [array.size + 100]
        inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
    outputs = ["y", "z"] if op in ("Split", "TopK") else ["y"]
    nodes.append(helper.make_node(op, names, outputs, **attrs))
    values = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs]
    for value in values:
        value.ClearField("type")
    graph = helper.make_graph(nodes, "g", inputs, values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), feeds


@pytest.mark.parametrize("late", [False, True], ids=["named", "late"])
@pytest.mark.parametrize("kind", OPERATIONS)
def test_sizes_that_only_a_run_tells(kind: str, late: bool):
    model, feeds = model_of(kind, late)
    place(thaw(miniinfer_cli.build(model)), {})  # as build and inspect do
    (found,) = outputs_everywhere(model, feeds)
    operands = [o[0] if isinstance(o, tuple) else o for o in OPERATIONS[kind][0]]
    known, _ = model_of(kind, late=False)
    for i, operand in enumerate(operands):
        if operand is not None:
            known.graph.initializer.append(numpy_helper.from_array(operand, f"x{i}"))
    del known.graph.input[:]
    (expected,) = outputs_everywhere(known, {})  # the same with everything known at the build
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, strict=True)
