"""The adapter that runs an ONNX node by onnx.reference: what it supports, its types, its values, its errors."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, SequenceType, TensorType, dtype_of, symbol
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.onnx_reference import adapter_attributes, adapter_supports

N, M = symbol("n"), symbol("m")
OPSETS = {"": 28, "ai.onnx.ml": 5, "ai.onnx.preview.training": 1}
STRINGS = TensorType(DType.STR, (N,))


def adapted(node, inputs, outputs, opsets=OPSETS, now=None):
    """A graph of the one adapter node; ``inputs`` and ``outputs`` are the types when the model was read."""
    graph = Graph("test")
    attrs = adapter_attributes(node, opsets, inputs, outputs)
    values = [None if t is None else graph.add_input(f"x{i}", t) for i, t in enumerate(now or inputs)]
    results = [graph.new_value(f"y{i}") for i in range(len(outputs))]
    graph.add_node("OnnxReference", values, results, domain="miniinfer", attrs=attrs)
    graph.set_outputs(results)
    annotate(graph)
    return graph


def text(*items):
    return np.array(items, object)


def check(graph, inputs, *expected):
    results = interpret(graph, inputs)
    for result, want, value in zip(results, expected, graph.outputs, strict=True):
        assert dtype_of(result) is value.type.dtype
        assert (result.shape, result.dtype) == (want.shape, want.dtype)
        if want.dtype == object:
            assert result.tolist() == want.tolist()
            assert all(type(item) is str for item in result.reshape(-1))
        else:
            np.testing.assert_allclose(result, want, rtol=1e-6, atol=1e-6)


def test_strings():
    concat = adapted(helper.make_node("StringConcat", ["a", "b"], ["c"]), [STRINGS, STRINGS], [STRINGS])
    check(concat, [text("ab", ""), text("c", "ü")], text("abc", "ü"))
    match = adapted(helper.make_node("RegexFullMatch", ["a"], ["b"], pattern="a+b"), [STRINGS], [TensorType(DType.BOOL, (N,))])
    check(match, [text("aab", "aabc")], np.array([True, False]))
    upper = helper.make_node("StringNormalizer", ["a"], ["b"], case_change_action="UPPER", stopwords=["x"])
    check(adapted(upper, [STRINGS], [TensorType(DType.STR, (M,))]), [text("one", "x", "two")], text("ONE", "TWO"))
    split = helper.make_node("StringSplit", ["a"], ["b", "c"], delimiter=" ")
    graph = adapted(split, [STRINGS], [TensorType(DType.STR, (N, M)), TensorType(DType.I64, (N,))])
    check(graph, [text("a b", "c")], np.array([["a", "b"], ["c", ""]], object), np.array([2, 1]))


def test_machine_learning():
    encoder = helper.make_node(
        "LabelEncoder", ["a"], ["b"], domain="ai.onnx.ml", keys_strings=["x", "y"], values_int64s=[5, 6], default_int64=0
    )
    check(adapted(encoder, [STRINGS], [TensorType(DType.I64, (N,))]), [text("y", "z", "x")], np.array([6, 0, 5]))
    scaler = helper.make_node("Scaler", ["a"], ["b"], domain="ai.onnx.ml", offset=[1.0, 2.0], scale=[2.0, 0.5])
    floats = TensorType(DType.F32, (N, 2))
    check(adapted(scaler, [floats], [floats]), [np.ones((1, 2), np.float32)], np.array([[0, -0.5]], np.float32))


def test_signals():
    x = np.random.default_rng(0).normal(size=(1, 8, 1)).astype(np.float32)
    spectrum = np.fft.fft(x[..., 0], axis=1)
    expected = np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)
    dft = helper.make_node("DFT", ["a", "", "c"], ["b"])
    axis = TensorType(DType.I64, ())
    graph = adapted(dft, [TensorType(DType.F32, (1, 8, 1)), None, axis], [TensorType(DType.F32, (1, 8, 2))])
    check(graph, [x, np.array(1)], expected)
    window = helper.make_node("HannWindow", ["a"], ["b"], periodic=0)
    graph = adapted(window, [axis], [TensorType(DType.F32, (N,))])
    check(graph, [np.array(5)], np.array([0, 0.5, 1, 0.5, 0], np.float32))


def test_an_older_operator_set_is_understood_as_it_was():
    # Until opset 20 the axis was an attribute.
    x = np.arange(8, dtype=np.float32).reshape(1, 8, 1)
    old = helper.make_node("DFT", ["a"], ["b"], axis=1)
    graph = adapted(old, [TensorType(DType.F32, (1, 8, 1))], [TensorType(DType.F32, (1, 8, 2))], {"": 17})
    spectrum = np.fft.fft(x[..., 0], axis=1)
    check(graph, [x], np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32))


def test_sequences_and_several_outputs():
    node = helper.make_node("SplitToSequence", ["a"], ["b"], axis=0)
    element = TensorType(DType.F32, (1, 2))
    graph = adapted(node, [TensorType(DType.F32, (N, 2))], [SequenceType(element)])
    assert graph.outputs[0].type == SequenceType(element)
    (parts,) = interpret(graph, [np.arange(4, dtype=np.float32).reshape(2, 2)])
    assert [p.tolist() for p in parts] == [[[0, 1]], [[2, 3]]]
    (parts,) = interpret(graph, [np.zeros((1, 2))])  # f64 in, f32 promised
    assert parts[0].dtype == np.float32


@pytest.mark.parametrize(
    ("was", "now", "recorded", "expected"),
    [
        ((N, 3), (7, 3), (N, 3), (7, 3)),
        ((N, 3), (2 * M, 3), (N, N + 1), (2 * M, 2 * M + 1)),
        ((N, 3), (N, 3), (N, 5), (N, 5)),
        ((N, 3), (7, 3), (M, 3), (None, 3)),
        ((N, N), (7, 8), (N, 3), (None, None)),
        ((4, 3), (8, 3), (4, 5), (None, None)),
        (None, (8, 3), (4, N), (4, None)),
    ],
)
def test_recorded_dimensions_follow_the_inputs(was, now, recorded, expected):
    node = helper.make_node("StringNormalizer", ["a"], ["b"])
    graph = adapted(node, [TensorType(DType.STR, was)], [TensorType(DType.STR, recorded)], now=[TensorType(DType.STR, now)])
    shape = graph.outputs[0].type.shape
    assert len(shape) == len(expected)
    for dim, want in zip(shape, expected, strict=True):
        assert str(dim).startswith("?") if want is None else dim == want


def test_an_output_of_unknown_type_stays_unknown():
    graph = adapted(helper.make_node("StringConcat", ["a", "b"], ["c"]), [STRINGS, STRINGS], [None])
    assert graph.outputs[0].type is None


def test_results_have_the_promised_element_type():
    node = helper.make_node("Normalizer", ["a"], ["b"], domain="ai.onnx.ml", norm="L2")
    floats = TensorType(DType.F32, (N, 2))
    # Given f64, onnx.reference answers in f64.
    check(adapted(node, [floats], [floats]), [np.array([[3, 4]], np.float64)], np.array([[0.6, 0.8]], np.float32))


def test_a_failure_inside_is_one_line_that_names_the_operation():
    node = helper.make_node("StringConcat", ["a", "b"], ["c"])
    graph = adapted(node, [STRINGS, STRINGS], [STRINGS])
    with pytest.raises(ModelError, match=r"node 'y0': StringConcat failed in onnx.reference: [^\n]+\n  hint: [^\n]+$"):
        interpret(graph, [text("a", "b"), text("a", "b", "c")])


def test_a_node_that_onnx_does_not_even_begin_to_run_is_told_so():
    node = helper.make_node("LabelEncoder", ["a"], ["b"], domain="ai.onnx.ml", keys_int64s=[1], values_int64s=[2])
    graph = adapted(node, [TensorType(DType.I64, (N,))], [TensorType(DType.I64, (N,))])
    node.attribute[0].name = "keys_odd"
    graph.set_attribute(graph.nodes[0], "node", np.frombuffer(node.SerializeToString(), np.uint8))
    with pytest.raises(ModelError, match=r"node 'y0': .* failed in onnx.reference: "):
        interpret(graph, [np.array([1])])


@pytest.mark.parametrize("error", [OSError("no image"), AssertionError("no image"), StopIteration("no image")])
def test_whatever_a_package_behind_it_raises_is_told_so(monkeypatch, error):
    def fail(*_, **__):
        raise error

    node = helper.make_node("ImageDecoder", ["a"], ["b"])
    graph = adapted(node, [TensorType(DType.U8, (N,))], [TensorType(DType.U8, (M, N, 3))])
    monkeypatch.setattr("miniinfer_cli.ops.guarded_references.ImageDecoder._run", fail)
    with pytest.raises(ModelError, match=r"ImageDecoder failed in onnx\.reference: no image"):
        interpret(graph, [np.zeros(4, np.uint8)])
    error = MemoryError()
    with pytest.raises(MemoryError):
        interpret(graph, [np.zeros(4, np.uint8)])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    node = helper.make_node("ImageDecoder", ["a"], ["b"])
    graph = adapted(node, [TensorType(DType.U8, (N,))], [TensorType(DType.U8, (M, N, 3))])
    with pytest.raises(ModelError, match=r"ImageDecoder needs a package that is not installed: .*PIL.*\n.*miniinfer\[host\]"):
        interpret(graph, [np.zeros(4, np.uint8)])


@pytest.mark.parametrize(
    ("domain", "op", "opset", "answer"),
    [
        ("", "StringNormalizer", 28, True),
        ("", "ImageDecoder", 20, True),
        ("", "ImageDecoder", 19, False),
        ("", "NoSuchOperator", 28, False),
        ("ai.onnx.ml", "TreeEnsembleRegressor", 3, True),
        ("ai.onnx.ml", "TreeEnsemble", 5, True),
        ("ai.onnx.ml", "ZipMap", 1, False),
        ("ai.onnx.preview.training", "Adam", 1, True),
        ("ai.onnx.preview.training", "Gradient", 1, False),
        ("com.microsoft", "FusedMatMul", 1, False),
    ],
)
def test_what_is_supported(domain, op, opset, answer):
    assert adapter_supports(domain, op, opset) is answer


def test_the_same_node_gives_the_same_bytes():
    nodes = [helper.make_node("StringConcat", [a, "b"], ["c"], name=a, doc_string=a) for a in ("a", "z")]
    attrs = [adapter_attributes(node, OPSETS, [STRINGS, STRINGS], [STRINGS]) for node in nodes]
    nodes[0].name = nodes[1].name
    again = adapter_attributes(nodes[0], OPSETS, [STRINGS, STRINGS], [STRINGS])
    np.testing.assert_array_equal(again["node"], attrs[1]["node"])
    assert onnx.NodeProto.FromString(again["node"].tobytes()).input == ["i0", "i1"]


def test_defining_the_operations_does_not_load_onnx():
    code = "import sys, miniinfer_cli.ops; print([m for m in sys.modules if m.split('.')[0] in ('onnx', 'ml_dtypes')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
