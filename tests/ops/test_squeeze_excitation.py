"""SqueezeExcitation: shapes, refusals, values, and what it stands for."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, TensorType, dtype_of
from miniinfer_cli.ops import OURS, insert, lookup
from miniinfer_cli.ops.interpreter import interpret

SQUEEZE_EXCITATION = lookup(OURS, "SqueezeExcitation")
SHAPES = ((2, 4, 3, 6), (3, 1, 1, 6), (6, 1, 1, 3), (3,), (6,))


def infer(*shapes: tuple[Any, ...] | None, **attrs: Any) -> Any:
    given = [None if s is None else TensorType(DType.F32, s) for s in shapes]
    (result,) = SQUEEZE_EXCITATION.infer_types(given, attrs, n_outputs=1)
    return result


def operands(dtype: Any = np.float64) -> list[Any]:
    random = np.random.default_rng(0)
    return [random.standard_normal(shape).astype(dtype) for shape in SHAPES]


def evaluate(*given: Any, **attrs: Any) -> Any:
    (result,) = SQUEEZE_EXCITATION.evaluate(given, attrs, n_outputs=1)
    return result


def test_shapes() -> None:
    assert infer(*SHAPES) == TensorType(DType.F32, SHAPES[0])
    assert infer((2, 4, 6), (3, 1, 6), (6, 1, 3)) == TensorType(DType.F32, (2, 4, 6))
    assert str(infer(("n", "h", 1, 6), *SHAPES[1:3], None, (6,))) == "f32[n,h,1,6]"


@pytest.mark.parametrize(
    ("shapes", "attrs", "message"),
    [
        ((SHAPES[0], (3, 1, 1, 7), *SHAPES[2:]), {}, "6 channels"),
        ((*SHAPES[:2], (5, 1, 1, 3), (3,), (5,)), {}, "channels of f32\\[2,4,3,6\\]: 6 is not 5"),
        ((*SHAPES[:3], (4,), (6,)), {}, "4 is not 3"),
        (SHAPES, {"activation": "Tanh"}, "activation is 'Tanh', expected one of Relu, Swish, HardSwish"),
        (SHAPES, {"gate": "Relu"}, "gate is 'Relu', expected one of Sigmoid, HardSigmoid"),
    ],
)
def test_what_does_not_fit(shapes: Any, attrs: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        infer(*shapes, **attrs)


def test_values() -> None:
    x, v, w, b, c = operands()
    hidden = np.maximum(x.mean(axis=(1, 2)) @ v.reshape(3, 6).T + b, 0)
    gates = 1 / (1 + np.exp(-(hidden @ w.reshape(6, 3).T + c)))
    np.testing.assert_allclose(evaluate(x, v, w, b, c), x * gates[:, None, None], rtol=1e-12)


def test_half_widths_are_rounded_once() -> None:
    given = operands(np.float16)
    want = evaluate(*(a.astype(np.float32) for a in given))
    np.testing.assert_array_equal(evaluate(*given), want.astype(np.float16))


@pytest.mark.parametrize("attrs", [{}, {"activation": "Swish"}, {"gate": "HardSigmoid", "alpha": 0.25, "beta": 0.375}])
@pytest.mark.parametrize("biases", [(3, 4), (4,), ()])
def test_it_is_a_pool_an_excitation_and_a_product(attrs: Any, biases: tuple[int, ...]) -> None:
    given = [a for i, a in enumerate(operands()) if i < 3 or i in biases]
    graph = Graph("g")
    values = [graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(given)]
    listed = iter(values)
    read = [next(listed) if i < 3 or i in biases else None for i in range(5)]
    whole = insert(graph, "SqueezeExcitation", *read, domain=OURS, **attrs)
    assert whole.producer is not None and SQUEEZE_EXCITATION.expand is not None
    parts = SQUEEZE_EXCITATION.expand(graph, whole.producer)
    graph.set_outputs([whole, *parts])
    assert [n.op for n in graph] == ["GlobalAveragePoolNHWC", "Excitation", "Mul", "SqueezeExcitation"]
    one, other = interpret(graph, given)
    np.testing.assert_allclose(one, other, rtol=1e-12)
