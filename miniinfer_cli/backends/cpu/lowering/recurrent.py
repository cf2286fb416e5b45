"""LSTM and GRU with their own activations: a few calls of numpy for each time step, into memory that is there already.

Weights are turned once, so that a step is a product of rows; those of sigmoids are negated, since the exponential wants -x.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Routine, Site, lowers, shape_of
from miniinfer_cli.backends.cpu.threads import Threads
from miniinfer_cli.ir import Array, DType, numpy_dtype
from miniinfer_cli.ops.budget import current
from miniinfer_cli.ops.products import Call, in_order, multiply, pieces_of, prepare_product


@lowers("LSTM")
def lower_lstm(site: Site) -> Routine | None:
    """Gates in the order input, output, forget, cell; no peepholes, no clip."""
    net = _Net.of(site, gates=4, sigmoids=3, functions=("sigmoid", "tanh", "tanh"))
    if net is None or site.node.attrs.get("input_forget", 0) or _is_given(site, 7):
        return None
    return Routine(functools.partial(_prepare, net, _lstm_steps), scratch_nbytes=net.scratch_nbytes, tactic="steps in place")


@lowers("GRU")
def lower_gru(site: Site) -> Routine | None:
    """Gates in the order update, reset, hidden; no clip."""
    net = _Net.of(site, gates=3, sigmoids=2, functions=("sigmoid", "tanh"))
    if net is None:
        return None
    steps = _gru_steps if site.node.attrs.get("linear_before_reset", 0) else _gru_steps_reset_before
    return Routine(functools.partial(_prepare, net, steps), scratch_nbytes=net.scratch_nbytes, tactic="steps in place")


def _is_given(site: Site, number: int) -> bool:
    return number < len(site.inputs) and site.inputs[number] is not None


class _Net:
    """Sizes, and weights by direction: ``w`` ``[D, I, G*H]``, ``r`` ``[D, H, G*H]``, ``b`` and ``rb`` ``[D, G*H]`` or None."""

    def __init__(self, site: Site, gates: int, sigmoids: int, dtype: np.dtype[Any]) -> None:
        attrs = site.node.attrs
        self.dtype = dtype
        self.layout = attrs.get("layout", 0)
        x, r = shape_of(site.inputs[0]), shape_of(site.inputs[2])
        self.length, self.batch = (x[1], x[0]) if self.layout else (x[0], x[1])
        self.count, wide, self.hidden = r
        self.gates = gates
        self.backwards = [attrs.get("direction", "forward") == "reverse" or d == 1 for d in range(self.count)]
        self.threads = site.threads
        negated = sigmoids * self.hidden

        def turned(weights: Array) -> Array:
            result = np.ascontiguousarray(weights.swapaxes(1, 2)).astype(dtype)
            np.negative(result[..., :negated], out=result[..., :negated])
            return result

        def derived(number: int, key: str, make: Callable[[Array], Array]) -> Array:
            handle = site.handles[number]
            assert handle is not None
            return site.weights.derived(handle, f"{key} of {gates} gates in {dtype}", make)

        self.w, self.r = (derived(number, "recurrent", turned) for number in (1, 2))
        self.b: Array | None = None
        self.rb: Array | None = None
        if _is_given(site, 3):
            apart = bool(attrs.get("linear_before_reset", 0))  # the last gate's part of the product is scaled with its bias

            def biases(both: Array) -> Array:
                pair = both.reshape(self.count, 2, wide).astype(dtype)
                added: Array = pair.sum(axis=1)
                if apart:
                    added[:, negated:] = pair[:, 0, negated:]
                added[:, :negated] *= -1
                return added

            self.b = derived(3, f"biases {'apart' if apart else 'added'}", biases)
            if apart:
                self.rb = derived(3, "last bias", lambda both: both.reshape(self.count, 2, wide)[:, 1, negated:].astype(dtype))

    @staticmethod
    def of(site: Site, *, gates: int, sigmoids: int, functions: tuple[str, ...]) -> "_Net | None":
        """None for what the reference is to do: weights that are computed, other types and activations, a clip."""
        attrs = site.node.attrs
        dtype = site.outputs[0].dtype
        named = tuple(name.lower() for name in attrs.get("activations") or ())
        handles = (*site.handles, *(None,) * 8)
        weights = [n for n in (1, 2, 3) if n < 3 or _is_given(site, 3)]
        if dtype not in (DType.F32, DType.F64) or attrs.get("clip"):
            return None
        if any(handles[n] is None for n in weights) or named not in ((), functions, functions * 2):
            return None
        return _Net(site, gates, sigmoids, numpy_dtype(dtype))

    @property
    def wide(self) -> int:
        """Columns of all gates."""
        return self.gates * self.hidden

    @property
    def scratch_nbytes(self) -> int:
        """Projected inputs, gates and states of each direction, and a copy of the input's rows."""
        each = self.batch * (self.length * self.wide + self.wide + 2 * self.hidden)
        rows = self.length * self.batch * self.w.shape[1] if self.layout else 0
        return (self.count * each + rows) * self.dtype.itemsize


