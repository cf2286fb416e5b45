"""Nodes of two results beside each other."""

from typing import Any

import pytest

from miniinfer_cli.report.aligning import aligned
from miniinfer_cli.report.document import Node, read_result
from tests.report.made import node, profile


def nodes(*given: Any) -> tuple[Node, ...]:
    """Nodes by their origins in a word, or by origins and operation."""
    made = []
    for n, one in enumerate(given):
        names, operation = one if isinstance(one, tuple) else (one, "Conv")
        made.append(node(n, node=f"node {names}", origins=list(names), operation=operation, reads=[]))
    return read_result(profile(0) | {"nodes": made}).nodes


@pytest.mark.parametrize(
    ("left", "right", "pairs"),
    [
        ("abc", "abc", ["a|a", "b|b", "c|c"]),
        (["ab", "c"], ["a", "b", "c"], ["ab|a b", "c|c"]),  # fused on one side
        (["ab", "c"], ["a", "bc"], ["ab c|a bc"]),  # linked through the one in the middle
        ("axb", "ab", ["a|a", "x|", "b|b"]),
        ("ab", "xaybz", ["|x", "a|a", "|y", "b|b", "|z"]),
        ("aab", "ab", ["a a|a", "b|b"]),  # one node of the model, done in two parts
        ("ba", "ab", ["b|b", "a|a"]),  # in the order of the one
        ("", "ab", ["|a", "|b"]),
        ("", "", []),
    ],
)
def test_nodes_of_the_same_origins_go_together(left, right, pairs):
    found = [f"{' '.join(map(names, p.left))}|{' '.join(map(names, p.right))}" for p in aligned(nodes(*left), nodes(*right))]
    assert found == pairs


def names(one: Node) -> str:
    return "".join(one.origins)


def test_where_no_name_is_alike_operations_decide():
    left = nodes(("a", "Conv"), ("b", "Relu"), ("c", "Gemm"))
    right = nodes(("x", "Conv"), ("y", "Gemm"), ("z", "Softmax"))
    found = [(*(n.label for n in p.left), *(n.label for n in p.right)) for p in aligned(left, right)]
    assert found == [("node a", "node x"), ("node b",), ("node c", "node y"), ("node z",)]


def test_times_of_a_side_add_up_and_labels_stand_in_for_origins():
    made = [node(n, node=name, origins=[], median_ms=time) for n, (name, time) in enumerate((("a", 1.0), ("b", 2.0), ("b", 3.0)))]
    one = read_result(profile(0) | {"nodes": made}).nodes
    assert [(len(p.left), p.left_ms, p.right_ms) for p in aligned(one, one)] == [(1, 1.0, 1.0), (2, 5.0, 5.0)]
