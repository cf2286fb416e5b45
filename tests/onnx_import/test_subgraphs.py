"""If, Loop and Scan: what a sub-graph reads from outside becomes a capture; a decided If becomes its branch."""

import numpy as np
import onnx
import pytest
from onnx import helper

from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.onnx_import import import_with_info
from tests.everywhere import check_everywhere, fails_everywhere
from tests.onnx_import.models import BOOL, F32, I64, fault, model, ops_of, read, run, subgraph

LARGE = np.arange(3, dtype=np.float32)


def _if(**graphs: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", ["c"], ["y"], name="if", **graphs)


def _branches() -> onnx.ModelProto:
    then = subgraph([helper.make_node("Add", ["a", "w"], ["r"])], {}, {"r": (F32, None)})
    other = subgraph([helper.make_node("Mul", ["b", "a"], ["s"])], {}, {"s": (F32, None)})
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["b"])]
    nodes.append(_if(then_branch=then, else_branch=other))
    return model(nodes, {"x": (F32, ["n"]), "c": (BOOL, [])}, {"y": (F32, None)}, {"w": np.float32([10])})


def test_captures_follow_the_condition_and_constants_are_not_captured() -> None:
    graph = read(_branches())
    assert print_graph(graph).replace("\n    ", "\n") == (
        """graph g(x: f32[n], c: bool[]) {
  a: f32[n] = Neg(x)
  b: f32[n] = Abs(x)
  y: f32[n] = If(c, b, a) @if
else_branch: graph body(b: f32[n], a: f32[n]) {
  s: f32[n] = Mul(b, a)
  return s
}
then_branch: graph body(b: f32[n], a: f32[n]) {
  w: f32[1] = const [10.0]
  r: f32[n] = Add(a, w)
  return r
}
  return y
}
"""
    )


@pytest.mark.parametrize(("taken", "expected"), [(True, [9, 12]), (False, [-1, 4])])
def test_branches_run(taken: bool, expected: list[float]) -> None:
    (y,) = run(_branches(), np.array([1, -2], np.float32), np.array(taken))
    assert y.tolist() == expected


@pytest.mark.parametrize("taken", [True, False])
def test_a_decided_if_becomes_its_branch_and_the_other_is_not_looked_at(taken: bool) -> None:
    good = subgraph([helper.make_node("Neg", ["x"], ["r"])], {}, {"r": (F32, None)})
    wrong = subgraph([helper.make_node("NoSuchOp", ["x"], ["r"])], {}, {"r": (F32, None)})
    graphs = {"then_branch": good, "else_branch": wrong} if taken else {"then_branch": wrong, "else_branch": good}
    proto = model(
        [_if(**graphs), helper.make_node("Abs", ["y"], ["z"])], {"x": (F32, [2])}, {"z": (F32, None)}, {"c": np.array(taken)}
    )
    assert ops_of(read(proto)) == ["Neg", "Abs"]


def test_a_branch_that_does_not_fit_is_no_fault_when_it_is_not_taken() -> None:
    # As exporters guard a Squeeze: only where the dimension is 1.
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=0, end=1),
        helper.make_node("Equal", ["s", "one"], ["c"]),
        _if(
            then_branch=subgraph([helper.make_node("Squeeze", ["x", "zero"], ["r"])], {}, {"r": (F32, None)}),
            else_branch=subgraph([helper.make_node("Identity", ["x"], ["r"])], {}, {"r": (F32, None)}),
        ),
    ]
    proto = model(nodes, {"x": (F32, [3, 2])}, {"y": (F32, None)}, {"one": np.array([1]), "zero": np.array([0])})
    assert ops_of(read(proto)) == ["Shape", "Equal", "Identity"]


def _sum_loop(body: onnx.GraphProto, inputs: list[str]) -> list[onnx.NodeProto]:
    return [helper.make_node("Neg", ["x"], ["step"]), helper.make_node("Loop", inputs, ["total", "seen"], body=body, name="loop")]