class _Direction:
    """What the steps of one direction work on: ``projected`` ``[T,N,G*H]``, ``gates`` ``[N,G*H]``; ``kept``, ``cell`` ``[N,H]``.

    ``y`` ``[T,N,H]`` takes every hidden state. ``first``: the states before the first step, None for zeros.
    """

    def __init__(self, net: _Net, number: int, y: Array, first: Sequence[Array | None], buffer: Array, within: Threads) -> None:
        shapes = [(net.length, net.batch, net.wide), (net.batch, net.wide), (net.batch, net.hidden), (net.batch, net.hidden)]
        pieces: list[Array] = []
        for shape in shapes:
            size = math.prod(shape)
            pieces.append(buffer[:size].reshape(shape))
            buffer = buffer[size:]
        self.projected, self.gates, self.kept, self.cell = pieces
        self.y, self.first = y, first
        self.lengths: Array | None = None
        self._old_cell: Array | None = None
        self.recurrence = net.r[number]
        self.last_bias = None if net.rb is None else net.rb[number]
        self.hidden = net.hidden
        self.backwards, self.order = net.backwards[number], range(0)
        alone = within.count == 1 and not pieces_of(self.kept, self.recurrence)
        by_itself = _row_product if net.batch == 1 else np.matmul
        self.product: Callable[..., Any] = by_itself if alone else functools.partial(multiply, for_each=within)

    def start(self, lengths: Array | None) -> Array:
        """The hidden state before the first step; the cell's is in ``cell`` then, where there is one.

        ``lengths`` [N] of the sequences: beyond them nothing is computed, and hidden states are 0. None: all are as long as x.
        """
        longest = len(self.y) if lengths is None else min(max(int(lengths.max(initial=0)), 0), len(self.y))
        self.y[longest:] = 0
        self.order = range(longest - 1, -1, -1) if self.backwards else range(longest)
        self.lengths = None if lengths is None or np.all(lengths >= longest) else lengths
        hidden, *others = self.first
        for cell in others:
            self.cell.fill(0) if cell is None else np.copyto(self.cell, cell)
        self._old_cell = self.cell.copy() if others and self.lengths is not None else None
        if hidden is not None and self.lengths is None:
            return hidden
        self.kept.fill(0) if hidden is None else np.copyto(self.kept, hidden)
        return self.kept

    def settle(self, t: int) -> Array:
        """The hidden state behind step ``t``. A sequence that has ended, or has not begun from behind, keeps its states."""
        y: Array = self.y[t]
        if self.lengths is None:
            return y
        outside = (t >= self.lengths)[:, None]
        np.copyto(self.kept, y, where=~outside)
        np.copyto(y, 0, where=outside)
        if self._old_cell is not None:
            np.copyto(self.cell, self._old_cell, where=outside)
            np.copyto(self._old_cell, self.cell)
        return self.kept

    def steps(self) -> Iterator[int]:
        """The time steps in their order, as long as there is time."""
        budget = current()
        for t in self.order:
            if budget is not None:
                budget.check_time()
            yield t


