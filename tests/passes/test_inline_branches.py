"""inline_branches: an If whose condition is known is the branch that it takes."""

import numpy as np
import pytest

from miniinfer_cli.passes.inline_branches import inline_branches

BRANCHES = """
            then_branch: graph then(x: f32[batch,4], k: f32[4]) { p = Add(x, k) q = Neg(p) return q, x }
            else_branch: graph else(x: f32[batch,4], k: f32[4]) { q = Mul(x, k) return q, q2=q }
"""


@pytest.mark.parametrize(
    ("condition", "after"),
    [
        ("bool[] = const true", "p = Add(x, k) y = Neg(p) @q r = Add(y, x)"),
        ("bool[1] = const [false]", "y = Mul(x, k) @q r = Add(y, y)"),
    ],
)
def test_a_known_condition_leaves_one_branch(graph_of, outputs_of, condition, after):
    graph = graph_of(
        f"graph main(x: f32[batch,4], k: f32[4]) {{ c: {condition} y, z = If(c, x, k) {BRANCHES} r = Add(y, z) return r }}"
    )
    expected = graph_of(f"graph main(x: f32[batch,4], k: f32[4]) {{ {after} return r }}")
    (before,) = outputs_of(graph)
    assert inline_branches(graph) == 1
    np.testing.assert_array_equal(outputs_of(graph)[0], before)
    np.testing.assert_array_equal(outputs_of(expected)[0], before)
    assert [n.op for n in graph] == [n.op for n in expected]
    assert inline_branches(graph) == 0


def test_outputs_that_nobody_wants_go_with_the_if(graph_of, outputs_of):
    graph = graph_of(f"graph main(x: f32[batch,4], k: f32[4]) {{ c: bool[] = const true y = If(c, x, k) {BRANCHES} return y }}")
    (before,) = outputs_of(graph)
    assert inline_branches(graph) == 1
    np.testing.assert_array_equal(outputs_of(graph)[0], before)


def test_an_unknown_condition_stays(leaves):
    leaves(
        inline_branches,
        f"graph main(c: bool[], x: f32[batch,4], k: f32[4]) {{ y, z = If(c, x, k) {BRANCHES} r = Add(y, z) return r }}",
    )
