"""LSTM and GRU on the CPU beside their references."""

from typing import Any

import numpy as np
import pytest

from tests.backends.cpu.lowering.one_node import check_op
from tests.backends.cpu.lowering.test_matmul import normal

WEIGHTS = (1, 2, 3)


def operands(
    gates: int, *, length: int = 5, batch: int = 3, count: int = 1, layout: int = 0, dtype: Any = np.float32
) -> list[Any]:
    """x, w, r, b, no lengths, initial_h."""
    wide, hidden = gates * 6, 6
    x, first = normal(length, batch, 4, dtype=dtype), normal(count, batch, hidden, dtype=dtype)
    if layout:
        x, first = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (x, first))
    w, r, b = (normal(count, wide, n, dtype=dtype) for n in (4, hidden, 2))
    return [x, w, r, b.reshape(count, 2 * wide), None, first]


def check(
    op: str, *given: Any, tactic: str = "steps in place", n_outputs: int = 0, constants: Any = WEIGHTS, **attrs: Any
) -> None:
    states = 3 if op == "LSTM" else 2
    check_op(
        op, *given, tactic=tactic, n_outputs=n_outputs or states, constants=constants, hidden_size=6, tolerance=1e-5, **attrs
    )


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize(
    ("op", "attrs"), [("LSTM", {}), ("GRU", {"linear_before_reset": 0}), ("GRU", {"linear_before_reset": 1})]
)
def test_directions_and_layouts(op: str, attrs: dict[str, Any], direction: str, layout: int) -> None:
    count = 2 if direction == "bidirectional" else 1
    given = operands(4 if op == "LSTM" else 3, count=count, layout=layout)
    if op == "LSTM":
        given.append(given[5] * np.float32(0.5))
    check(op, *given, direction=direction, layout=layout, **attrs)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_operands_left_out(op: str, gates: int, dtype: Any) -> None:
    x, w, r, b, _, first = operands(gates, dtype=dtype)
    check(op, x, w, r, constants=(1, 2))
    if op == "GRU":
        check(op, x, w, r, constants=(1, 2), linear_before_reset=1)
    check(op, x, w, r, b)
    check(op, x, w, r, None, None, first, constants=(1, 2), n_outputs=1)
    check(op, x[:1, :1], w, r, b, n_outputs=2)


@pytest.mark.parametrize(("op", "gates", "names"), [("LSTM", 4, ["Sigmoid", "Tanh", "Tanh"]), ("GRU", 3, ["Sigmoid", "Tanh"])])
def test_activations(op: str, gates: int, names: list[str]) -> None:
    x, w, r, b, _, _ = operands(gates)
    check(op, x, w, r, b, activations=names, clip=0.0)
    check(op, x, w, r, b, activations=[*names[:-1], "Relu"], tactic="reference")
    check(op, x * np.float32(1e4), w, r, b)  # gates that are 0 and 1


@pytest.mark.parametrize("lengths", [[5, 2, 0], [3, 3, 3], [0, 0, 0], [5, 5, 5], [-1, 9, 4]])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("op", "attrs"), [("LSTM", {}), ("GRU", {"linear_before_reset": 0}), ("GRU", {"linear_before_reset": 1})]
)
def test_sequences_of_several_lengths(op: str, attrs: dict[str, Any], direction: str, lengths: list[int]) -> None:
    """Beyond a sequence's end hidden states are 0 and states stay; from behind, it begins at its end."""
    x, w, r, b, _, first = operands(4 if op == "LSTM" else 3, count=2 if direction == "bidirectional" else 1)
    given = np.asarray(lengths, np.int32)
    states = [first, first * np.float32(0.5)] if op == "LSTM" else [first]
    check(op, x, w, r, b, given, *states, direction=direction, **attrs)
    check(op, x, w, r, b, given, direction=direction, **attrs)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_what_is_left_to_the_reference(op: str, gates: int) -> None:
    x, w, r, b, _, _ = operands(gates)
    check(op, x, w, r, b, clip=0.5, tactic="reference")
    check(op, x, w, r, b, constants=(1, 2), tactic="reference")
    check(op, x, w, r, b, constants=(1, 3), tactic="reference")
    half = [a.astype(np.float16) for a in (x, w, r, b)]
    check_op(op, *half, constants=WEIGHTS, hidden_size=6, tactic="reference", n_outputs=1)


def test_gates_that_an_lstm_alone_has() -> None:
    x, w, r, b, _, first = operands(4)
    check("LSTM", x, w, r, b, None, first, first, normal(1, 18), tactic="reference")
    check("LSTM", x, w, r, b, input_forget=1, tactic="reference")