def _prepare(
    net: _Net, steps: Callable[[_Direction, Array], Array], inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array
) -> Call:
    """``steps`` computes one direction from the hidden state before the first step on, and gives the last one."""
    given = (*inputs, *(None,) * 8)
    x = given[0]
    axes = (1, 2, 0, 3) if net.layout else (0, 1, 2, 3)  # [N,T,D,H] as [T,D,N,H]
    y = outputs[0].transpose(axes)
    lasts = [out.swapaxes(0, 1) if net.layout else out for out in outputs[1:]]
    states = given[5:7] if net.gates == 4 else given[5:6]
    firsts = [state if state is None or not net.layout else state.swapaxes(0, 1) for state in states]
    buffer = scratch.view(net.dtype)
    calls: list[Call] = []
    rows = x
    if net.layout:
        rows, buffer = buffer[: x.size].reshape(net.length, net.batch, x.shape[-1]), buffer[x.size :]
        calls.append(functools.partial(np.copyto, rows, x.swapaxes(0, 1)))
    rows = rows.reshape(net.length * net.batch, rows.shape[-1])
    each = buffer.size // max(net.count, 1)
    together = net.count > 1 and net.threads.count > 1
    within = Threads(1) if together else net.threads

    def direction(d: int) -> Call:
        first = [None if f is None else f[d] for f in firsts]
        one = _Direction(net, d, y[:, d], first, buffer[d * each : (d + 1) * each], within)
        flat = one.projected.reshape(len(rows), net.wide)
        ready: list[Call] = [prepare_product(rows, net.w[d], flat, within)]
        if net.b is not None:
            ready.append(functools.partial(np.add, flat, net.b[d], flat))

        def run() -> None:
            for state, last in zip((steps(one, one.start(given[4])), one.cell), lasts, strict=False):
                np.copyto(last[d], state)

        return in_order(*ready, run)

    directions = [direction(d) for d in range(net.count)]
    if together:
        calls.append(functools.partial(net.threads, len(directions), lambda d: directions[d]()))
    else:
        calls += directions
    return in_order(*calls)


def _lstm_steps(one: _Direction, hidden: Array) -> Array:
    size, gates, cell = one.hidden, one.gates, one.cell
    opened, new = gates[:, : 3 * size], gates[:, 3 * size :]
    i, o, forget = (gates[:, k * size : (k + 1) * size] for k in range(3))
    for t in one.steps():
        one.product(hidden, one.recurrence, out=gates)
        np.add(gates, one.projected[t], gates)
        _open(opened)
        np.tanh(new, new)
        np.multiply(forget, cell, cell)
        np.multiply(i, new, new)
        np.add(cell, new, cell)
        np.tanh(cell, one.y[t])
        np.multiply(one.y[t], o, one.y[t])
        hidden = one.settle(t)
    return hidden


def _gru_steps(one: _Direction, hidden: Array) -> Array:
    """The reset gate behind the product."""
    size, gates, inner = one.hidden, one.gates, one.gates[:, 2 * one.hidden :]
    opened, update, reset = gates[:, : 2 * size], gates[:, :size], gates[:, size : 2 * size]
    for t in one.steps():
        projected = one.projected[t]
        one.product(hidden, one.recurrence, out=gates)
        np.add(opened, projected[:, : 2 * size], opened)
        _open(opened)
        if one.last_bias is not None:
            np.add(inner, one.last_bias, inner)
        np.multiply(inner, reset, inner)
        np.add(inner, projected[:, 2 * size :], inner)
        _next(one, t, hidden, update, inner)
        hidden = one.settle(t)
    return hidden


def _gru_steps_reset_before(one: _Direction, hidden: Array) -> Array:
    """The reset gate in front of the product."""
    size, gates, inner = one.hidden, one.gates, one.gates[:, 2 * one.hidden :]
    opened, update, reset = gates[:, : 2 * size], gates[:, :size], gates[:, size : 2 * size]
    first, second = one.recurrence[:, : 2 * size], one.recurrence[:, 2 * size :]
    for t in one.steps():
        projected = one.projected[t]
        one.product(hidden, first, out=opened)
        np.add(opened, projected[:, : 2 * size], opened)
        _open(opened)
        np.multiply(reset, hidden, one.cell)
        one.product(one.cell, second, out=inner)
        np.add(inner, projected[:, 2 * size :], inner)
        _next(one, t, hidden, update, inner)
        hidden = one.settle(t)
    return hidden


def _row_product(row: Array, matrix: Array, out: Array) -> None:
    """``np.matmul(row, matrix, out=out)`` of one row: np.dot takes a fifth less."""
    np.dot(row[0], matrix, out[0])


def _open(gates: Array) -> None:
    """The sigmoid of what is there negated."""
    np.exp(gates, gates)
    np.add(gates, gates.dtype.type(1), gates)
    np.reciprocal(gates, gates)


def _next(one: _Direction, t: int, before: Array, update: Array, inner: Array) -> None:
    """n + z (H - n), in the place of the hidden state of step ``t``."""
    np.tanh(inner, inner)
    np.subtract(before, inner, one.cell)
    np.multiply(one.cell, update, one.cell)
    np.add(inner, one.cell, one.y[t])
