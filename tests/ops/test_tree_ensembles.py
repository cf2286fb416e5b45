"""Random forests beside ONNX Runtime's: unbalanced trees, every rule, missing values, several targets and classes."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import miniinfer_cli
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ops import tree_ensembles
from miniinfer_cli.ops.class_scores import transformed
from miniinfer_cli.ops.tree_ensembles import Forest, Leaves, Nodes
from tests.onnxruntime_release import OLDER

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
FEATURES = 6


def trees(rng: Any, count: int, modes: list[str], missing: bool, least: int = 0) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """The attributes of the nodes, whose numbers in a tree are in no order, and the leaves as pairs of a tree and a node."""
    names = ("treeids", "nodeids", "featureids", "modes", "values", "true", "false", "missing")
    found: dict[str, list[Any]] = {name: [] for name in names}
    leaves = []
    for tree in range(count):
        rows: list[list[Any]] = []

        def grow(depth: int, rows: list[list[Any]] = rows) -> int:
            place = len(rows)
            rows.append([])
            if depth and (rng.random() < 0.8 or place == 0):
                value = float(np.float32(rng.integers(-4, 5) / 2))
                rows[place] = [
                    int(rng.integers(FEATURES)),
                    modes[rng.integers(len(modes))],
                    value,
                    grow(depth - 1),
                    grow(depth - 1),
                ]
            return place

        grow(int(rng.integers(least, 6)))
        numbers = rng.permutation(len(rows)) + 3
        for place, row in enumerate(rows):
            found["treeids"].append(tree)
            found["nodeids"].append(int(numbers[place]))
            feature, mode, value, true, false = row or (0, "LEAF", 0.0, None, None)
            for name, item in (("featureids", feature), ("modes", mode), ("values", value)):
                found[name].append(item)
            found["true"].append(0 if true is None else int(numbers[true]))
            found["false"].append(0 if false is None else int(numbers[false]))
            found["missing"].append(int(rng.integers(2)) if missing and row else 0)
            if not row:
                leaves.append((tree, int(numbers[place])))
    attrs = {f"nodes_{name}": found[name] for name in ("treeids", "nodeids", "featureids", "modes", "values")}
    attrs |= {"nodes_truenodeids": found["true"], "nodes_falsenodeids": found["false"]}
    return attrs | {"nodes_missing_value_tracks_true": found["missing"]}, leaves


def of_leaves(rng: Any, leaves: list[tuple[int, int]], kind: str, targets: int, each: int) -> dict[str, Any]:
    """What leaves add to targets: ``each`` of them to so many."""
    rows = [(t, n, int(i), float(np.float32(rng.normal()))) for t, n in leaves for i in rng.permutation(targets)[:each]]
    names = ("treeids", "nodeids", "ids", "weights")
    return {f"{kind}_{name}": list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def model_of(op: str, n_outputs: int, dtype: Any, features: int = FEATURES, **attrs: Any) -> onnx.ModelProto:
    node = helper.make_node(op, ["x"], [f"y{i}" for i in range(n_outputs)], domain="ai.onnx.ml", **attrs)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", kind, ["n", features])], outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 5 if op == "TreeEnsemble" else 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def check(op: str, x: Any, n_outputs: int, **attrs: Any) -> None:
    model = model_of(op, n_outputs, x.dtype, x.shape[1], **attrs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with miniinfer_cli.load(miniinfer_cli.build(model), device="cpu") as engine:
        for rows in (x, x[:1], x[:0]):
            for got, want in zip(engine.run({"x": rows}).values(), session.run(None, {"x": rows}), strict=True):
                assert (got.shape, got.dtype) == (want.shape, want.dtype)
                if want.dtype.kind in "iO":
                    assert got.tolist() == want.tolist()
                else:
                    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def rows_of(rng: Any, count: int, missing: bool, dtype: Any = np.float32) -> Any:
    x = rng.integers(-5, 6, (count, FEATURES)).astype(dtype) / 2  # many lie upon a threshold
    if missing:
        x[rng.random(x.shape) < 0.2] = np.nan
    return x


@pytest.mark.parametrize(
    ("modes", "missing", "targets", "each"),
    [(MODES[:1], False, 1, 1), (MODES[:4], True, 3, 1), (MODES, True, 3, 2), (MODES, False, 1, 1)],
)
def test_regressors(modes: list[str], missing: bool, targets: int, each: int) -> None:
    rng = np.random.default_rng(targets * each)
    attrs, leaves = trees(rng, 9, modes, missing)
    attrs |= of_leaves(rng, leaves, "target", targets, each) | {"n_targets": targets}
    if targets == 1:  # ONNX Runtime adds none to a target that no leaf of a row is of
        attrs["base_values"] = [0.75]
    check("TreeEnsembleRegressor", rows_of(rng, 600, missing), 1, **attrs)


def test_averages() -> None:
    rng = np.random.default_rng(5)
    attrs, leaves = trees(rng, 9, MODES, False)
    attrs |= of_leaves(rng, leaves, "target", 2, 2) | {"n_targets": 2, "aggregate_function": "AVERAGE"}
    check("TreeEnsembleRegressor", rows_of(rng, 20, False), 1, **attrs)


@pytest.mark.parametrize(
    ("transform", "labels"),
    [
        ("NONE", {"classlabels_int64s": [3, 1, 7]}),
        ("SOFTMAX", {"classlabels_strings": ["a", "b", "c"]}),
        ("LOGISTIC", {"classlabels_int64s": [3, 1, 7]}),
        ("SOFTMAX_ZERO", {"classlabels_int64s": [3, 1, 7]}),
    ],
)
def test_classifiers(transform: str, labels: dict[str, Any]) -> None:
    rng = np.random.default_rng(len(transform))
    attrs, leaves = trees(rng, 7, MODES[:4], False)
    attrs |= of_leaves(rng, leaves, "class", 3, 2) | labels
    check("TreeEnsembleClassifier", rows_of(rng, 40, False), 2, **attrs, post_transform=transform)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_forest_of_one_number_for_two_classes(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    attrs, leaves = trees(rng, 7, MODES[:1], False)
    attrs |= of_leaves(rng, leaves, "class", 1, 1) | {"classlabels_int64s": [0, 1]}
    check("TreeEnsembleClassifier", rows_of(rng, 40, False, dtype), 2, **attrs, post_transform="LOGISTIC")


def of_version_5(attrs: dict[str, Any], leaves: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """The same trees with inner nodes and leaves apart, as version 5 of ai.onnx.ml has them."""
    pairs = list(zip(attrs["nodes_treeids"], attrs["nodes_nodeids"], strict=True))
    of_leaf = {p: i for i, p in enumerate(zip(leaves["target_treeids"], leaves["target_nodeids"], strict=True))}
    inner = [i for i, mode in enumerate(attrs["nodes_modes"]) if mode != "LEAF"]
    place = {pairs[i]: at for at, i in enumerate(inner)}
    found: dict[str, Any] = {"nodes_featureids": [attrs["nodes_featureids"][i] for i in inner]}
    for side in ("true", "false"):
        children = [(attrs["nodes_treeids"][i], attrs[f"nodes_{side}nodeids"][i]) for i in inner]
        found[f"nodes_{side}nodeids"] = [place.get(c, of_leaf.get(c, 0)) for c in children]
        found[f"nodes_{side}leafs"] = [int(c in of_leaf) for c in children]
    roots = [pairs[attrs["nodes_treeids"].index(tree)] for tree in sorted(set(attrs["nodes_treeids"]))]
    modes = np.array([MODES.index(attrs["nodes_modes"][i]) for i in inner], np.uint8)
    tensors = {
        "nodes_modes": modes,
        "nodes_splits": np.array([attrs["nodes_values"][i] for i in inner], dtype),
        "leaf_weights": np.array(leaves["target_weights"], dtype),
    }
    found |= {name: numpy_helper.from_array(a, name) for name, a in tensors.items()}
    missing = [attrs["nodes_missing_value_tracks_true"][i] for i in inner]
    return found | {
        "nodes_missing_value_tracks_true": missing,
        "leaf_targetids": leaves["target_ids"],
        "tree_roots": [place[r] for r in roots],
    }


@pytest.mark.skipif(OLDER, reason="older releases of ONNX Runtime have no such trees")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("missing", [False, True])
def test_trees_of_version_5(dtype: Any, missing: bool) -> None:
    rng = np.random.default_rng(int(missing))
    attrs, leaves = trees(rng, 7, MODES, missing, least=1)
    weights = of_leaves(rng, leaves, "target", 2, 1)
    newer = of_version_5(attrs, weights, dtype)
    check("TreeEnsemble", rows_of(rng, 30, missing, dtype), 1, **newer, n_targets=2)
    if not missing:
        check("TreeEnsemble", rows_of(rng, 30, missing, dtype), 1, **newer, n_targets=2, aggregate_function=0)


def nodes(true: list[int], false: list[int]) -> Nodes:
    count = len(true)
    rule = np.array([0 if t >= 0 else -1 for t in true])
    zero = np.zeros(count, np.int64)
    return Nodes(zero[:1], rule, zero, np.zeros(count, np.float32), np.array(true), np.array(false), zero)


def test_few_rows_are_compared_at_once_as_others_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees of up to 64 leaves: NaN goes where it is told, and every rule but equality."""
    rng = np.random.default_rng(5)
    for depth in (1, 3, 6):
        inner, total = 2**depth - 1, 2 ** (depth + 1) - 1
        one = np.arange(total)
        true, false = (np.where(one < inner, 2 * one + side, -1) for side in (1, 2))
        offsets = np.repeat([0, total, 2 * total], total)
        rules = np.where(one < inner, rng.integers(0, 4, (3, total)), -1).reshape(-1)
        nodes_of_three = Nodes(
            np.array([0, total, 2 * total]), rules, rng.integers(0, 4, 3 * total), rng.normal(size=3 * total).astype(np.float32),
            np.where(rules < 0, -1, np.tile(true, 3) + offsets), np.where(rules < 0, -1, np.tile(false, 3) + offsets),
            rng.integers(0, 2, 3 * total),
        )  # fmt: skip
        forest = Forest.of(nodes_of_three)
        assert forest is not None
        places = np.flatnonzero(rules < 0)
        leaves = Leaves(forest, places, rng.integers(0, 2, len(places)), rng.normal(size=len(places)), 2)
        x = rng.normal(size=(11, 4)).astype(np.float32)
        x[3, 1] = x[7, 0] = np.nan
        with monkeypatch.context() as none:
            none.setattr(tree_ensembles, "_MOST_COMPARED", 0)
            walked = forest.sums(x, leaves)
        assert forest._bits is None
        np.testing.assert_allclose(forest.sums(x, leaves), walked, rtol=1e-12)
        assert forest._bits is not None, "and so they were"


