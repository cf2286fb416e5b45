"""Gather, GatherElements, GatherND on the emulated device beside their references."""

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import Copy
from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op, run_op
from tests.backends.cuda.tactics.every_tactic import offered
from tests.backends.cuda.tactics.lowered import lower_op
from tests.backends.nodes import make_graph

RNG = np.random.default_rng(5)


def data(*shape, dtype=np.float32):
    return RNG.integers(0, 100, shape).astype(dtype)


def indices(size, *shape, dtype=np.int64):
    return RNG.integers(-size, size, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_gather(dtype, kind):
    check_op("Gather", data(5, 4, 8, dtype=dtype), indices(5, 2, 2, dtype=kind))
    check_op("Gather", data(5, 4, 8, dtype=dtype), indices(4, 3, dtype=kind), axis=1)
    check_op("Gather", data(5, 4, 7, dtype=dtype), indices(7, 3, 2, dtype=kind), axis=-1)
    check_op("Gather", data(5, 4, 7, dtype=dtype), indices(4, 0, dtype=kind), axis=1)


def test_embeddings_are_read_in_units():
    table, words = data(50, 96, dtype=np.float16), indices(50, 4, 16)
    check_op("Gather", table, words, target=Target(multiprocessors=1))
    (action,) = lower_op("Gather", table, words).actions
    assert ("MI_T", "Pack<u64, 2>") in action.kernel.defines


def test_a_known_index_is_a_copy():
    for index in (-2, 0, 3):
        check_op("Gather", data(5, 4, 7), np.array(index), axis=1, constants=(1,))
        check_op("Gather", data(5, 4, 7), np.array([index]), constants=(1,))
    assert isinstance(lower_op("Gather", data(5, 4, 7), np.array(1), constants=(1,)).actions[0], Copy)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_gather_elements(dtype):
    x = data(5, 4, 7, dtype=dtype)
    check_op("GatherElements", x, indices(4, 3, 9, 7), axis=1)
    check_op("GatherElements", x, indices(5, 3, 2, 7, dtype=np.int32), axis=0)
    check_op("GatherElements", x, indices(7, 5, 4, 9), axis=-1)
    check_op("GatherElements", x, indices(7, 5, 0, 9), axis=-1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_gather_nd(dtype):
    x = data(3, 4, 8, dtype=dtype)
    check_op("GatherND", x, indices(3, 5, 2))
    check_op("GatherND", x, indices(3, 2, 2, 3))
    check_op("GatherND", x, indices(4, 3, 2, 1), batch_dims=1)
    check_op("GatherND", data(2, 2, 8, dtype=dtype), indices(8, 2, 2, 3, 1), batch_dims=2)
    check_op("GatherND", x, indices(3, 0, 2))


def test_indices_outside_read_the_nearest():
    x = np.arange(5, dtype=np.float32)
    outside = np.array([-9, 7, 2**40])
    for op, shaped in [("Gather", outside), ("GatherElements", outside), ("GatherND", outside[:, None])]:
        np.testing.assert_array_equal(run_op(op, x, shaped)[0], [0, 4, 4])
    np.testing.assert_array_equal(run_op("Gather", x, np.array(-9), constants=(1,))[0], 0)
    np.testing.assert_array_equal(run_op("Gather", x[:0], np.array([1, 2]))[0], [0, 0])


def test_64_bit_indices(wide_indices):
    check_op("Gather", data(5, 4, 8), indices(4, 3), axis=1)
    check_op("GatherElements", data(5, 4, 7), indices(4, 3, 9, 7), axis=1)
    check_op("GatherND", data(3, 4, 8), indices(4, 3, 2, 1), batch_dims=1)


def test_the_estimate_counts_what_is_read_of_the_table():
    given = data(500, 96), indices(500, 4, 16)
    graph = make_graph("Gather", given, domain="", n_outputs=1, constants=(), body=None, attrs={})
    (only,) = offered(graph, given, Target())
    assert only.estimate == Estimate(0, 2 * 4 * 16 * 96 * 4 + 8 * 4 * 16)
