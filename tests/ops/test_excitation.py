"""Excitation: shapes, refusals, values, and what it stands for."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, TensorType, dtype_of
from miniinfer_cli.ops import OURS, insert, lookup
from miniinfer_cli.ops.interpreter import interpret

EXCITATION = lookup(OURS, "Excitation")
SHAPES = ((2, 1, 1, 6), (3, 1, 1, 6), (5, 1, 1, 3), (3,), (5,))


def infer(*shapes: tuple[Any, ...] | None, dtype: DType = DType.F32, **attrs: Any) -> Any:
    (result,) = EXCITATION.infer_types([None if s is None else TensorType(dtype, s) for s in shapes], attrs, n_outputs=1)
    return result


def operands(dtype: Any = np.float64) -> list[Any]:
    random = np.random.default_rng(0)
    return [random.standard_normal(shape).astype(dtype) for shape in SHAPES]


def evaluate(*given: Any, **attrs: Any) -> Any:
    (result,) = EXCITATION.evaluate(given, attrs, n_outputs=1)
    return result


def test_shapes() -> None:
    assert infer(*SHAPES) == TensorType(DType.F32, (2, 1, 1, 5))
    assert infer((2, 1, 6), (3, 1, 6), (5, 1, 3)) == TensorType(DType.F32, (2, 1, 5))
    assert str(infer(("n", 1, 1, 6), *SHAPES[1:3], None, (5,))) == "f32[n,1,1,5]"


@pytest.mark.parametrize(
    ("shapes", "attrs", "message"),
    [
        (((2, 2, 1, 6), *SHAPES[1:]), {}, "Excitation: pixels of f32\\[2,2,1,6\\]: 2 is not 1"),
        ((SHAPES[0], (3, 1, 2, 6), *SHAPES[2:]), {}, "pixels of"),
        ((SHAPES[0], (3, 1, 1, 7), *SHAPES[2:]), {}, "6 channels"),
        ((*SHAPES[:2], (5, 1, 1, 4), *SHAPES[3:]), {}, "3 channels"),
        ((*SHAPES[:3], (4,), (5,)), {}, "4 is not 3"),
        (SHAPES, {"activation": "Tanh"}, "activation is 'Tanh', expected one of Relu, Swish, HardSwish"),
        (SHAPES, {"gate": "Relu"}, "gate is 'Relu', expected one of Sigmoid, HardSigmoid"),
    ],
)
def test_what_does_not_fit(shapes: Any, attrs: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        infer(*shapes, **attrs)


def test_values() -> None:
    x, v, w, b, c = operands()
    rows, squeeze, excite = x.reshape(2, 6), v.reshape(3, 6), w.reshape(5, 3)
    hidden = np.maximum(rows @ squeeze.T + b, 0)
    want = 1 / (1 + np.exp(-(hidden @ excite.T + c)))
    np.testing.assert_allclose(evaluate(x, v, w, b, c), want.reshape(2, 1, 1, 5), rtol=1e-12)
    hard = np.clip(np.maximum(rows @ squeeze.T, 0) @ excite.T * 0.3 + 0.25, 0, 1)
    np.testing.assert_allclose(evaluate(x, v, w, gate="HardSigmoid", alpha=0.3, beta=0.25), hard.reshape(2, 1, 1, 5), rtol=1e-12)


def test_half_widths_are_rounded_at_the_end() -> None:
    given = operands(np.float16)
    got = evaluate(*given, activation="Swish")
    want = evaluate(*(a.astype(np.float32) for a in given), activation="Swish")
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, want.astype(np.float16))


@pytest.mark.parametrize("activation", ["Relu", "Swish", "HardSwish"])
@pytest.mark.parametrize("gate", [{}, {"gate": "HardSigmoid", "alpha": 0.3}])
@pytest.mark.parametrize("left_out", [(), (3,), (4,)])
def test_what_it_stands_for(activation: str, gate: Any, left_out: Any) -> None:
    given = [None if i in left_out else a for i, a in enumerate(operands())]
    graph = Graph("g")
    values = [None if a is None else graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(given)]
    graph.set_outputs([insert(graph, "Excitation", *values, domain=OURS, activation=activation, **gate)])
    (node,) = graph
    assert EXCITATION.expand is not None
    graph.replace_node(node, EXCITATION.expand(graph, node))
    assert [n.op for n in graph] == ["ConvNHWC", activation, "ConvNHWC", gate.get("gate", "Sigmoid")]
    (got,) = interpret(graph, [a for a in given if a is not None])
    np.testing.assert_allclose(got, evaluate(*given, activation=activation, **gate), rtol=1e-12)