def test_trees_of_too_many_leaves_are_walked() -> None:
    rng = np.random.default_rng(0)
    rules = np.array([0, -1] * 65 + [-1])  # a comb of 66 leaves
    count = len(rules)
    inner = rules >= 0
    at = np.arange(count)
    chain = Nodes(
        np.array([0]), rules, np.zeros(count, np.int64), rng.normal(size=count).astype(np.float32), np.where(inner, at + 1, -1),
        np.where(inner, at + 2, -1), np.zeros(count, np.int64),
    )  # fmt: skip
    forest = Forest.of(chain)
    assert forest is not None
    leaves = Leaves(forest, np.flatnonzero(~inner), np.zeros(66, np.int64), np.arange(66.0), 1)
    x = rng.normal(size=(5, 1)).astype(np.float32)
    expected = [next((i for i in range(65) if row[0] <= chain.value[2 * i]), 65) for row in x]
    np.testing.assert_array_equal(forest.sums(x, leaves)[:, 0], expected)


def test_what_is_no_forest() -> None:
    assert Forest.of(nodes([1, -1, -1], [2, -1, -1])) is not None
    assert Forest.of(nodes([1, 0, -1], [2, 2, -1])) is None  # back to where it came from
    assert Forest.of(nodes([1, 3, 3, -1], [2, 3, 3, -1])) is None  # a node of several parents


def test_too_few_features() -> None:
    rng = np.random.default_rng(0)
    attrs, leaves = trees(rng, 9, MODES[:1], False)
    attrs |= of_leaves(rng, leaves, "target", 1, 1) | {"n_targets": 1}
    with pytest.raises(ModelError, match="the trees read 6 features, the input has 2"):
        check("TreeEnsembleRegressor", rows_of(rng, 3, False)[:, :2].copy(), 1, **attrs)


def test_scores() -> None:
    scores = np.array([[0.0, 2.0, -1.0], [0.0, 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(transformed(scores, "PROBIT")[0, :1], [-np.inf])
    with pytest.raises(ModelError, match="post_transform is 'NOTHING'"):
        transformed(scores, "NOTHING")
