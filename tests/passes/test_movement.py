"""Movements: what a chain does to the atoms of a tensor, and the cheapest way to write it."""

import pytest

from miniinfer_cli.ir import symbol
from miniinfer_cli.passes.movement import Movement, Moves, chain_above, is_writable, movement_of
from tests.passes.graphs import read_graph

B, S = symbol("batch"), symbol("seq")


def moved(shape, *steps):
    """A movement of ``shape``: a list permutes, a tuple is the next shape; None when a step cannot be followed."""
    movement = Movement(shape)
    for step in steps:
        if isinstance(step, list):
            movement.axes = [movement.axes[p] for p in step]
        elif not movement.view(step):
            return None
    return movement


MOVES = {
    "nothing": ((B, 4), (), Moves(None, None, None)),
    "there and back": ((B, 4, 6), ([0, 2, 1], [0, 2, 1]), Moves(None, None, None)),
    "a view": ((B, S, 12), ((B, S, 3, 4),), Moves(None, None, (B, S, 3, 4))),
    "whole axes of the source": ((B, S, 4), ([1, 0, 2], (S, B * 4)), Moves(None, [1, 0, 2], (S, 4 * B))),
    "whole axes of the target": ((B, S, 12), ((B, S, 3, 4), [0, 2, 1, 3]), Moves((B, S, 3, 4), [0, 2, 1, 3], None)),
    "a channel shuffle": ((B, 12, 5), ((B, 3, 4, 5), [0, 2, 1, 3], (B, 12, 5)), Moves((B, 3, 4, 5), [0, 2, 1, 3], (B, 12, 5))),
    "a shuffle in longest runs": (
        (B, 6, 4, 5),
        ((B, 2, 3, 4, 5), [0, 2, 1, 3, 4], (B, 120)),
        Moves((B, 2, 3, 20), [0, 2, 1, 3], (B, 120)),
    ),
    "axes of size one": ((1, B, 1, 4), ([1, 0, 3, 2], (B, 4)), Moves(None, None, (B, 4))),
}


@pytest.mark.parametrize(("shape", "steps", "moves"), MOVES.values(), ids=MOVES.keys())
def test_the_cheapest_moves_are_found(shape, steps, moves):
    movement = moved(shape, *steps)
    assert movement.moves() == moves
    assert moves.cost == (moves.perm is not None, sum(s is not None for s in (moves.cut, moves.perm, moves.target)))


IMPOSSIBLE = {
    "a cut through two axes": ((6, 4), (4, 6)),
    "a size that does not divide": ((B, 4), (S, 4)),
    "fewer elements": ((B, 4), (B, 2)),
    "more elements": ((B, 4), (B, 8)),
    "no elements": ((B, 4), (B, 0)),
}


@pytest.mark.parametrize(("shape", "target"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_what_cannot_be_followed_is_refused(shape, target):
    assert moved(shape, target) is None


def test_a_copy_is_extended_alone():
    movement = moved((B, 12), (B, 3, 4))
    other = movement.copy()
    assert other.view((B, 3, 2, 2))
    assert (movement.target, other.target) == ((B, 3, 4), (B, 3, 2, 2))


def test_only_one_symbolic_size_can_be_found_by_a_reshape():
    assert is_writable(moved((B, S), (1, B, S)), Moves(None, None, (B, 1, S)))
    assert not is_writable(moved((B, S), (1, B, S)), Moves(None, None, (1, B, S)))
    assert not is_writable(Movement((B, S, 4)), Moves((1, B, S, 4), None, None))


def test_a_chain_ends_where_somebody_else_reads():
    graph = read_graph(
        """graph main(x: f32[2,3,4]) {
          a = Transpose(x) {perm=[1, 0, 2]}
          b = Flatten(a)
          c = Transpose(b)
          n = Neg(c)
          return n, b
        }"""
    )
    a, b, c, _ = graph.nodes
    assert chain_above(graph, c.output) == [c]
    assert chain_above(graph, b.output) == [a, b]
    assert chain_above(graph, graph.inputs[0]) == []
    assert movement_of([]) is None
    assert movement_of([a, b, c]).target == (8, 3)
