"""RotaryAttention: shapes, refusals, values, and what it stands for."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, TensorType, dtype_of
from miniinfer_cli.ops import OURS, insert, lookup
from miniinfer_cli.ops.attention import attention
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.rotary import rotary_embedding

OPERATION = lookup(OURS, "RotaryAttention")
HEADS = {"q_num_heads": 4, "kv_num_heads": 2}
MERGED = ((2, 5, 32), (2, 5, 16), (2, 5, 16))
APART = ((2, 4, 5, 8), (2, 2, 5, 8), (2, 2, 5, 8))
ANGLES = ((2, 5, 4), (2, 5, 4), None)
PICKED = ((9, 4), (9, 4), (2, 5))


def infer(*shapes: tuple[Any, ...] | None, n_outputs: int = 1, **attrs: Any) -> Any:
    types = [None if s is None else TensorType(DType.I64 if s == (2, 5) else DType.F32, s) for s in shapes]
    return OPERATION.infer_types(types, attrs, n_outputs=n_outputs)


def operands(*shapes: tuple[int, ...] | None, dtype: Any = np.float64) -> list[Any]:
    random = np.random.default_rng(0)

    def drawn(shape: tuple[int, ...]) -> Any:
        return random.integers(0, 9, shape) if shape == (2, 5) else random.standard_normal(shape).astype(dtype)

    return [None if s is None else drawn(s) for s in shapes]


def evaluate(given: Any, n_outputs: int = 1, **attrs: Any) -> Any:
    return OPERATION.evaluate(given, attrs, n_outputs=n_outputs)


NOTHING = (None,) * 4


def test_shapes() -> None:
    assert infer(*MERGED, *NOTHING, *ANGLES, *PICKED, **HEADS) == (TensorType(DType.F32, (2, 5, 32)),)
    assert infer(*APART, *NOTHING, *ANGLES, n_outputs=3)[1] == TensorType(DType.F32, (2, 2, 5, 8))
    assert infer(*APART) == (TensorType(DType.F32, (2, 4, 5, 8)),)


@pytest.mark.parametrize(
    ("shapes", "attrs", "message"),
    [
        ((*APART, *NOTHING, (2, 5, 4)), {}, "takes q_cos and q_sin together, and q_ids with both"),
        ((*APART, *NOTHING, None, None, (2, 5)), {}, "q_ids with both"),
        ((*APART, *NOTHING, *ANGLES, None, (2, 5, 4)), {}, "takes k_cos and k_sin together"),
        ((*APART, *NOTHING, *ANGLES), {"rotary_embedding_dim": 6}, "turns 6 elements of each head"),
        ((*APART, *NOTHING, (9, 4), (9, 4), None), {}, "rank 3 without position_ids"),
        (MERGED, {}, "q_num_heads"),
    ],
)
def test_what_does_not_fit(shapes: Any, attrs: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        infer(*shapes, **attrs)


FORMS = [
    ((*MERGED, *NOTHING, *ANGLES, *PICKED), HEADS),
    ((*APART, *NOTHING, *PICKED), {"interleaved": 1, "is_causal": 1}),
    ((*APART, (5, 5), None, None, None, None, None, None, *ANGLES), {"scale": 0.3}),
    ((*APART, None, (2, 2, 3, 8), (2, 2, 3, 8), None, (2, 5, 2), (2, 5, 2), None), {"rotary_embedding_dim": 4, "is_causal": 1}),
]


@pytest.mark.parametrize(("shapes", "attrs"), FORMS)
def test_values(shapes: Any, attrs: dict[str, Any]) -> None:
    given = operands(*shapes)
    turning = {k: v for k, v in attrs.items() if k in ("interleaved", "rotary_embedding_dim")}
    rest = {k: v for k, v in attrs.items() if k not in turning}
    q, k = given[:2]
    angles = (*given[7:], *NOTHING, *NOTHING)[:6]
    if angles[0] is not None:
        q = rotary_embedding(q, *angles[:3], num_heads=attrs.get("q_num_heads", 0), **turning)
    if angles[3] is not None:
        k = rotary_embedding(k, *angles[3:], num_heads=attrs.get("kv_num_heads", 0), **turning)
    want = attention(q, k, *given[2:7], n_outputs=3, **rest)
    for got, wanted in zip(evaluate(given, 3, **attrs), want, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_half_widths_are_rounded_when_they_are_turned() -> None:
    given = operands(*APART, *NOTHING, *ANGLES, dtype=np.float16)
    turned = rotary_embedding(given[0], *given[7:10])
    assert turned.dtype == np.float16
    np.testing.assert_array_equal(evaluate(given)[0], attention(turned, *given[1:3])[0])


@pytest.mark.parametrize(("shapes", "attrs"), FORMS)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_what_it_stands_for(shapes: Any, attrs: dict[str, Any], n_outputs: int) -> None:
    given = operands(*shapes)
    graph = Graph("g")
    values = [None if a is None else graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(given)]
    outputs = [graph.new_value(f"y{n}") for n in range(n_outputs)]
    node = graph.add_node("RotaryAttention", values, outputs, domain=OURS, attrs=attrs)
    assert OPERATION.expand is not None
    graph.set_outputs(list(OPERATION.expand(graph, node)))
    graph.remove(node)
    assert {n.op for n in graph} == {"RotaryEmbedding", "Attention"}
    for got, want in zip(interpret(graph, [a for a in given if a is not None]), evaluate(given, n_outputs, **attrs), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_node_of_it_in_a_graph() -> None:
    given = operands(*MERGED, *NOTHING, *ANGLES)
    graph = Graph("g")
    values = [None if a is None else graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(given)]
    graph.set_outputs([insert(graph, "RotaryAttention", *values, domain=OURS, **HEADS)])
    (got,) = interpret(graph, [a for a in given if a is not None])
    np.testing.assert_array_equal(got, evaluate(given, **HEADS)[0])
