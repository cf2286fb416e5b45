"""Where the nodes of a graph go: below what they read, beside each other, with few crossings, and soon."""

import random
import time
from itertools import pairwise

import pytest

from miniinfer_cli.report.layered import Drawing, _crossings, _rising, drawing_of

NODE, GAP = (100.0, 20.0), (10.0, 30.0)


def drawn(reads) -> Drawing:
    drawing = drawing_of(reads, node=NODE, gap=GAP)
    check(drawing, reads)
    return drawing


def check(drawing: Drawing, reads) -> None:
    """Readers are below, nodes of a layer apart, all is on the page, and edges join what they should."""
    layers: dict[float, list[float]] = {}
    for x, y in drawing.nodes:
        assert NODE[0] / 2 <= x <= drawing.width - NODE[0] / 2 and NODE[1] / 2 <= y <= drawing.height - NODE[1] / 2
        layers.setdefault(y, []).append(x)
    for row in layers.values():
        row.sort()
        assert all(b - a >= NODE[0] + GAP[0] - 1e-6 for a, b in pairwise(row))
    edges = {(source, reader) for reader, sources in enumerate(reads) for source in sources}
    assert {(source, reader) for source, reader, _ in drawing.edges} == edges
    for source, reader, points in drawing.edges:
        assert points[0] == (drawing.nodes[source][0], drawing.nodes[source][1] + NODE[1] / 2)
        assert points[-1] == (drawing.nodes[reader][0], drawing.nodes[reader][1] - NODE[1] / 2)
        heights = [y for _, y in points]
        assert heights == sorted(heights) and heights[0] < heights[-1]


def random_graph(count: int, seed: int):
    chosen = random.Random(seed)
    return [
        sorted({chosen.randrange(max(0, n - 12), n) for _ in range(chosen.choice((1, 1, 1, 2, 3)))}) if n else []
        for n in range(count)
    ]


def test_a_chain_is_a_straight_line():
    drawing = drawn([[], [0], [1], [2]])
    assert len({x for x, _ in drawing.nodes}) == 1
    assert [y for _, y in drawing.nodes] == [40.0, 90.0, 140.0, 190.0]


def test_a_shortcut_runs_beside_what_it_passes():
    drawing = drawn([[], [0], [1], [0, 2]])
    ((_, _, points),) = [e for e in drawing.edges if e[:2] == (0, 3)]
    assert len(points) == 4
    (left, _), (right, _) = drawing.nodes[1:3]
    assert all(abs(x - left) >= NODE[0] / 2 and abs(x - right) >= NODE[0] / 2 for x, _ in points[1:-1])


def test_what_nothing_feeds_stands_right_above_its_reader():
    drawing = drawn([[], [0], [1], [], [2, 3]])
    assert drawing.nodes[3][1] == drawing.nodes[2][1]


def test_crossings_that_need_not_be_are_none():
    # Two ladders, given so that their rungs cross.
    drawing = drawn([[], [], [1], [0], [3], [2]])
    assert drawing.nodes[0][0] == drawing.nodes[3][0] == drawing.nodes[4][0]
    assert drawing.nodes[1][0] == drawing.nodes[2][0] == drawing.nodes[5][0]


def test_crossings_are_counted_as_pairs_that_cross():
    rows, below = [[0, 1, 2], [3, 4, 5]], [[3, 5], [4], [3, 4], [], [], []]
    at = [0, 1, 2, 0, 1, 2]
    edges = [(at[a], at[b]) for a in rows[0] for b in below[a]]
    pairs = sum((a < c and b > d) or (a > c and b < d) for n, (a, b) in enumerate(edges) for c, d in edges[n + 1 :])
    assert _crossings(rows, below, at) == pairs == 4


@pytest.mark.parametrize(
    ("values", "rising"), [([], []), ([1, 2, 3], [1, 2, 3]), ([3, 1], [2, 2]), ([1, 5, 3, 4, 0], [1, 3, 3, 3, 3])]
)
def test_numbers_that_fall_are_put_at_their_mean(values, rising):
    assert _rising(values) == rising


@pytest.mark.parametrize("seed", range(6))
def test_any_graph_is_drawn_by_the_rules_and_always_in_the_same_way(seed):
    reads = random_graph(60, seed)
    assert drawn(reads) == drawn(reads)


def test_no_nodes_and_one():
    assert drawn([]).nodes == ()
    assert len(drawn([[]]).nodes) == 1


def test_a_thousand_nodes_take_less_than_two_seconds():
    reads = random_graph(1000, 7)
    reads[999] = [0, 998]  # an edge across everything
    began = time.process_time()
    drawn(reads)
    assert time.process_time() - began < 2
