"""What import_model takes and gives: sources, names, outputs to mark, inputs to keep, the model's own record."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType, TensorType
from miniinfer_cli.onnx_import import ModelInfo, import_model, import_with_info
from miniinfer_cli.ops.interpreter import interpret
from tests.onnx_import.models import BOOL, F32, I64, STR, model, read, run


def _two_layers() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
        helper.make_node("Split", ["h"], ["left", "right"], name="halves", axis=1, num_outputs=2),
        helper.make_node("Relu", ["left"], ["y"], name="act"),
    ]
    inputs = {"x": (F32, ["n", 3]), "w": (F32, [3, 4])}
    return model(nodes, inputs, {"y": (F32, None)}, {"w": np.eye(3, 4, dtype=np.float32), "unused": np.ones(9, np.float32)})


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "proto"])
def test_sources(tmp_path: Path, kind: str) -> None:
    proto, path = _two_layers(), tmp_path / "m.onnx"
    onnx.save(proto, path)
    source = {"path": path, "text": str(path), "bytes": path.read_bytes(), "proto": proto}[kind]
    graph = import_model(source)
    assert (graph.name, [v.name for v in graph.inputs], graph.output_names) == ("g", ["x"], ("y",))
    assert import_model(source, name="other").name == "other"
    (y,) = interpret(graph, [np.array([[1, -2, 3]], np.float32)])
    assert y.tolist() == [[1, 0]]


def test_initializers_are_constants_though_listed_as_inputs_and_unread_ones_are_dropped() -> None:
    graph = read(_two_layers())
    assert [v.name for v in graph.constants()] == ["w"]
    assert [str(v.type) for v in graph.values()] == ["f32[n,3]", "f32[3,4]", "f32[n,4]", "f32[n,2]", "f32[n,2]", "f32[n,2]"]


def test_overridable_inputs() -> None:
    x, w = np.ones((1, 3), np.float32), np.full((3, 4), 2, np.float32)
    graph = read(_two_layers(), overridable=["w"])
    assert [v.name for v in graph.inputs] == ["x", "w"]
    (y,) = run(_two_layers(), x, w, overridable=["w"])
    assert y.tolist() == [[6, 6]]
    assert list(graph.defaults) == ["w"]
    with pytest.raises(UsageError, match="overridable: nothing in the model is named 'v'"):
        import_model(_two_layers(), overridable=["v"])


@pytest.mark.parametrize(
    ("marks", "names"),
    [
        (["fc"], ("y", "h")),
        (["h", "fc"], ("y", "h")),
        (["halves"], ("y", "left", "right")),
        (["right"], ("y", "right")),
        (["act", "y"], ("y",)),
        (["x"], ("y", "x")),
    ],
)
def test_marked_outputs(marks: list[str], names: tuple[str, ...]) -> None:
    assert read(_two_layers(), mark_outputs=marks).output_names == names


def test_a_mark_that_names_nothing() -> None:
    with pytest.raises(UsageError, match="output to mark: nothing in the model is named 'rigth'") as caught:
        import_model(_two_layers(), mark_outputs=["rigth"])
    assert caught.value.hint == "did you mean right?"


def test_outputs_may_be_inputs_and_constants() -> None:
    proto = model([], {"x": (F32, [2])}, {"x": (F32, None), "w": (F32, None)}, {"w": np.float32([5])})
    x, w = run(proto, np.float32([1, 2]))
    assert (x.tolist(), w.tolist()) == ([1, 2], [5])


def test_model_info() -> None:
    proto = _two_layers()
    proto.producer_name, proto.producer_version, proto.domain, proto.model_version = "maker", "1.2", "org.x", 3
    proto.doc_string = "what it is"
    proto.metadata_props.add(key="license", value="Apache-2.0")
    proto.opset_import.add(domain="ai.onnx.ml", version=3)
    _, info = import_with_info(proto)
    assert info == ModelInfo(
        name="g",
        producer="maker",
        producer_version="1.2",
        domain="org.x",
        version=3,
        doc="what it is",
        ir_version=10,
        opsets={"": 18, "ai.onnx.ml": 3},
        metadata={"license": "Apache-2.0"},
        notes=(
            "1 input has an initializer and is taken as a constant;"
            " --overridable NAME (overridable=) makes one an input with a default",
        ),
        constant_inputs=("w",),
    )


CONSTANTS = [
    ("value", onnx.numpy_helper.from_array(np.array([[1, 2]], np.int32)), np.array([[1, 2]], np.int32)),
    ("value_float", 1.5, np.array(1.5, np.float32)),
    ("value_floats", [1.5, 2.5], np.array([1.5, 2.5], np.float32)),
    ("value_int", 7, np.array(7)),
    ("value_ints", [7, 8], np.array([7, 8])),
    ("value_string", "ü", np.array("ü", object)),
    ("value_strings", ["a", "bc"], np.array(["a", "bc"], object)),
]


@pytest.mark.parametrize(("attribute", "given", "expected"), CONSTANTS, ids=[c[0] for c in CONSTANTS])
def test_constant_nodes_become_constants(attribute: str, given: object, expected: np.ndarray) -> None:
    proto = model([helper.make_node("Constant", [], ["c"], **{attribute: given})], {}, {"c": (F32, None)})
    proto.graph.output[0].ClearField("type")
    graph = read(proto)
    assert len(graph) == 0
    (c,) = run(proto)
    assert (c.dtype, c.shape, c.tolist()) == (expected.dtype, expected.shape, expected.tolist())


def test_attributes_arrive_as_plain_python() -> None:
    fill = onnx.numpy_helper.from_array(np.array([3], np.int32))
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["a"], value=fill),
        helper.make_node("Conv", ["x", "w"], ["b"], kernel_shape=[1, 1], auto_pad="VALID", group=2),
        helper.make_node("LeakyRelu", ["b"], ["c"], alpha=0.5),
        helper.make_node("Optional", [], ["o"], type=helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"])),
    ]
    inputs = {"x": (F32, [1, 2, 3, 3]), "s": (I64, [2])}
    graph = read(
        model(nodes, inputs, {"a": (TensorProto.INT32, None), "c": (F32, None)}, {"w": np.ones((2, 1, 1, 1), np.float32)})
    )
    a, b, c, o = (node.attrs for node in graph)
    assert a.keys() == {"value"}
    np.testing.assert_array_equal(a["value"], np.array([3], np.int32), strict=True)
    assert b == {"kernel_shape": [1, 1], "auto_pad": "VALID", "group": 2}
    assert c == {"alpha": 0.5}
    assert str(o["type"]) == "f32[n]"


def test_outputs_left_out_and_inputs_left_out() -> None:
    nodes = [
        helper.make_node("TopK", ["x", "k"], ["", "at"]),
        helper.make_node("Clip", ["x", "", "high"], ["y"]),
        helper.make_node("Clip", ["x", "", ""], ["z"]),
        helper.make_node("MaxPool", ["image"], ["m", ""], kernel_shape=[2, 2]),
    ]
    stored = {"k": np.array([1]), "high": np.float32(0)}
    outputs = {"at": (I64, None), "y": (F32, None), "z": (F32, None), "m": (F32, None)}
    graph = read(model(nodes, {"x": (F32, [3]), "image": (F32, [1, 1, 4, 4])}, outputs, stored))
    top, high, none, pool = graph
    assert [len(n.outputs) for n in graph] == [2, 1, 1, 1]
    assert [v if v is None else v.name for v in high.inputs] == ["x", None, "high"]
    assert [len(none.inputs), len(pool.outputs)] == [1, 1]
    assert top.outputs[1].name == "at"


def test_values_of_other_kinds() -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["n"])
    optional = helper.make_value_info("o", helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.INT64, [2])))
    mapping = helper.make_value_info(
        "m", helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    proto = model([helper.make_node("OptionalHasElement", ["o"], ["y"])], {"t": (STR, [1])}, {"y": (BOOL, None)})
    proto.graph.input.extend([sequence, optional, mapping])
    assert [str(v.type) for v in read(proto).inputs] == ["str[1]", "seq(f32[?])", "optional(i64[2])", "map(str,f32[])"]


def test_a_type_that_nothing_tells_stays_open() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (F32, None)}, {"y": (F32, None)})
    (node,) = read(proto)
    assert node.output.type == TensorType(DType.F32, None)
