"""What strided copies are made of: merged axes, wide units, plain copies where nothing is strided."""

import pytest

from miniinfer_cli.backends.cuda.contract.steps import Copy, Launch, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.launching.strided_copy import Layouts, at, compiled_rank, copy_strided, layouts, widest_unit

X, Y = Operand.input(0), Operand.output(0)


def macros(action):
    assert isinstance(action, Launch)
    return dict(action.kernel.defines)


def test_the_widest_unit_divides_everything():
    assert widest_unit(4, 8, 16) == 4
    assert widest_unit(4, 8, 6) == 2
    assert widest_unit(1, 48) == 16
    assert widest_unit(16, 3) == 1
    assert widest_unit(2, 7) == 1


def test_units_grow_where_both_sides_are_dense():
    assert layouts(4, (2, 8), (8, 1), (16, 1)) == Layouts(16, (2, 2), (2, 1), (4, 1))
    assert layouts(4, (2, 8), (8, 1), (17, 1)) == Layouts(4, (2, 8), (8, 1), (17, 1))
    assert layouts(4, (2, 8), (8, 1), (16, 1), 0, 8) == Layouts(8, (2, 4), (4, 1), (8, 1))
    assert layouts(4, (2, 8), (8, 1), (1, 2)) == Layouts(4, (2, 8), (8, 1), (1, 2))
    # Rows of one unit are no axis any more.
    assert layouts(4, (6, 4), (4, 1), (8, 1)) == Layouts(16, (6,), (1,), (2,))


def test_what_is_dense_on_both_sides_is_a_copy():
    assert copy_strided(Y, at(X, 12), 4, (3, 5), (5, 1), (5, 1), Target()) == Copy(Y, at(X, 12), 60)
    assert copy_strided(Y, X, 2, (), (), (), Target()) == Copy(Y, X, 2)


def test_a_repeated_element_fills_wide_units():
    action = copy_strided(Y, X, 2, (3, 16), (16, 1), (1, 0), Target())
    assert action.kernel.name == "spread" and macros(action)["MI_WIDTH"] == "8"
    assert copy_strided(Y, X, 2, (3, 7), (7, 1), (1, 0), Target()).kernel.name == "copy"


def test_sparse_targets_and_large_tensors_are_told_apart():
    assert macros(copy_strided(Y, X, 4, (3, 7), (9, 1), (7, 1), Target()))["MI_DENSE"] == "0"
    assert macros(copy_strided(Y, X, 4, (3, 7), (7, 1), (9, 1), Target()))["MI_INDEX"] == "int"
    assert macros(copy_strided(Y, X, 4, (3, 7), (7, 1), (1 << 31, 1), Target()))["MI_INDEX"] == "long long"


@pytest.mark.parametrize(("rank", "compiled"), [(0, 1), (1, 1), (4, 4), (5, 8), (8, 8), (9, 12)])
def test_few_ranks_are_compiled(rank, compiled):
    assert compiled_rank(rank) == compiled
