"""Shape rules of RNN, GRU and LSTM."""

from collections.abc import Sequence

from engine_format.dtypes import DType
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Dim, TensorType
from miniinfer_cli.ops.element_types import FLOATS, expect_dtype, same_dtype
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.recurrent_activations import activations as parse_activations
from miniinfer_cli.ops.shapes import expect_rank, same_dim

DIRECTIONS = ("forward", "reverse", "bidirectional")
DEFAULT_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "RNN": ("Tanh",),
    "GRU": ("Sigmoid", "Tanh"),
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def infer_rnn(
    x: TensorType,
    w: TensorType,
    r: TensorType,
    b: TensorType | None = None,
    sequence_lens: TensorType | None = None,
    initial_h: TensorType | None = None,
    *,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    n_outputs: int = 1,
) -> tuple[TensorType, ...]:
    """Y [T,D,N,H] and Y_h [D,N,H] for ``x`` [T,N,I] (layout 1: N first). Source: ONNX RNN-22."""
    _check_activations("RNN", activations, activation_alpha, activation_beta, clip, direction)
    return _types("RNN", x, w, r, b, sequence_lens, (initial_h,), None, direction, hidden_size, layout)[:n_outputs]


def infer_gru(
    x: TensorType,
    w: TensorType,
    r: TensorType,
    b: TensorType | None = None,
    sequence_lens: TensorType | None = None,
    initial_h: TensorType | None = None,
    *,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    n_outputs: int = 1,
) -> tuple[TensorType, ...]:
    """Y [T,D,N,H] and Y_h [D,N,H] for ``x`` [T,N,I] (layout 1: N first). Source: ONNX GRU-22."""
    _check_activations("GRU", activations, activation_alpha, activation_beta, clip, direction)
    return _types("GRU", x, w, r, b, sequence_lens, (initial_h,), None, direction, hidden_size, layout)[:n_outputs]


def infer_lstm(
    x: TensorType,
    w: TensorType,
    r: TensorType,
    b: TensorType | None = None,
    sequence_lens: TensorType | None = None,
    initial_h: TensorType | None = None,
    initial_c: TensorType | None = None,
    p: TensorType | None = None,
    *,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    n_outputs: int = 1,
) -> tuple[TensorType, ...]:
    """Y [T,D,N,H], Y_h and Y_c [D,N,H] for ``x`` [T,N,I] (layout 1: N first). Source: ONNX LSTM-22."""
    _check_activations("LSTM", activations, activation_alpha, activation_beta, clip, direction)
    return _types("LSTM", x, w, r, b, sequence_lens, (initial_h, initial_c), p, direction, hidden_size, layout)[:n_outputs]


def activation_names(op: str, names: Sequence[str] | None, direction: str) -> list[list[str]]:
    """The activation functions of each direction. Raises ModelError when there are too few or too many."""
    count, default = directions(op, direction), DEFAULT_ACTIVATIONS[op]
    if names is None:
        return [list(default)] * count
    # RNN's own default names two functions whatever the direction, so a list for both directions is taken for one as well.
    if len(names) != len(default) * count and not (op == "RNN" and len(names) == 2):
        raise ModelError(f"{op} activations {list(names)} has {len(names)} entries, {direction} needs {len(default) * count}")
    return [list(names[d * len(default) : (d + 1) * len(default)]) for d in range(count)]


def directions(op: str, direction: str) -> int:
    """How many directions ``direction`` means. Raises ModelError for an unknown one."""
    if direction not in DIRECTIONS:
        raise ModelError(f"{op} direction is {direction!r}, expected one of {', '.join(DIRECTIONS)}")
    return 2 if direction == "bidirectional" else 1


def _check_activations(
    op: str,
    names: Sequence[str] | None,
    alphas: Sequence[float] | None,
    betas: Sequence[float] | None,
    clip: float | None,
    direction: str,
) -> None:
    for group in activation_names(op, names, direction):
        parse_activations(op, group, alphas, betas, clip)


def _types(
    op: str,
    x: TensorType,
    w: TensorType,
    r: TensorType,
    b: TensorType | None,
    sequence_lens: TensorType | None,
    states: Sequence[TensorType | None],
    p: TensorType | None,
    direction: str,
    hidden_size: int | None,
    layout: int,
) -> tuple[TensorType, ...]:
    dtype = same_dtype(op, x, w, r, b, p, *states)
    expect_dtype(op, x, FLOATS)
    expect_dtype(op, sequence_lens, frozenset({DType.I32}))
    if layout not in (0, 1):
        raise ModelError(f"{op} layout is {layout}, expected 0 or 1")
    count, gates = directions(op, direction), GATES[op]
    expect_rank(op, x, 3)
    length, batch, width = x.shape or (UNKNOWN,) * 3
    if layout == 1:
        length, batch = batch, length
    hidden: Dim = hidden_size if hidden_size is not None else UNKNOWN
    if r.shape is not None and len(r.shape) == 3:
        hidden = same_dim(op, f"hidden_size against recurrence weights {r}", hidden, r.shape[2])
    state: tuple[Dim, ...] = (batch, count, hidden) if layout == 1 else (count, batch, hidden)
    expected: list[tuple[str, TensorType | None, tuple[Dim, ...]]] = [
        ("weights", w, (count, hidden * gates, width)),
        ("recurrence weights", r, (count, hidden * gates, hidden)),
        ("bias", b, (count, hidden * (2 * gates))),
        ("sequence_lens", sequence_lens, (batch,)),
        ("peepholes", p, (count, hidden * 3)),
        *(("initial state", s, state) for s in states),
    ]
    for name, operand, shape in expected:
        if operand is not None and operand.shape is not None:
            wanted = TensorType(operand.dtype, shape)
            expect_rank(f"{op} {name}", operand, len(shape))
            for got, dim in zip(operand.shape, shape, strict=True):
                same_dim(op, f"{name} {operand} against {wanted}", got, dim)
    y: tuple[Dim, ...] = (batch, length, count, hidden) if layout == 1 else (length, count, batch, hidden)
    return (TensorType(dtype, y), *(TensorType(dtype, state) for _ in states))
