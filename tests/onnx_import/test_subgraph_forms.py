"""Odd forms of sub-graphs: constants among the inputs, counters of rank 1, sizes that only a declaration tells."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from miniinfer_cli.onnx_import import import_with_info
from tests.everywhere import check_everywhere, fails_everywhere, parsed
from tests.onnx_import.models import BOOL, F32, I64, fault, model, run, subgraph

X = np.array([1, -2], np.float32)
TRUE, FALSE = np.array(True), np.array(False)
W = {"w": np.float32([2])}


# -- constants among the inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ir_version", [3, 10])
def test_branches_whose_constants_are_inputs_too(ir_version: int) -> None:
    then = subgraph([helper.make_node("Mul", ["x", "w"], ["p"])], {"w": (F32, [1])}, {"p": (F32, [2])}, W)
    other = subgraph([helper.make_node("Add", ["x", "w"], ["q"])], {"w": (F32, [1])}, {"q": (F32, [2])}, W)
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    proto = model([node], {"c": (BOOL, []), "x": (F32, [2])}, {"y": (F32, [2])}, opset=12)
    proto.ir_version = ir_version
    check_everywhere(proto, ({"c": TRUE, "x": X}, 2 * X), ({"c": FALSE, "x": X}, X + 2))


def _scaling_body(stored: dict[str, Any]) -> onnx.GraphProto:
    nodes = [helper.make_node("Identity", ["ci"], ["co"]), helper.make_node("Mul", ["v", "w"], ["z"])]
    inputs = {"i": (I64, []), "ci": (BOOL, []), "v": (F32, [2]), "w": (F32, [1])}
    return subgraph(nodes, inputs, {"co": (BOOL, []), "z": (F32, [2])}, stored)


def test_a_loop_whose_body_lists_a_constant_among_its_inputs() -> None:
    node = helper.make_node("Loop", ["m", "", "x"], ["y"], body=_scaling_body(W))
    proto = model([node], {"x": (F32, [2]), "m": (I64, [])}, {"y": (F32, [2])})
    check_everywhere(proto, ({"x": X, "m": np.array(3)}, 8 * X))


def test_a_default_of_what_a_loop_carries_gives_way_to_what_it_is_given() -> None:
    body = _scaling_body({"v": np.float32([9, 9])})
    body.node.add().CopyFrom(helper.make_node("Identity", ["w"], ["w2"]))
    body.output.add().CopyFrom(helper.make_tensor_value_info("w2", F32, [1]))
    node = helper.make_node("Loop", ["m", "", "x", "by"], ["y", "w"], body=body)
    proto = model([node], {"x": (F32, [2]), "m": (I64, []), "by": (F32, [1])}, {"y": (F32, [2])})
    check_everywhere(proto, ({"x": X, "m": np.array(2), "by": np.float32([3])}, 9 * X))


def test_a_scan_whose_body_lists_a_constant_among_its_inputs() -> None:
    nodes = [helper.make_node("Mul", ["e", "w"], ["z"])]
    body = subgraph(nodes, {"e": (F32, []), "w": (F32, [1])}, {"z": (F32, [1])}, W)
    proto = model([helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)], {"x": (F32, [2])}, {"y": (F32, [2, 1])})
    check_everywhere(proto, ({"x": X}, 2 * X[:, None]))


def test_a_branch_with_inputs_is_refused_in_words() -> None:
    then = subgraph([helper.make_node("Neg", ["x"], ["p"])], {"x": (F32, [2])}, {"p": (F32, [2])})
    other = subgraph([helper.make_node("Abs", ["x"], ["q"])], {}, {"q": (F32, [2])})
    node = helper.make_node("If", ["c"], ["y"], name="if", then_branch=then, else_branch=other)
    text = fault(model([node], {"c": (BOOL, []), "x": (F32, [2])}, {"y": (F32, [2])}))
    assert text == (
        "model: node 'if' (If, opset 18): then_branch of an If takes no inputs, it has 1: 'x'\n"
        "  hint: a branch reads values of the graph around it by their names"
    )


@pytest.mark.parametrize("name", ["", "r"])
def test_an_output_of_a_sub_graph_must_have_a_name(name: str) -> None:
    then = subgraph([helper.make_node("Neg", ["x"], ["r"])], {}, {"r": (F32, None)})
    then.output[0].name = name
    other = subgraph([helper.make_node("Abs", ["x"], ["r"])], {}, {"r": (F32, None)})
    node = helper.make_node("If", ["c"], ["y"], name="if", then_branch=then, else_branch=other)
    proto = model([node], {"c": (BOOL, []), "x": (F32, [2])}, {"y": (F32, None)})
    if name:
        check_everywhere(proto, ({"c": TRUE, "x": X}, -X))
    else:
        assert fault(proto) == "model: then_branch of node 'if' (If, opset 18): output 0 has no name"


def test_an_output_of_the_graph_must_have_a_name() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (F32, [2])}, {"y": (F32, None)})
    proto.graph.output[0].name = ""
    assert fault(proto) == "model: the graph: output 0 has no name"


# -- one item --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[], [1], [1, 1], ["n", 1]])
def test_a_condition_is_any_single_item(shape: list[Any]) -> None:
    then = subgraph([helper.make_node("Neg", ["x"], ["p"])], {}, {"p": (F32, [2])})
    other = subgraph([helper.make_node("Abs", ["x"], ["q"])], {}, {"q": (F32, [2])})
    node = helper.make_node("If", ["c"], ["y"], name="if", then_branch=then, else_branch=other)
    proto = model([node], {"c": (BOOL, shape), "x": (F32, [2])}, {"y": (F32, [2])})
    size = [1 if isinstance(d, str) else d for d in shape]
    check_everywhere(proto, ({"c": np.full(size, True), "x": X}, -X), ({"c": np.full(size, False), "x": X}, abs(X)))
    if "n" in shape:
        fails_everywhere(proto, {"c": np.full((2, 1), True), "x": X}, r"If expects a condition of one bool, got bool\[2,1\]")


COUNTING = """g (int64 m, float[2] x) => (float[2] y, int64[k,1] s) {
  c = Constant<value = bool[1] {1}>()
  y, s = Loop(m, c, x) <body = b (int64[1] i, bool[1] ci, float[2] v) => (bool[1] co, float[2] w, int64[1] t) {
    co = Identity(ci)
    f = Cast<to = 1>(i)
    w = Add(v, f)
    t = Concat<axis = 0>(i)
  }>
}"""


@pytest.mark.parametrize("rank", [1, 2])
def test_a_body_that_declares_its_counter_and_condition_as_tensors_of_one_item(rank: int) -> None:
    proto = parsed(COUNTING)
    (loop,) = (n for n in proto.graph.node if n.op_type == "Loop")
    body = loop.attribute[0].g
    if rank == 2:
        for value in body.input[:2]:
            value.type.tensor_type.shape.dim.add(dim_value=1)
        body.node[1].input[0] = "i1"
        body.node[3].input[0] = "i1"
        body.node.insert(1, helper.make_node("Reshape", ["i", "one"], ["i1"]))
        body.initializer.add().CopyFrom(onnx.numpy_helper.from_array(np.array([1]), "one"))
    check_everywhere(proto, ({"m": np.array(3), "x": X}, X + 3))
    check_everywhere(proto, ({"m": np.array(3), "x": X}, np.array([[0], [1], [2]])), output="s")
    declared = "[" + ",".join("1" * rank) + "]"
    assert import_with_info(proto)[1].notes == tuple(
        f"the body of a Loop declares its {what}{declared}, not as a scalar: it gets one item (node 'y')"
        for what in ("count of rounds as i64", "condition as bool")
    )


# -- no rounds -------------------------------------------------------------------------------------------------------

SLICED = """g (int64 m, bool c) => (float[k,n] y) {
  y = Loop(m, c) <body = b (int64 i, bool ci) => (bool co, float[1] e) {
    co = Identity(ci) x = Constant<value = float[3] {1, 2, 3}>()
    z = Constant<value = int64[1] {0}>() o = Constant<value = int64[1] {1}>()
    a = Unsqueeze(i, z) d = Add(a, o) e = Slice(x, a, d)
  }>
}"""


def test_a_loop_of_no_rounds_collects_what_its_body_declares() -> None:
    given = {"m": np.array(0), "c": TRUE}
    cases = [(given, np.empty((0, 1), np.float32)), ({**given, "m": np.array(2)}, np.float32([[1], [2]]))]
    check_everywhere(parsed(SLICED), *cases, ({"m": np.array(2), "c": FALSE}, np.empty((0, 1), np.float32)))


def test_a_declaration_that_contradicts_the_nodes_has_no_say() -> None:
    wrong = parsed(SLICED.replace("float[1] e", "float[4,4] e"))
    check_everywhere(wrong, ({"m": np.array(0), "c": TRUE}, np.empty((0, 0), np.float32)))


SCANNED = """g (float[n] x, int64[n] a) => (float[2,n] y) {
  y = Scan(x, a) <num_scan_inputs = 2, scan_output_axes = [1], body = b (float e, int64 i) => (float[2] s) {
    z = Constant<value = int64[1] {0}>() o = Constant<value = int64[1] {2}>() t = Constant<value = float[3] {1, 2, 3}>()
    b = Unsqueeze(i, z) d = Add(b, o) c = Slice(t, b, d) s = Mul(c, e)
  }>
}"""


def test_a_scan_of_length_0_collects_what_its_body_declares() -> None:
    empty = ({"x": np.empty(0, np.float32), "a": np.empty(0, np.int64)}, np.empty((2, 0), np.float32))
    check_everywhere(parsed(SCANNED), empty, ({"x": X, "a": np.array([0, 1])}, np.float32([[1, -4], [2, -6]])))


NESTED = """g (int64 m, int64 inner) => (float[k,j,n] y) {
  yes = Constant<value = bool {1}>()
  y = Loop(m, yes) <body = o (int64 r, bool ro) => (bool rc, float[j,2] s) {
    rc = Identity(ro)
    s = Loop(inner, ro) <body = b (int64 i, bool ci) => (bool co, float[2] e) {
      co = Identity(ci) x = Constant<value = float[3] {1, 2, 3}>()
      z = Constant<value = int64[1] {0}>() two = Constant<value = int64[1] {2}>()
      a = Unsqueeze(i, z) d = Add(a, two) e = Slice(x, a, d)
    }>
  }>
}"""


@pytest.mark.parametrize(("m", "inner"), [(2, 0), (0, 2), (0, 0), (2, 2)])
def test_loops_of_no_rounds_within_loops(m: int, inner: int) -> None:
    one = np.float32([[1, 2], [2, 3]])[:inner]
    expected = np.stack([one] * m) if m else np.empty((0, 0, 2), np.float32)
    check_everywhere(parsed(NESTED), ({"m": np.array(m), "inner": np.array(inner)}, expected))


def test_no_rounds_of_the_old_scan() -> None:
    nodes = [helper.make_node("Add", ["s", "e"], ["z"]), helper.make_node("Identity", ["z"], ["z2"])]
    body = subgraph(nodes, {"s": (F32, [1]), "e": (F32, [1])}, {"z": (F32, [1]), "z2": (F32, [1])})
    proto = model(
        [helper.make_node("Scan", ["", "a", "x"], ["f", "y"], body=body, num_scan_inputs=1)],
        {"a": (F32, [2, 1]), "x": (F32, [2, "n", 1])}, {"f": (F32, [2, 1]), "y": (F32, [2, "n", 1])}, opset=8,
    )  # fmt: skip
    final, scanned = run(proto, np.ones((2, 1), np.float32), np.empty((2, 0, 1), np.float32))
    assert (final.tolist(), scanned.shape) == ([[1], [1]], (2, 0, 1))


def test_a_constant_that_the_body_of_an_old_scan_lists_among_its_inputs() -> None:
    nodes = [helper.make_node("Mul", ["s", "w"], ["z"]), helper.make_node("Add", ["z", "e"], ["z2"])]
    body = subgraph(nodes, {"s": (F32, [1]), "e": (F32, [1]), "w": (F32, [1])}, {"z": (F32, [1]), "z2": (F32, [1])})
    body.initializer.append(helper.make_tensor("w", F32, [1], [2.0]))
    proto = model(
        [helper.make_node("Scan", ["", "a", "x"], ["f", "y"], body=body, num_scan_inputs=1)],
        {"a": (F32, [1, 1]), "x": (F32, [1, "n", 1])}, {"f": (F32, [1, 1]), "y": (F32, [1, "n", 1])}, opset=8,
    )  # fmt: skip
    final, scanned = run(proto, np.ones((1, 1), np.float32), np.ones((1, 2, 1), np.float32))
    assert (final.tolist(), scanned.tolist()) == ([[4]], [[[3], [5]]])


def _data_sized(op: str) -> onnx.ModelProto:
    """As many conditions (or counts of rounds, or conditions of a body) as x has numbers that are not 0."""
    found = "g (float[n] x) => (float[n] y) { n = NonZero(x) c = Cast<to = 9>(n) o = Constant<value = bool {1}>()"
    body = "body = b (int64 i, bool g, float[n] v) => (bool h, float[n] w) { w = Neg(v) h = %s }"
    ends = {
        "If": "y = If(c) <then_branch = t () => (float[n] r) {r = Neg(x)}, else_branch = e () => (float[n] r) {r = Abs(x)}> }",
        "Loop": f"y = Loop(n, o, x) <{body % 'Identity(g)'}> }}",
        "Loop of its body": f"k = Constant<value = int64 {{3}}>() y = Loop(k, o, x) <{body % 'Identity(c)'}> }}",
    }
    return parsed(f"{found} {ends[op]}")


@pytest.mark.parametrize("op", ["If", "Loop", "Loop of its body"])
def test_what_must_be_one_item_and_is_more_is_refused_on_both_backends(op: str) -> None:
    fails_everywhere(_data_sized(op), {"x": np.float32([0, 3, 3])}, r"expects .* of one item, got \w+\[1,2\]")
    check_everywhere(_data_sized(op), ({"x": np.float32([0, 3])}, np.float32([0, -3])))


def test_what_is_no_tensor_of_one_item_is_refused() -> None:
    then = subgraph([helper.make_node("Neg", ["x"], ["r"])], {}, {"r": (F32, None)})
    node = helper.make_node("If", ["c"], ["y"], name="if", then_branch=then, else_branch=then)
    sequence = helper.make_node("SequenceConstruct", ["b"], ["c"])
    proto = model([sequence, node], {"b": (BOOL, []), "x": (F32, [2])}, {"y": (F32, None)})
    assert fault(proto).startswith("model: node 'if' (If, opset 18): If expects a condition of one bool, got seq(bool[])")
    wrong = model([node], {"c": (F32, []), "x": (F32, [2])}, {"y": (F32, None)})
    assert "If expects a condition of one bool, got f32[]" in fault(wrong)
    node.output.append("z")
    assert "If has 1 outputs in then_branch and 1 in else_branch, expected 2" in fault(
        model([node], {"c": (BOOL, []), "x": (F32, [2])}, {"z": (F32, None)})
    )
