"""RNN, GRU and LSTM: references.

Each direction is one product of all time steps with the input weights, then one product per step with the recurrence
weights. Inside, a direction works on [T,N,...] and one state array [N,H] (two for LSTM).
"""

from collections.abc import Callable, Sequence

import numpy as np

from miniinfer_cli.ir import Array
from miniinfer_cli.ops.budget import check_time
from miniinfer_cli.ops.flops import recurrent_flops
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.products import ForEach, multiply
from miniinfer_cli.ops.recurrent_activations import Activation
from miniinfer_cli.ops.recurrent_activations import activations as parse_activations
from miniinfer_cli.ops.recurrent_shapes import activation_names, directions, infer_gru, infer_lstm, infer_rnn
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.work import recurrent_work

States = tuple[Array, ...]
Step = Callable[[Array, States], States]
"""One time step: the projected input [N,gates*H] and the states before it give the states after it, hidden first."""


@widen_half
def rnn(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    n_outputs: int = 1,
    for_each: ForEach | None = None,
) -> tuple[Array, ...]:
    """H = f(X W^T + H R^T + b)."""
    functions = _functions("RNN", activations, activation_alpha, activation_beta, clip, direction)

    def make_step(d: int, within: ForEach | None) -> tuple[Array | None, Step]:
        (f,) = functions[d]

        def step(projected: Array, states: States) -> States:
            return (f(projected + multiply(states[0], r[d].T, for_each=within)),)

        return _summed_bias(b, d), step

    return _run(x, w, r, sequence_lens, (initial_h,), make_step, direction, layout, for_each)[:n_outputs]


@widen_half
def gru(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
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
    for_each: ForEach | None = None,
) -> tuple[Array, ...]:
    """H = (1 - z) h + z H, where h sees the reset H before, or after, its product with the recurrence weights."""
    functions = _functions("GRU", activations, activation_alpha, activation_beta, clip, direction)
    h = r.shape[-1]

    def make_step(d: int, within: ForEach | None) -> tuple[Array | None, Step]:
        f, g = functions[d]
        bias = _summed_bias(b, d)
        recurrent_bias = None
        if linear_before_reset and b is not None and bias is not None:
            recurrent_bias = b[d, 5 * h :]
            bias[2 * h :] = b[d, 2 * h : 3 * h]

        def step(projected: Array, states: States) -> States:
            (before,) = states
            if linear_before_reset:
                recurrent = multiply(before, r[d].T, for_each=within)
                gates = f(projected[:, : 2 * h] + recurrent[:, : 2 * h])
                inner = recurrent[:, 2 * h :]
                if recurrent_bias is not None:
                    inner = inner + recurrent_bias
                inner = gates[:, h:] * inner
            else:
                gates = f(projected[:, : 2 * h] + multiply(before, r[d, : 2 * h].T, for_each=within))
                inner = multiply(gates[:, h:] * before, r[d, 2 * h :].T, for_each=within)
            update = gates[:, :h]
            new = g(projected[:, 2 * h :] + inner)
            return (new + update * (before - new),)

        return bias, step

    return _run(x, w, r, sequence_lens, (initial_h,), make_step, direction, layout, for_each)[:n_outputs]


@widen_half
def lstm(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    p: Array | None = None,
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
    for_each: ForEach | None = None,
) -> tuple[Array, ...]:
    """C = f C + i c, H = o h(C); gates in the order input, output, forget, cell; peepholes look at C."""
    functions = _functions("LSTM", activations, activation_alpha, activation_beta, clip, direction)
    # ONNX clips "the input of activations"; like ONNX Runtime we take that for the gates and leave h(C) alone.
    unclipped = _functions("LSTM", activations, activation_alpha, activation_beta, None, direction)
    size = r.shape[-1]

    def make_step(d: int, within: ForEach | None) -> tuple[Array | None, Step]:
        (f, g, _), (_, _, h) = functions[d], unclipped[d]
        peepholes = None if p is None else p[d].reshape(3, size)

        def step(projected: Array, states: States) -> States:
            hidden, cell = states
            gates = multiply(hidden, r[d].T, for_each=within)
            gates += projected
            c = g(gates[:, 3 * size :])
            if peepholes is None:  # then the three other gates, which lie side by side, are taken at once
                opened = f(gates[:, : 3 * size])
                i, o, forget = (opened[:, k * size : (k + 1) * size] for k in range(3))
                new = (1 - i if input_forget else forget) * cell
                new += i * c
                return o * h(new), new
            i, o, forget = (gates[:, k * size : (k + 1) * size] for k in range(3))
            peep_i, peep_o, peep_f = peepholes
            i = f(i + peep_i * cell)
            forget = 1 - i if input_forget else f(forget + peep_f * cell)
            new = forget * cell + i * c
            return f(o + peep_o * new) * h(new), new

        return _summed_bias(b, d), step

    return _run(x, w, r, sequence_lens, (initial_h, initial_c), make_step, direction, layout, for_each)[:n_outputs]


