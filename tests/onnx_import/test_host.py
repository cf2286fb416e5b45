"""Operators that only onnx.reference runs, and operators that a user's module defines."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import miniinfer_cli
from miniinfer_cli.ir import Array, DType, SequenceType, TensorType
from miniinfer_cli.onnx_import import import_model
from miniinfer_cli.onnx_import.call import Origin
from miniinfer_cli.onnx_import.host_types import host_output_types
from miniinfer_cli.ops import define, registry
from miniinfer_cli.ops.interpreter import interpret
from tests.emulation.engine import open_emulated
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


def test_fewer_outputs_than_a_rule_of_onnx_writes_are_refused() -> None:
    domain = "ai.onnx.preview.training"
    attributes = {"alpha": 0.95, "beta": 0.1, "norm_coefficient": 0.01, "mode": "nesterov"}
    node = helper.make_node("Momentum", list("rtxgv"), ["y"], domain=domain, **attributes)
    inputs = {"r": (F32, []), "t": (I64, []), "x": (F32, [2]), "g": (F32, [2]), "v": (F32, [2])}
    assert "out of bounds" in str(fault(model([node], inputs, {"y": (F32, None)}, opsets={domain: 1})))


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


@pytest.mark.parametrize(
    ("op", "attributes", "inputs", "told"),
    [
        ("Scaler", {"offset": [0.0], "scale": [1.0]}, [["n", 2]], "f32[n,2]"),
        ("Scaler", {"offset": [0.0, 1.0, 2.0], "scale": [1.0]}, [["n", 1]], "f32[?]"),
        ("Normalizer", {"norm": "L1"}, [["n", 2]], "f32[n,2]"),
        ("Imputer", {"imputed_value_floats": [1.0]}, [["n", 2]], "f32[n,2]"),
        ("LinearRegressor", {"coefficients": [1.0] * 6, "targets": 3}, [["n", 2]], "f32[n,3]"),
        ("SVMRegressor", {"coefficients": [1.0]}, [["n", 2]], "f32[n,1]"),
        ("TreeEnsembleRegressor", {"n_targets": 4}, [["n", 2]], "f32[n,4]"),
        ("FeatureVectorizer", {"inputdimensions": [2, 3]}, [["n", 2], ["n", 3]], "f32[n,5]"),
        ("FeatureVectorizer", {"inputdimensions": [2]}, [None], "f32[?]"),
    ],
)
def test_shapes_that_onnx_does_not_tell(op: str, attributes: Any, inputs: Any, told: str) -> None:
    names = [f"x{i}" for i in range(len(inputs))]
    node = helper.make_node(op, names, ["y"], domain="ai.onnx.ml", **attributes)
    proto = model(
        [node], {n: (F32, d) for n, d in zip(names, inputs, strict=True)}, {"y": (F32, [7, 7])}, opsets={"ai.onnx.ml": 1}
    )
    proto.graph.output[0].ClearField("type")
    assert str(read(proto).outputs[0].type) == told


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("size", [0, 1, 4])
def test_a_declared_size_is_a_claim(op: str, size: int) -> None:
    nodes = [helper.make_node(op, ["n"], ["w"]), helper.make_node("Neg", ["w"], ["y"])]
    proto = model(nodes, {"n": (I64, [])}, {"y": (F32, None)}, opset=17)
    proto.graph.value_info.append(helper.make_tensor_value_info("w", F32, [8]))
    plan = miniinfer_cli.build(proto)
    (window,) = ReferenceEvaluator(nodes[0]).run(None, {"n": np.array(size)})
    for opened in (miniinfer_cli.load(plan, device="cpu"), open_emulated(plan)):
        with opened as engine:
            np.testing.assert_array_equal(engine.run({"n": np.array(size)})["y"], -window)


def test_a_declared_type_lends_no_shape() -> None:
    node = helper.make_node("StringNormalizer", ["x"], ["y"])
    declared = {"y": helper.make_tensor_type_proto(STR, [7])}
    origin = Origin(node, (), {"": 10}, declared, None)  # type: ignore[arg-type]  # no tensors to read
    assert host_output_types(node, "", origin, {}, [None]) == [TensorType(DType.STR)]
    declared["y"] = helper.make_sequence_type_proto(declared["y"])
    assert host_output_types(node, "", origin, {}, [None]) == [SequenceType(TensorType(DType.STR))]


def test_one_side_of_a_spectrum_is_the_default() -> None:
    nodes = [helper.make_node("STFT", ["x", "step", "", "length"], ["s"]), helper.make_node("Neg", ["s"], ["y"])]
    stored = {"step": np.array(4), "length": np.array(8)}
    proto = model(nodes, {"x": (F32, [1, 16, 1])}, {"y": (F32, None)}, stored, opset=17)
    x = np.sin(np.arange(16, dtype=np.float32)).reshape(1, 16, 1)
    frames = np.stack([np.fft.rfft(x[0, i : i + 8, 0]) for i in (0, 4, 8)])
    assert str(read(proto).outputs[0].type) == "f32[1,3,5,2]"
    np.testing.assert_allclose(run(proto, x)[0], -np.stack([frames.real, frames.imag], -1)[None], rtol=1e-5, atol=1e-5)


def test_a_name_in_the_place_of_an_axis_of_one_is_no_fault() -> None:
    node = helper.make_node("StringNormalizer", ["x"], ["y"], stopwords=["a"])
    proto = model([node], {"x": (STR, ["n", "m"])}, {"y": (STR, None)}, opset=10)
    (y,) = run(proto, np.array([["a", "b"]], object))
    assert y.tolist() == [["b"]]


def test_what_onnx_refuses_is_a_fault() -> None:
    node = helper.make_node("StringConcat", ["a", "b"], ["y"], name="join")
    text = fault(model([node], {"a": (STR, [2]), "b": (STR, [3])}, {"y": (STR, None)}, opset=20))
    first, hint = text.splitlines()
    assert first == "model: node 'join' (StringConcat, opset 20): [ShapeInferenceError] Incompatible dimensions"
    assert "https://onnx.ai/onnx/operators/onnx__StringConcat.html says what it takes" in hint


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


def test_what_a_call_of_a_function_leaves_out_is_left_out_for_the_host() -> None:
    opsets = [helper.make_opsetid("", 20)]
    join = helper.make_node("StringConcat", ["a", "b"], ["c"], name="join")
    call = helper.make_node("F", ["x"], ["y"], domain="own", name="call")
    functions = [helper.make_function("own", "F", ["a", "b"], ["c"], [join], opsets)]
    text = fault(model([call], {"x": (STR, [2])}, {"y": (STR, None)}, opset=20, functions=functions, opsets={"own": 1}))
    assert "(StringConcat, opset 20): StringConcat needs input 1" in text
    spectrum = helper.make_node("DFT", ["a", "n"], ["c"], name="dft")
    functions = [helper.make_function("own", "F", ["a", "n"], ["c"], [spectrum], opsets)]
    signal = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    proto = model([call], {"x": (F32, [1, 4, 2])}, {"y": (F32, None)}, opset=20, functions=functions, opsets={"own": 1})
    (y,) = run(proto, signal)
    expected = np.fft.fft(signal[..., 0] + 1j * signal[..., 1], axis=1)
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], expected, rtol=1e-5, atol=1e-5)


def test_strings_that_are_no_text_are_no_fault_of_an_operator() -> None:
    proto = model(
        [helper.make_node("StringNormalizer", ["x"], ["y"], name="normal")],
        {},
        {"y": (STR, None)},
        {"x": np.array(["a", "b"], object)},
        opset=20,
    )
    del proto.graph.initializer[0].string_data[:]
    proto.graph.initializer[0].string_data.extend([b"\xff\xfe", b"b"])
    (node,) = import_model(proto)
    assert (node.name, str(node.output.type)) == ("normal", "str[?y.0]")


def test_versions_of_other_domains_may_be_any_number() -> None:
    nodes = [helper.make_node("StringConcat", ["a", "a"], ["y"])]
    proto = model(nodes, {"a": (STR, ["n"])}, {"y": (STR, None)}, opset=20, opsets={"own": 2**31})
    assert str(read(proto).outputs[0].type) == "str[n]"


def test_what_a_rule_of_onnx_trips_over_is_told_of_the_node() -> None:
    nodes = [helper.make_node("STFT", ["x", "step", "", "length"], ["y"], name="spectrum")]
    stored = {"x": np.zeros((1, 128, 1), np.float32), "step": np.zeros((2, 0, 0), np.int64)}
    message = "node 'spectrum' (STFT, opset 18): STFT cannot take inputs of these shapes: f32[1,128,1], i64[2,0,0], i64[]"
    assert message in fault(model(nodes, {"length": (I64, [])}, {"y": (F32, None)}, stored))
