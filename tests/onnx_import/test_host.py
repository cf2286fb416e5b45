"""Operators that only onnx.reference runs, and operators that a user's module defines."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from miniinfer_cli.ir import Array, TensorType
from miniinfer_cli.onnx_import import import_model
from miniinfer_cli.ops import define, registry
from miniinfer_cli.ops.interpreter import interpret
from tests.onnx_import.models import F32, I64, STR, fault, model, ops_of, read, run, subgraph

ML = {"ai.onnx.ml": 3}


def test_strings_run_on_the_host() -> None:
    proto = model(
        [helper.make_node("StringConcat", ["a", "b"], ["y"], name="join")],
        {"a": (STR, ["n"]), "b": (STR, ["n"])},
        {"y": (STR, None)},
        opset=20,
    )
    graph = read(proto)
    (node,) = graph
    assert (node.domain, node.op, node.name) == ("miniinfer", "OnnxReference", "join")
    assert str(node.output.type) == "str[n]"
    (y,) = run(proto, np.array(["a", "b"], object), np.array(["c", "d"], object))
    assert y.tolist() == ["ac", "bd"]


def test_machine_learning_operators_run_on_the_host() -> None:
    nodes = [
        helper.make_node("Scaler", ["x"], ["s"], domain="ai.onnx.ml", offset=[1.0, 2.0], scale=[2.0, 3.0]),
        helper.make_node("Binarizer", ["s"], ["b"], domain="ai.onnx.ml", threshold=0.5),
        helper.make_node("Add", ["b", "s"], ["y"]),
    ]
    proto = model(nodes, {"x": (F32, ["n", 2])}, {"y": (F32, None)}, opsets=ML)
    assert ops_of(read(proto)) == ["OnnxReference", "OnnxReference", "Add"]
    (y,) = run(proto, np.array([[1, 3]], np.float32))
    assert y.tolist() == [[0, 4]]


def test_attributes_of_a_function_around_reach_the_host() -> None:
    scaler = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0])
    scaler.attribute.add(name="scale", ref_attr_name="by", type=6)
    function = helper.make_function("my", "By", ["x"], ["y"], [scaler], [helper.make_opsetid("ai.onnx.ml", 3)], ["by"])
    call = helper.make_node("By", ["x"], ["y"], domain="my", by=[4.0])
    (y,) = run(
        model([call], {"x": (F32, [1, 1])}, {"y": (F32, None)}, opsets={**ML, "my": 1}, functions=[function]), np.float32([[2]])
    )
    assert y.tolist() == [[8]]


def test_large_tensors_of_a_node_go_with_it() -> None:
    keys, values = np.arange(3000), np.arange(3000, dtype=np.float32) * 2
    tensors = {n: onnx.numpy_helper.from_array(a) for n, a in (("keys_tensor", keys), ("values_tensor", values))}
    tensors["default_tensor"] = onnx.numpy_helper.from_array(np.float32([-1]))
    node = helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", **tensors)
    source = model([node], {"x": (I64, [3])}, {"y": (F32, None)}, opsets={"ai.onnx.ml": 4}).SerializeToString()
    (y,) = interpret(import_model(source), [np.array([0, 7, 9999])])
    assert y.tolist() == [0, 14, -1]


def test_where_onnx_tells_no_shape_the_model_may() -> None:
    # onnx has no rule for Scaler, but knows that it gives f32.
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[1.0])
    for declared, found in ((["n", 2], "f32[n,2]"), (None, "f32[?]")):
        proto = model([node], {"x": (F32, ["n", 2])}, {"y": (F32, declared)}, opsets=ML)
        if declared is None:
            proto.graph.output[0].ClearField("type")
        (host,) = read(proto)
        assert str(host.output.type) == found


def test_what_onnx_refuses_is_a_fault() -> None:
    node = helper.make_node("StringConcat", ["a", "b"], ["y"], name="join")
    text = fault(model([node], {"a": (STR, [2]), "b": (STR, [3])}, {"y": (STR, None)}, opset=20))
    assert text == "model: node 'join' (StringConcat, opset 20): [ShapeInferenceError] Incompatible dimensions"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two operations of a user's module: one of a new domain, one in place of the operator of ai.onnx.ml."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    def infer(x: TensorType, *, by: float = 2.0) -> TensorType:
        return x

    def scale(x: Array, *, by: float = 2.0) -> Array:
        return x * np.float32(by)

    define("Scale", domain="com.acme", infer=infer, reference=scale)
    define("Normalizer", domain="ai.onnx.ml", infer=lambda x, *, norm="MAX": x, reference=lambda x, *, norm="MAX": x + 1)


def test_a_users_operation_is_found(plugin: None) -> None:
    nodes = [
        helper.make_node("Scale", ["x"], ["h"], domain="com.acme", by=3.0),
        helper.make_node("Normalizer", ["h"], ["y"], domain="ai.onnx.ml"),
    ]
    proto = model(nodes, {"x": (F32, ["n"])}, {"y": (F32, None)}, opsets={"com.acme": 1, **ML})
    graph = read(proto)
    assert [(n.domain, n.op) for n in graph] == [("com.acme", "Scale"), ("ai.onnx.ml", "Normalizer")]
    assert str(graph.outputs[0].type) == "f32[n]"
    (y,) = run(proto, np.float32([1, 2]))
    assert y.tolist() == [4, 7]


def test_a_users_operation_comes_before_the_models_function(plugin: None) -> None:
    function = helper.make_function(
        "com.acme", "Scale", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], [helper.make_opsetid("", 18)]
    )
    proto = model(
        [helper.make_node("Scale", ["x"], ["y"], domain="com.acme")],
        {"x": (F32, ["n"])},
        {"y": (F32, None)},
        opsets={"com.acme": 1},
        functions=[function],
    )
    assert ops_of(read(proto)) == ["Scale"]


def test_a_users_operation_has_only_its_own_attributes(plugin: None) -> None:
    node = helper.make_node("Scale", ["x"], ["y"], domain="com.acme", name="s", factor=3.0)
    text = fault(model([node], {"x": (F32, ["n"])}, {"y": (F32, None)}, opsets={"com.acme": 1}))
    assert text == "model: node 's' (com.acme.Scale, opset 1): com.acme::Scale has no attribute 'factor'; its attributes: by"


def test_sub_graphs_do_not_go_to_the_host() -> None:
    body = subgraph([helper.make_node("Neg", ["e"], ["f"])], {"e": (F32, None)}, {"f": (F32, None)})
    node = helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml")
    node.attribute.add(name="default_float", type=5, g=body)
    assert "is of type FLOAT, got GRAPH" in fault(model([node], {"x": (TensorProto.FLOAT, [1])}, {"y": (F32, None)}, opsets=ML))
