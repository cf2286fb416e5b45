"""Operators give what ONNX Runtime gives, where onnx.reference alone would fail or compute in integers; most of ai.onnx.ml."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import miniinfer_cli

X = np.array([[-1, -0.5, 0], [0.5, 1, 1.5], [2, -1, 0.25]], np.float32)
WORDS = np.array(["b", "z", "a"], object)
KINDS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE, np.dtype(np.int64): TensorProto.INT64}
NODES = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [0, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
}
TARGETS = {"target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0], "n_targets": 1}
CLASSES = {"class_treeids": [0, 0], "class_nodeids": [1, 2], "class_ids": [0, 1], "classlabels_int64s": [0, 1]}
SVM = {"coefficients": [1.0, -1.0], "kernel_params": [0.5, 0.0, 3.0], "kernel_type": "RBF", "rho": [0.25]}
SVM["support_vectors"] = [0.0, 1.0, 2.0, 1.0, 1.0, 1.0]


def _model(op: str, inputs: list[Any], version: int, n_outputs: int, **attrs: Any) -> onnx.ModelProto:
    formal = [
        helper.make_tensor_value_info(f"x{i}", KINDS.get(x.dtype, TensorProto.STRING), ["n", *x.shape[1:]])
        for i, x in enumerate(inputs)
    ]
    outputs = [onnx.ValueInfoProto(name=f"y{i}") for i in range(n_outputs)]
    node = helper.make_node(op, [v.name for v in formal], [v.name for v in outputs], domain="ai.onnx.ml", **attrs)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(helper.make_graph([node], "g", formal, outputs), opset_imports=imports, ir_version=8)


def expect_same(
    op: str, *inputs: Any, version: int = 3, n_outputs: int = 1, empty: bool = True, rtol: float = 1e-6, **attrs: Any
) -> None:
    proto = _model(op, list(inputs), version, n_outputs, **attrs)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    with miniinfer_cli.load(miniinfer_cli.build(proto), device="cpu") as engine:
        for rows in (slice(None), slice(0)) if empty else (slice(None),):
            feeds = {f"x{i}": x[rows] for i, x in enumerate(inputs)}
            for got, want in zip(engine.run(feeds).values(), session.run(None, feeds), strict=True):
                assert (got.shape, got.dtype) == (want.shape, want.dtype)
                if want.dtype == object:
                    assert got.tolist() == want.tolist()
                else:
                    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("x", [X, X.astype(np.float64), (4 * X).astype(np.int64), X[0]], ids=["f32", "f64", "i64", "vector"])
def test_scaler_and_normalizer(x: Any) -> None:
    expect_same("Scaler", x, offset=[0.75], scale=[0.5])
    for norm in ("L1", "L2"):
        expect_same("Normalizer", x, norm=norm)
    expect_same("Normalizer", np.abs(x), norm="MAX")  # of the largest magnitude, where ONNX Runtime takes the largest


def test_regressors_and_classifiers() -> None:
    expect_same("LinearRegressor", X, coefficients=[0.5, 2.0, 3.0, 4.0, 5.0, 6.25], intercepts=[0.5, 2.0], targets=2)
    expect_same("LinearRegressor", X, coefficients=[0.5, 2.0, 3.0])
    expect_same("SVMRegressor", X, n_supports=2, **SVM)
    expect_same("SVMClassifier", X, n_outputs=2, classlabels_ints=[0, 1], vectors_per_class=[1, 1], **SVM)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("LinearRegressor", {"coefficients": [0.3, 2.0, 3.0]}),
        ("SVMRegressor", {"n_supports": 2, **SVM}),
        ("TreeEnsembleRegressor", {**NODES, "nodes_values": [0.25, 0.0, 0.0], **TARGETS, "target_weights": [0.5, 2.25]}),
    ],
)
def test_integers_are_computed_in_floats(op: str, attrs: dict[str, Any]) -> None:
    whole, results = (4 * X).astype(np.int64), []
    for x in (whole, whole.astype(np.float32)):
        with miniinfer_cli.load(miniinfer_cli.build(_model(op, [x], 1, 1, **attrs)), device="cpu") as engine:
            results += engine.run({"x0": x}).values()
    np.testing.assert_array_equal(*results)
    assert np.any(results[0] != np.trunc(results[0]))


def test_trees() -> None:
    trees = {**NODES, "nodes_values": [0.25, 0.0, 0.0]}
    expect_same("TreeEnsembleRegressor", X, **trees, **TARGETS, target_weights=[0.5, 2.25])


def test_no_rows_are_classified() -> None:
    trees = {**NODES, "nodes_values": [0.25, 0.0, 0.0], **CLASSES, "class_weights": [0.25, 0.75], "post_transform": "LOGISTIC"}
    with miniinfer_cli.load(miniinfer_cli.build(_model("TreeEnsembleClassifier", [X], 3, 2, **trees)), device="cpu") as engine:
        labels, scores = engine.run({"x0": X[:0]}).values()
        assert (labels.shape, scores.shape) == ((0,), (0, 2))


@pytest.mark.parametrize(("kind", "dtype"), [(TensorProto.FLOAT, np.float32), (TensorProto.DOUBLE, np.float64)])
def test_trees_with_tensors(kind: int, dtype: Any) -> None:
    def tensor(*items: float) -> onnx.TensorProto:
        return helper.make_tensor("t", kind, [len(items)], items)

    x = np.array([[0.1], [0.1 + 1e-12], [-5]], dtype)  # the second is told from the first in f64 alone
    trees = {**NODES, "nodes_values_as_tensor": tensor(0.1, 0, 0)}
    weights = {"target_weights_as_tensor": tensor(0.5, 2.25), "base_values_as_tensor": tensor(0.125)}
    expect_same("TreeEnsembleRegressor", x, **trees, **TARGETS, **weights)
    proto = _model("TreeEnsembleClassifier", [x], 3, 2, **trees, **CLASSES, class_weights_as_tensor=tensor(1, 1))
    with miniinfer_cli.load(miniinfer_cli.build(proto), device="cpu") as engine:
        labels, scores = engine.run({"x0": x}).values()
    higher = int(kind == TensorProto.DOUBLE)
    assert labels.tolist() == [0, higher, 0]
    assert scores.tolist() == [[1, 0], [1 - higher, higher], [1, 0]]


def test_label_encoder_of_version_1() -> None:
    expect_same("LabelEncoder", WORDS, version=1, classes_strings=["a", "b"])
    expect_same("LabelEncoder", WORDS, version=1, classes_strings=["a", "b"], default_int64=7)
    expect_same("LabelEncoder", np.array([1, 0, 2, -1]), version=1, classes_strings=["a", "b"])
    expect_same("LabelEncoder", np.array([[1, 5]]), version=1, classes_strings=["a", "b"], default_string="?")


def test_features_of_more_axes_are_flattened() -> None:
    images = np.stack([X, 10 + X], axis=-1)
    expect_same("FeatureVectorizer", images, inputdimensions=[6])
    expect_same("FeatureVectorizer", images, inputdimensions=[4])
    # ONNX Runtime ends the process for two inputs of no rows.
    expect_same("FeatureVectorizer", images, X, inputdimensions=[6, 3], empty=False)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 1, 1)])
def test_one_hot_of_any_rank(shape: tuple[int, ...]) -> None:
    expect_same("OneHotEncoder", np.array([4, 7, 3]).reshape(shape), cats_int64s=[3, 4, 5], zeros=1)
    expect_same("OneHotEncoder", WORDS.reshape(shape), cats_strings=["a", "b"], zeros=1)


def test_stft_of_a_signal_of_two_axes() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[B,T] x, float[8] w) => (float[B,F,K,2] y) <int64 step = {4}> { y = STFT (x, step, w) }"""
    proto = onnx.parser.parse_model(text)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 17), np.float32), "w": np.hanning(8).astype(np.float32)}
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    with miniinfer_cli.load(miniinfer_cli.build(proto), device="cpu") as engine:
        np.testing.assert_allclose(engine.run(feeds)["y"], session.run(None, feeds)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("limit", ["", "maxsplit=0", "maxsplit=1", "maxsplit=5", 'delimiter="", maxsplit=1'])
def test_no_white_space_is_left_where_that_separates(limit: str) -> None:
    text = f"""<ir_version: 9, opset_import: ["": 20]>
    g (string[N] x) => (string[N,M] y, int64[N] n) {{ y, n = StringSplit <{limit}> (x) }}"""
    proto = onnx.parser.parse_model(text.replace("<>", ""))
    words = np.array(["  a   b  c  ", "", "   ", "a ", "b c d "], object)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    with miniinfer_cli.load(miniinfer_cli.build(proto), device="cpu") as engine:
        for x in (words, words[:0]):
            got, want = engine.run({"x": x}), session.run(None, {"x": x})
            assert [got["y"].tolist(), got["n"].tolist()] == [w.tolist() for w in want]
