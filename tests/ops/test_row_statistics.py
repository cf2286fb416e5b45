"""RowStatistics and NormalizeByStatistics: shapes, refusals, values, and what they stand for."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, TensorType, dtype_of
from miniinfer_cli.ops import OURS, insert, lookup
from miniinfer_cli.ops.interpreter import interpret
from tests.backends.nodes import assert_close

STATISTICS, NORMALIZE = lookup(OURS, "RowStatistics"), lookup(OURS, "NormalizeByStatistics")
RANDOM = np.random.default_rng(0)


def evaluate(definition: Any, *given: Any, **attrs: Any) -> Any:
    (result,) = definition.evaluate(given, attrs, n_outputs=1)
    return result


def infer(definition: Any, *types: TensorType | None, **attrs: Any) -> Any:
    (result,) = definition.infer_types(types, attrs, n_outputs=1)
    return result


def kind(dtype: DType, *shape: Any) -> TensorType:
    return TensorType(dtype, shape)


def test_shapes() -> None:
    assert str(infer(STATISTICS, kind(DType.F16, "n", 3, 192))) == "f32[n,3,3,2]"
    assert str(infer(STATISTICS, kind(DType.F64, 12), piece=4)) == "f64[3,2]"
    x, pairs, row = kind(DType.F16, "n", 128), kind(DType.F32, "n", 2, 2), kind(DType.F16, 128)
    assert infer(NORMALIZE, x, pairs, row) == infer(NORMALIZE, x, pairs, row, row) == x


@pytest.mark.parametrize("given", [((3, 100), {}), ((3, 0), {}), ((3, "n"), {}), ((), {}), ((3, 64), {"piece": 0})])
def test_rows_without_pieces(given: Any) -> None:
    shape, attrs = given
    with pytest.raises(ModelError, match="RowStatistics"):
        infer(STATISTICS, kind(DType.F32, *shape), **attrs)


@pytest.mark.parametrize(
    ("pairs", "row"),
    [
        (kind(DType.F32, 3, 2), kind(DType.F32, 128)),
        (kind(DType.F32, 3, 2, 3), kind(DType.F32, 128)),
        (kind(DType.F64, 3, 2, 2), kind(DType.F32, 128)),
        (kind(DType.F32, 4, 2, 2), kind(DType.F32, 128)),
        (kind(DType.F32, 3, 2, 2), kind(DType.F32, 64)),
        (kind(DType.F32, 3, 2, 2), kind(DType.F32, 1, 128)),
    ],
)
def test_statistics_of_other_rows(pairs: TensorType, row: TensorType) -> None:
    with pytest.raises(ModelError, match="NormalizeByStatistics"):
        infer(NORMALIZE, kind(DType.F32, 3, 128), pairs, row)


def test_values_of_statistics() -> None:
    x = RANDOM.standard_normal((2, 3, 12)) + 5
    pieces = x.reshape(2, 3, 3, 4)
    found = evaluate(STATISTICS, x, piece=4)
    np.testing.assert_allclose(found[..., 0], pieces.mean(-1), rtol=1e-12)
    np.testing.assert_allclose(found[..., 1], pieces.var(-1) * 4, rtol=1e-12)


@pytest.mark.parametrize("far", [0.0, 1e6])
def test_they_normalize_as_layers_do(far: float) -> None:
    x = RANDOM.standard_normal((5, 256)) * RANDOM.uniform(0.1, 10, (5, 1)) + far
    scale, shift = RANDOM.standard_normal((2, 256))
    statistics = evaluate(STATISTICS, x)
    (want,) = lookup("", "LayerNormalization").evaluate((x, scale, shift), {"epsilon": 0.01, "stash_type": 11}, n_outputs=1)
    np.testing.assert_allclose(evaluate(NORMALIZE, x, statistics, scale, shift, epsilon=0.01), want, rtol=1e-8, atol=1e-8)
    (want,) = lookup("", "RMSNormalization").evaluate((x, scale), {"epsilon": 0.01, "stash_type": 11}, n_outputs=1)
    np.testing.assert_allclose(evaluate(NORMALIZE, x, statistics, scale, epsilon=0.01, centred=0), want, rtol=1e-8)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("centred", [0, 1])
def test_what_they_stand_for(dtype: Any, centred: int) -> None:
    graph = Graph("main")
    x, scale, shift = (RANDOM.standard_normal(shape).astype(dtype) for shape in ((2, 3, 128), (128,), (128,)))
    inputs = [graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate((x, scale, shift))]
    statistics = insert(graph, "RowStatistics", inputs[0], domain=OURS)
    y = insert(graph, "NormalizeByStatistics", inputs[0], statistics, *inputs[1:], domain=OURS, centred=centred)
    graph.set_outputs([y, statistics])
    want = interpret(graph, [x, scale, shift])
    for node in graph.nodes:
        definition = lookup(OURS, node.op)
        assert definition.expand is not None
        graph.replace_node(node, definition.expand(graph, node))
    assert all(node.domain == "" for node in graph)
    for got, one in zip(interpret(graph, [x, scale, shift]), want, strict=True):
        assert_close(got, one)
