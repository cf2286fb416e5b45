"""CachedAttention: shapes, refusals, values, and what it stands for."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, TensorType, dtype_of, symbol
from miniinfer_cli.ops import OURS, insert_many, lookup
from miniinfer_cli.ops.attention import attention
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.rotary import rotary_embedding
from miniinfer_cli.ops.scatter import tensor_scatter

OPERATION = lookup(OURS, "CachedAttention")
SHAPES: tuple[tuple[Any, ...], ...] = (
    *((2, 4, 3, 8), (2, 2, 3, 8), (2, 2, 3, 6)),
    *((2, 2, 9, 8), (2, 2, 9, 6), (2,), (2,), (2, 3, 4), (2, 3, 4)),
)


def infer(*exchanged: tuple[int, tuple[Any, ...]], **attrs: Any) -> Any:
    shapes = dict(enumerate(SHAPES)) | dict(exchanged)
    types = [TensorType(DType.I64 if i in (5, 6, 9) else DType.F32, s) for i, s in shapes.items()]
    return OPERATION.infer_types(types, attrs, n_outputs=3)


def operands(dtype: Any = np.float64) -> list[Any]:
    random = np.random.default_rng(0)
    given = [random.standard_normal(s).astype(dtype) for s in SHAPES]
    given[5], given[6] = np.array([0, 5]), np.array([3, 8])
    return given


def test_types() -> None:
    assert [str(t) for t in infer()] == ["f32[2,4,3,6]", "f32[2,2,9,8]", "f32[2,2,9,6]"]
    n = symbol("n")
    fresh = ((4, 1, 8), (2, 1, 8), (2, 1, 6), (2, 9, 8), (2, 9, 6), (), (), (1, 4), (1, 4))
    named = infer(*((i, (n, *sizes)) for i, sizes in enumerate(fresh)))
    assert [str(t) for t in named] == ["f32[n,4,1,6]", "f32[n,2,9,8]", "f32[n,2,9,6]"]


@pytest.mark.parametrize(
    ("exchanged", "message"),
    [
        ((0, (2, 3, 32)), "CachedAttention .*rank"),
        ((1, (2, 2, 10, 8)), "is longer than the cache"),
        ((3, (2, 2, 9, 6)), "dimension 3 of cache"),
        ((4, (2, 2, 8, 6)), "sequence lengths of K and V differ"),
        ((6, (2, 1)), "expects lengths of rank 1"),
        ((7, (2, 3, 3)), "turns 8 elements"),
        ((7, (9, 4)), "expects cos_cache of rank 3"),
    ],
)
def test_what_does_not_fit(exchanged: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        infer(exchanged)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("attrs", [{}, {"left_window_size": 2}, {"softcap": 1.5, "scale": 0.3}])
def test_values_are_those_of_what_it_joins(interleaved: int, attrs: Any) -> None:
    q, k, v, past_key, past_value, at, seen, cos, sin = given = operands()
    got = OPERATION.evaluate(given, {"interleaved": interleaved, **attrs}, n_outputs=3)
    turned = [rotary_embedding(x, cos, sin, interleaved=interleaved) for x in (q, k)]
    keys, values = tensor_scatter(past_key, turned[1], at, axis=2), tensor_scatter(past_value, v, at, axis=2)
    (y,) = attention(turned[0], keys, values, nonpad_kv_seqlen=seen, is_causal=1, **attrs)
    for one, other in zip(got, (y, keys, values), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "attrs", [{}, {"interleaved": 1, "left_window_size": 2, "softcap": 1.5, "scale": 0.3, "nan_rows": "keep"}]
)
@pytest.mark.parametrize("ids", [False, True])
def test_what_it_expands_to_computes_the_same(attrs: Any, ids: bool) -> None:
    given = operands()
    if ids:
        given[7], given[8] = (np.random.default_rng(i).standard_normal((11, 4)) for i in range(2))
        given.append(np.array([[0, 1, 2], [8, 9, 10]]))
    graph = Graph("whole")
    values = [graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(given)]
    graph.set_outputs(insert_many(graph, "CachedAttention", *values, n_outputs=3, domain=OURS, **attrs))
    want = interpret(graph, given)
    (node,) = graph.nodes
    assert OPERATION.expand is not None
    made = OPERATION.expand(graph, node)
    assert made is not None
    graph.replace_node(node, made)
    assert sorted(n.op for n in graph) == ["Attention", "RotaryEmbedding", "RotaryEmbedding", "TensorScatter", "TensorScatter"]
    for one, other in zip(interpret(graph, given), want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