def _run(
    x: Array,
    w: Array,
    r: Array,
    sequence_lens: Array | None,
    initial: Sequence[Array | None],
    make_step: Callable[[int, ForEach | None], tuple[Array | None, Step]],
    direction: str,
    layout: int,
    for_each: ForEach | None,
) -> tuple[Array, ...]:
    """Runs every direction and lays the outputs out: Y, then the last state of each kind."""
    if layout:
        x = x.swapaxes(0, 1)
        initial = [None if s is None else s.swapaxes(0, 1) for s in initial]
    length, batch, width = x.shape
    count, hidden = w.shape[0], r.shape[-1]
    y = np.zeros((length, count, batch, hidden), x.dtype)
    last = [np.zeros((count, batch, hidden), x.dtype) for _ in initial]
    rows = np.ascontiguousarray(x).reshape(length * batch, width)

    def run(d: int, within: ForEach | None) -> None:
        backwards = direction == "reverse" or d == 1
        bias, step = make_step(d, within)
        projected = multiply(rows, w[d].T, for_each=within).reshape(length, batch, w.shape[1])
        if bias is not None:
            projected += bias
        states: States = tuple(np.zeros((batch, hidden), x.dtype) if s is None else s[d] for s in initial)
        with np.errstate(all="ignore"):  # infinities arise in sigmoids, and where a network diverges
            for t in reversed(range(length)) if backwards else range(length):
                check_time()
                after = step(projected[t], states)
                if sequence_lens is None:
                    states, y[t, d] = after, after[0]
                else:  # a sequence that has ended, or not begun when walking backwards, keeps its state and outputs zeros
                    inside = (t < sequence_lens)[:, None]
                    states = tuple(np.where(inside, new, old) for new, old in zip(after, states, strict=True))
                    y[t, d] = np.where(inside, after[0], 0)
        for kept, state in zip(last, states, strict=True):
            kept[d] = state

    if for_each is not None and for_each.count > 1 and count > 1:
        for_each(count, lambda d: run(d, None))
    else:
        for d in range(count):
            run(d, for_each)
    if layout:
        return (np.ascontiguousarray(y.transpose(2, 0, 1, 3)), *(np.ascontiguousarray(s.swapaxes(0, 1)) for s in last))
    return (y, *last)


def _functions(
    op: str,
    names: Sequence[str] | None,
    alphas: Sequence[float] | None,
    betas: Sequence[float] | None,
    clip: float | None,
    direction: str,
) -> list[list[Activation]]:
    """The activation functions of each direction; alphas and betas run on from the first direction to the second."""
    groups = activation_names(op, names, direction)
    functions = parse_activations(op, [name for group in groups for name in group], alphas, betas, clip)
    per_direction = len(functions) // directions(op, direction)
    return [functions[d * per_direction : (d + 1) * per_direction] for d in range(len(groups))]


def _summed_bias(b: Array | None, d: int) -> Array | None:
    """The input's and the recurrence's bias of direction ``d`` added up; a fresh array."""
    return None if b is None else b[d].reshape(2, -1).sum(axis=0)


RNN = define("RNN", infer=infer_rnn, reference=rnn, work=recurrent_work, heavy=True, flops=recurrent_flops)
GRU = define("GRU", infer=infer_gru, reference=gru, work=recurrent_work, heavy=True, flops=recurrent_flops)
LSTM = define("LSTM", infer=infer_lstm, reference=lstm, work=recurrent_work, heavy=True, flops=recurrent_flops)