def test_loop_with_captures() -> None:
    body = subgraph(
        [
            helper.make_node("Identity", ["go"], ["going"]),
            helper.make_node("Add", ["t", "step"], ["u"]),
            helper.make_node("Mul", ["u", "w"], ["out"]),
        ],
        {"i": (I64, []), "go": (BOOL, []), "t": (F32, [3])},
        {"going": (BOOL, []), "u": (F32, [3]), "out": (F32, [3])},
    )
    nodes = _sum_loop(body, ["m", "", "x"])
    proto = model(nodes, {"x": (F32, [3]), "m": (I64, [])}, {"total": (F32, None), "seen": (F32, None)}, {"w": LARGE})
    graph = read(proto)
    loop = graph.nodes[1]
    assert [None if v is None else v.name for v in loop.inputs] == ["m", None, "x", "step"]
    assert loop.attrs == {"n_captures": 1}
    assert [v.name for v in loop.graphs["body"].inputs] == ["i", "go", "t", "step"]
    assert [str(v.type) for v in loop.graphs["body"].outputs] == ["bool[]", "f32[3]", "f32[3]"]
    total, seen = run(proto, np.ones(3, np.float32), np.array(2))
    assert total.tolist() == [-1, -1, -1]
    assert seen.tolist() == [[0, 0, 0], [0, -1, -2]]


def test_loop_with_nothing_but_captures() -> None:
    body = subgraph(
        [helper.make_node("Identity", ["go"], ["going"]), helper.make_node("Identity", ["step"], ["out"])],
        {"i": (I64, []), "go": (BOOL, [])},
        {"going": (BOOL, []), "out": (F32, None)},
    )
    nodes = [helper.make_node("Neg", ["x"], ["step"]), helper.make_node("Loop", ["m", ""], ["seen"], body=body)]
    proto = model(nodes, {"x": (F32, [2]), "m": (I64, [])}, {"seen": (F32, None)})
    assert [None if v is None else v.name for v in read(proto).nodes[1].inputs] == ["m", None, "step"]
    (seen,) = run(proto, np.ones(2, np.float32), np.array(3))
    assert seen.tolist() == [[-1, -1]] * 3


def test_captures_reach_through_two_levels() -> None:
    innermost = subgraph([helper.make_node("Add", ["outermost", "t"], ["r"])], {}, {"r": (F32, None)})
    other = subgraph([helper.make_node("Identity", ["w"], ["s"])], {}, {"s": (F32, None)})
    body = subgraph(
        [
            helper.make_node("Identity", ["go"], ["going"]),
            helper.make_node("If", ["go"], ["u"], then_branch=innermost, else_branch=other),
        ],
        {"i": (I64, []), "go": (BOOL, []), "t": (F32, None)},
        {"going": (BOOL, []), "u": (F32, None)},
    )
    nodes = [helper.make_node("Neg", ["x"], ["outermost"]), helper.make_node("Loop", ["m", "c", "x"], ["y"], body=body)]
    inputs = {"x": (F32, [3]), "m": (I64, []), "c": (BOOL, [])}
    (y,) = run(model(nodes, inputs, {"y": (F32, None)}, {"w": LARGE}), np.ones(3, np.float32), np.array(2), np.array(True))
    assert y.tolist() == [-1, -1, -1]


def test_inner_names_hide_outer_ones() -> None:
    # "a" of the branch is its own, made after the outer one is read under another name.
    then = subgraph(
        [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["r"])], {}, {"r": (F32, None)}, {"w": LARGE}
    )
    other = subgraph([helper.make_node("Identity", ["w"], ["r"])], {}, {"r": (F32, None)}, {"w": LARGE * 2})
    nodes = [
        helper.make_node("Add", ["x", "w"], ["a"]),
        _if(then_branch=then, else_branch=other),
        helper.make_node("Add", ["y", "a"], ["z"]),
    ]
    proto = model(nodes, {"x": (F32, [3]), "c": (BOOL, [])}, {"z": (F32, None)}, {"w": LARGE})
    for taken, expected in ((True, [0, 1, 2]), (False, [1, 4, 7])):
        (z,) = run(proto, np.ones(3, np.float32), np.array(taken))
        assert z.tolist() == expected


def test_a_sub_graph_may_return_one_value_twice_or_an_outer_one() -> None:
    then = subgraph([helper.make_node("Neg", ["x"], ["r"])], {}, {"r": (F32, None)})
    then.output.add().CopyFrom(then.output[0])
    other = subgraph([], {}, {"x": (F32, None)})
    other.output.add().CopyFrom(other.output[0])
    node = helper.make_node("If", ["c"], ["y", "z"], then_branch=then, else_branch=other)
    proto = model([node], {"x": (F32, [1]), "c": (BOOL, [])}, {"y": (F32, None), "z": (F32, None)})
    for taken, expected in ((True, -3), (False, 3)):
        assert [float(v[0]) for v in run(proto, np.float32([3]), np.array(taken))] == [expected] * 2


