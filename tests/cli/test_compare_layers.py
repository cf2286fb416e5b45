"""compare --per-layer: the first node of the ONNX model whose result differs, also through fused nodes and other layouts."""

import json
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from miniinfer_cli.comparison.outputs import Closeness
from miniinfer_cli.comparison.per_layer import REORDERED, Shared, compare_layers, shared_values
from miniinfer_cli.devices import opening
from miniinfer_cli.ir import DType, Graph, TensorType
from tests.cli.test_results import check
from tests.emulation.engine import load_emulated

CPU = ("--device", "cpu", "--no-times", "--per-layer")


def network(path, scale=1.0, kernel=None):
    """x -> Conv c1 -> Relu r1 -> Conv c2 -> Relu r2 -> Flatten f -> MatMul m; c2's weights are ``scale`` times as large."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((8, 3, 3, 3)),
        "w2": scale * rng.standard_normal((8, 8, 3, 3)),
        "w3": rng.standard_normal((8 * 4 * 4, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="c1"),
        helper.make_node("Relu", ["a"], ["b"], name="r1"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="c2"),
        helper.make_node("Relu", ["c"], ["d"], name="r2"),
        helper.make_node("Flatten", ["d"], ["e"], name="f"),
        helper.make_node("MatMul", ["e", "w3"], ["y"], name="m"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def files(tmp_path, miniinfer):
    """The model, one whose second convolution differs, and their plans."""
    found = [network(tmp_path / "a.onnx"), network(tmp_path / "b.onnx", 1.01)]
    for model in found:
        assert miniinfer("build", model, "-q").code == 0
    return [*found, *(f.with_suffix(".plan") for f in found)]


def test_the_first_node_that_diverges(miniinfer, files, tmp_path):
    a, b, plan_a, plan_b = files
    outcome = miniinfer("compare", a, b, *CPU, "--batch", 2, "--json", tmp_path / "c.json")
    assert outcome.code == 1
    assert "First to diverge: 'c', which node 'c2' makes" in outcome.out
    assert "Values: 6 that both have, of 6 in A and 6 in B" in outcome.out
    document = check(json.loads((tmp_path / "c.json").read_text()))
    layers = document["per_layer"]
    assert (layers["first"]["name"], layers["first"]["nodes"], layers["shared_values"]) == ("c", ["c2"], 6)
    assert [v["ok"] for v in layers["values"]] == [True, True, False, False, False, False]
    for pair in ((plan_a, b), (b, plan_a), (plan_a, plan_b)):
        outcome = miniinfer("compare", *pair, *CPU)
        assert outcome.code == 1
        assert "First to diverge: 'd', which one of the nodes 'c2', 'r2' makes" in outcome.out, outcome.out


def test_what_agrees_diverges_nowhere_whatever_its_layout(miniinfer, files):
    a, _, plan_a, _ = files
    for pair in ((a, plan_a), (plan_a, a), (plan_a, plan_a)):
        outcome = miniinfer("compare", *pair, *CPU)
        assert outcome.code == 0, outcome.err
        assert "First to diverge: none of them" in outcome.out, outcome.out


def test_on_a_gpu(miniinfer, files):
    on_cpu, emulated = opening.load_model, load_emulated()

    def load_either(graph, device, *others):
        return (on_cpu if device == "cpu" else emulated)(graph, device, *others)

    from miniinfer_cli.cli import compare_layers as command

    with mock.patch.object(opening, "load_model", load_either):
        assert command.load is opening.load
        outcome = miniinfer("compare", files[0], files[3], *CPU, "--device-b", "cuda:0")
    assert outcome.code == 1
    assert "First to diverge: 'd', which one of the nodes 'c2', 'r2' makes" in outcome.out, outcome.out


def test_the_case_that_differs_is_looked_into(miniinfer, files):
    flags = ("--shapes", "x:1x3x8x8", "--shapes", "x:2x3x8x8", "--json", "-")
    document = json.loads(miniinfer("compare", files[0], files[2], *CPU, *flags).out)
    assert document["per_layer"]["label"] == "x 1x3x8x8"


def test_what_has_no_layers(miniinfer, files, tmp_path):
    np.savez(tmp_path / "y.npz", y=np.zeros((1, 5), np.float32))
    outcome = miniinfer("compare", files[0], tmp_path / "y.npz", *CPU)
    assert (outcome.code, "--per-layer: what was computed before has no layers" in outcome.err) == (2, True)
    outcome = miniinfer("compare", files[0], files[1], "--device", "cpu", "--no-outputs", "--per-layer")
    assert (outcome.code, "--no-outputs and --per-layer exclude each other" in outcome.err) == (2, True)


def graph_of(*names, shape=(2, 3, 4, 5)):
    graph = Graph()
    value = graph.add_input("x", TensorType(DType.F32, shape))
    for name in names:
        value = graph.add("Relu", value, out=name, type=value.type)
    graph.set_outputs([value])
    return graph


def test_values_are_shared_by_name():
    a, b = graph_of("p", "q", "r"), graph_of("p_last", "r")
    found = shared_values(a, b)
    assert [(s.name, s.a_last, s.b_last) for s in found] == [("p", False, True), ("r", False, False)]
    assert [(s.name, s.a_last, s.b_last) for s in shared_values(b, a)] == [("p", True, False), ("r", False, False)]
    assert [s.name for s in shared_values(a, graph_of("r", shape=(2, 3)))] == []
    longer = graph_of("o", "o_last", "p_last", "r")
    assert [(s.name, s.a_last, s.b_last) for s in shared_values(longer, graph_of("o", "p"))] == [
        ("o", False, False),
        ("p", True, False),
    ]
    (only,) = shared_values(graph_of("p_last"), graph_of("p_last"))
    assert (only.a_last, only.b_last) == (False, False)


def test_layouts_and_orders():
    (a,), (b,) = ([v for n in g for v in n.outputs] for g in (graph_of("p"), graph_of("p_last")))
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    shared = Shared("p", a, b, b_last=True)

    def compared(y, closeness=None):
        (layer,) = compare_layers([shared], {"p": x}, {"p_last": y}, {}, closeness)
        return layer.difference.error

    assert compared(np.moveaxis(x, 1, -1)).ok
    moved = compared(np.moveaxis(x[::-1], 1, -1))
    assert (moved.ok, moved.says_nothing) == (True, REORDERED)
    assert not compared(np.moveaxis(x * 1.5, 1, -1)).ok
    assert not compared(np.moveaxis(x[:, :2], 1, -1)).ok
    assert compared(np.moveaxis(x * 1.5, 1, -1), Closeness(0.5, 0.01)).ok
