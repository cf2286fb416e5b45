"""GroupNormalizationNHWC is GroupNormalization between two transposes, for every rank and width."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.normalization import group_normalization, instance_normalization
from miniinfer_cli.ops.normalization_nhwc import (
    expand_group_normalization_nhwc,
    group_normalization_nhwc,
    infer_group_normalization_nhwc,
)
from tests.ops.checked import run
from tests.passes.graphs import read_graph

RNG = np.random.default_rng(5)
SCALE, BIAS = RNG.normal(size=(2, 6))


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (3, 6, 4, 5), (1, 6, 2, 3, 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5), (np.float16, 4e-3)])
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_the_channels_are_last_and_nothing_else_changes(shape, dtype, tolerance, groups):
    x = RNG.normal(1, 2, shape).astype(dtype)
    scale, bias = SCALE.astype(dtype), BIAS.astype(dtype)
    y = group_normalization_nhwc(np.moveaxis(x, 1, -1), scale, bias, num_groups=groups, epsilon=0.01)
    expected = group_normalization(x.astype(np.float64), SCALE, BIAS, num_groups=groups, epsilon=0.01, stash_type=11)
    assert y.dtype == dtype
    np.testing.assert_allclose(np.moveaxis(y.astype(np.float64), -1, 1), expected, rtol=tolerance, atol=tolerance * 4)


def test_a_group_for_each_channel_is_instance_normalization():
    x = RNG.normal(1, 2, (2, 6, 4, 5))
    y = group_normalization_nhwc(np.moveaxis(x, 1, -1), SCALE, BIAS, num_groups=6)
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), instance_normalization(x, SCALE, BIAS), rtol=1e-12)


def test_the_type_is_that_of_the_input():
    vector = TensorType(DType.F32, (6,))
    x = TensorType(DType.F32, (symbol("batch"), 4, 4, 6))
    assert infer_group_normalization_nhwc(x, vector, vector, num_groups=3) == x
    assert infer_group_normalization_nhwc(TensorType(DType.F32), vector, vector, num_groups=3) == TensorType(DType.F32)
    with pytest.raises(ModelError, match="num_groups 4 does not divide the 6 channels"):
        infer_group_normalization_nhwc(x, vector, vector, num_groups=4)
    with pytest.raises(ModelError, match="size of scale"):
        infer_group_normalization_nhwc(x, TensorType(DType.F32, (5,)), vector, num_groups=3)


def test_the_expansion_says_the_same():
    text = """graph main(x: f32[2,4,3,6], s: f32[6], b: f32[6]) {
      y = miniinfer.GroupNormalizationNHWC(x, s, b) {num_groups=2, epsilon=0.5}
      return y
    }"""
    graph = read_graph(text)
    inputs = [RNG.normal(size=s).astype(np.float32) for s in ((2, 4, 3, 6), 6, 6)]
    (before,) = interpret(graph, inputs)
    (node,) = graph.nodes
    graph.replace_node(node, expand_group_normalization_nhwc(graph, node))
    assert [n.op for n in graph] == ["Transpose", "GroupNormalization", "Transpose"]
    np.testing.assert_allclose(interpret(graph, inputs)[0], before, rtol=1e-5, atol=1e-6)


def test_nothing_in_the_batch():
    one = np.ones(4, np.float32)
    assert run(
        "GroupNormalizationNHWC", np.zeros((0, 2, 2, 4), np.float32), one, one, num_groups=2, domain="miniinfer"
    ).shape == (0, 2, 2, 4)