def test_faults_inside_sub_graphs_are_told_with_those_outside() -> None:
    then = subgraph([helper.make_node("NoSuchOp", ["x"], ["r"], name="in then")], {}, {"r": (F32, None)})
    other = subgraph([helper.make_node("Neg", ["gone"], ["r"], name="in else")], {}, {"r": (F32, None)})
    nodes = [_if(then_branch=then, else_branch=other), helper.make_node("AlsoNot", ["y"], ["z"], name="after")]
    text = fault(model(nodes, {"x": (F32, [1]), "c": (BOOL, [])}, {"z": (F32, None)}))
    assert text.splitlines()[:4] == [
        "model: 3 things are wrong with this model:",
        "  node 'in else' (Neg, opset 18): reads 'gone', which nothing makes",
        "  node 'in then' (NoSuchOp, opset 18): ai.onnx has no operator 'NoSuchOp'",
        "  node 'after' (AlsoNot, opset 18): ai.onnx has no operator 'AlsoNot'",
    ]


def _guarded(*nodes: onnx.NodeProto, other: str = "Neg") -> onnx.ModelProto:
    """An If whose then_branch does ``nodes``, which give r from x[2] and w[3]."""
    then = subgraph(nodes, {}, {"r": (F32, None)})
    otherwise = subgraph([helper.make_node(other, ["x"], ["r"], name="other")], {}, {"r": (F32, None)})
    node = _if(then_branch=then, else_branch=otherwise)
    return model([node], {"x": (F32, [2]), "c": (BOOL, [])}, {"y": (F32, None)}, {"w": LARGE, "far": np.array(7)})


def _not(name: str, op: str = "Neg") -> onnx.GraphProto:
    return subgraph([helper.make_node(op, [name], ["r"])], {}, {"r": (F32, None)})


UNFIT = {
    "Add: shapes [2] and [3] do not broadcast": [helper.make_node("Add", ["x", "w"], ["r"], name="inner")],
    "index 7": [helper.make_node("Gather", ["w", "far"], ["r"], name="inner")],
    "Transpose that would keep the order": [helper.make_node("Transpose", ["x"], ["r"], name="inner", perm=[0, 1])],
    "Split into one that would be all": [
        helper.make_node("Constant", [], ["sizes"], value_ints=[2, 1]),
        helper.make_node("Split", ["x", "sizes"], ["r"], name="inner"),
    ],
    "Concat of one": [helper.make_node("Concat", ["x"], ["r"], name="inner", axis=3)],
    "Squeeze removes": [
        helper.make_node("Squeeze", ["x", "far"], ["s"], name="inner"),
        helper.make_node("IsNaN", ["s"], ["e"]),
        helper.make_node("If", ["e"], ["r"], then_branch=_not("x"), else_branch=_not("x", "Abs")),
    ],
}


@pytest.mark.parametrize("fault", UNFIT)
def test_a_branch_that_does_not_fit_fails_when_it_is_taken(fault: str) -> None:
    proto = _guarded(*UNFIT[fault])
    x = np.float32([1, -2])
    check_everywhere(proto, ({"x": x, "c": np.array(False)}, -x))
    fails_everywhere(proto, {"x": x, "c": np.array(True)}, "node 'inner'")
    (note,) = import_with_info(proto)[1].notes
    assert note.startswith("the then_branch of an If does not fit what it reads, and fails if it is taken: node 'inner': ")
    assert note.endswith(" (node 'if')")


def test_what_cannot_be_folded_stays_an_operation_of_its_branch() -> None:
    proto = _guarded(helper.make_node("Gather", ["table", "far"], ["r"], name="inner"))
    proto.graph.initializer.add().CopyFrom(onnx.numpy_helper.from_array(np.zeros((4, 4096), np.float32), "table"))
    x = np.float32([1, -2])
    check_everywhere(proto, ({"x": x, "c": np.array(False)}, -x))


def test_an_if_of_which_neither_branch_fits_is_refused() -> None:
    proto = _guarded(helper.make_node("Add", ["x", "w"], ["r"], name="inner"), other="Det")
    assert fault(proto).startswith(
        "model: node 'if' (If, opset 18): If has no branch that fits: then_branch: node 'inner': Add: shapes [2] and [3] do not"
    )
    assert "; else_branch: node 'other': Det" in fault(proto)
