"""RNN, GRU and LSTM: one product of all time steps with the input weights, then the steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.grids import BLOCK, blocks_for, launch_over, power_of_two_from
from miniinfer_cli.backends.cuda.launching.product_records import Axis, Operands, Product
from miniinfer_cli.backends.cuda.launching.products import solve
from miniinfer_cli.backends.cuda.site import Site, lowers
from miniinfer_cli.backends.cuda.steps import (
    NULL,
    Action,
    Argument,
    Copy,
    Fill,
    Kernel,
    Launch,
    Lowered,
    Once,
    Operand,
    Repeat,
    Round,
    flat,
)
from miniinfer_cli.backends.cuda.target import Target
from miniinfer_cli.backends.cuda.types import c_type, computed_type, element_nbytes
from miniinfer_cli.ir import DType, numpy_dtype
from miniinfer_cli.ops.recurrent_activations import clip_bound
from miniinfer_cli.ops.recurrent_shapes import GATES, activation_names

_NETS = ("RNN", "GRU", "LSTM")
# In the order of recurrent_cell.cuh, with the defaults of alpha and beta; None where a function has none.
_FUNCTIONS: dict[str, tuple[float | None, float | None]] = {
    "relu": (None, None),
    "tanh": (None, None),
    "sigmoid": (None, None),
    "softsign": (None, None),
    "softplus": (None, None),
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01, None),
    "thresholdedrelu": (1.0, None),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, None),
}
_CACHED_NBYTES = 256 << 10  # recurrence weights of one direction that one multiprocessor reads in a step fast enough
_SHARED_NBYTES = 48 << 10
_MANY_ROWS = 16  # sequences from which on a matrix product beats warps that read the weights once for every 8 of them


@lowers("RNN", "GRU", "LSTM")
def lower_recurrent(site: Site) -> Lowered:
    """Small weights: every step in one launch. Few sequences: a launch for each step; many: a product and a launch."""
    net = _Net(site)
    if 0 in (net.batch, net.hidden):
        return Lowered(())
    if net.length == 0:
        return Lowered(tuple(net.untouched()))
    work = _Work(site.target)
    projected = work.buffer(net.length * net.batch * net.directions * net.gates * net.hidden * net.item)
    work.multiply(net.projection(), Operands(Operand.input(0), Operand.input(1), projected))
    rows = _rows_per_block(net, site.target)
    if net.weights_nbytes <= _CACHED_NBYTES and net.states * rows * net.hidden * net.item <= _SHARED_NBYTES:
        work.actions.append(_whole(net, projected, rows))
        return work.lowered("in one launch")
    if net.batch < _MANY_ROWS:
        _steps(net, work, projected)
        return work.lowered("step by step")
    _products(net, work, projected)
    return work.lowered("by products")


class _Net:
    """The node in numbers."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.op = site.node.op
        self.gates = GATES[self.op]
        self.dtype = site.dtype()
        self.layout = int(site.attr("layout", 0))
        first, second, self.width = site.shape(0)
        self.length, self.batch = (second, first) if self.layout else (first, second)
        self.directions, _, self.hidden = site.shape(2)
        self.acc = DType(computed_type(self.dtype))
        self.item = element_nbytes(self.acc)
        self.linear_before_reset = bool(site.attr("linear_before_reset", 0))
        self.states = {"RNN": 2, "GRU": 4, "LSTM": 3}[self.op]

    @property
    def weights_nbytes(self) -> int:
        """Bytes of one direction's recurrence weights."""
        return self.gates * self.hidden * self.hidden * element_nbytes(self.dtype)

    @property
    def phases(self) -> tuple[int, ...]:
        """What a step is done in: at once, or the gates and then the candidate."""
        return (1, 2) if self.op == "GRU" and not self.linear_before_reset else (0,)

    @property
    def state_count(self) -> int:
        """Elements of a state of all directions and sequences."""
        return self.directions * self.batch * self.hidden

    def projection(self) -> Product:
        """The product of all time steps with the input weights of all directions."""
        columns = self.directions * self.gates * self.hidden
        types = self.dtype, self.dtype, self.acc
        return Product(self.length * self.batch, columns, self.width, *types, False, True, self.width, self.width, columns)

    def kernel(self, name: str, file: str, rows: int = 0) -> Kernel:
        """A kernel; ``rows``: sequences of a warp, for kernels that read the recurrence weights."""
        defines = {"MI_NET": str(_NETS.index(self.op)), "MI_T": c_type(self.dtype), "MI_ACC": c_type(self.acc)}
        if rows:
            largest = 16 // element_nbytes(self.dtype)
            defines |= {"MI_ROWS": str(rows), "MI_PACK": str(largest if self.hidden % largest == 0 else 1)}
        return Kernel(name, file, tuple(defines.items()))

    def initial(self) -> tuple[Argument, Argument]:
        """The states before the first step."""
        return self.site.operand(5), self.site.operand(6)

    def sizes(self) -> "np.ndarray":
        """The struct Sizes."""
        reverse = self.site.attr("direction", "forward") == "reverse"
        flags = reverse, self.linear_before_reset, self.site.attr("input_forget", 0)
        return np.array([self.length, self.batch, self.hidden, self.directions, *map(int, flags)], np.int32)

    def distances(self) -> "np.ndarray":
        """The struct Distances."""
        h, d, n, t = self.hidden, self.directions, self.batch, self.length
        columns = d * self.gates * h
        if self.layout:
            return np.array([columns, t * columns, d * h, t * d * h, h, h, d * h], np.int64)
        return np.array([n * columns, columns, d * n * h, h, n * h, n * h, h], np.int64)

    def arguments(self, projected: Operand) -> tuple[Argument, ...]:
        """What every kernel of a step begins with."""
        number = numpy_dtype(self.acc).type
        names = activation_names(self.op, self.site.attr("activations"), self.site.attr("direction", "forward"))
        flat = [name for group in names for name in group]
        code, alpha, beta = _functions(flat, self.site.attr("activation_alpha"), self.site.attr("activation_beta"))
        clip = clip_bound(self.op, self.site.attr("clip"))
        parameters = np.array([*alpha, *beta, math.inf if clip is None else clip], number)
        bias, lengths, peepholes = (self.site.operand(i) for i in (3, 4, 7))
        return (
            *(projected, bias, peepholes, lengths, *(self.site.result(i) for i in range(3))),
            *(self.sizes(), self.distances(), np.array(code, np.int32), parameters),
        )

    def untouched(self) -> list[Action]:
        """No time steps: the last states are the first."""
        actions: list[Action] = []
        for number, first in enumerate(self.initial()[: 2 if self.op == "LSTM" else 1], 1):
            last = self.site.result(number)
            nbytes = self.state_count * element_nbytes(self.dtype)
            if isinstance(last, Operand):
                actions.append(Copy(last, first, nbytes) if isinstance(first, Operand) else Fill(last, 0, nbytes))
        return actions


@dataclass
class _Work:
    """Actions and scratch buffers as they come together."""

    target: Target

    def __post_init__(self) -> None:
        self.actions: list[Action] = []
        self.scratch: list[int] = []
        self.tactics: list[str] = []

    def buffer(self, nbytes: int) -> Operand:
        """A new scratch buffer."""
        self.scratch.append(nbytes)
        return Operand.scratch(len(self.scratch) - 1)

    def multiply(self, product: Product, operands: Operands) -> None:
        """Adds a product."""
        solution = solve(product, operands, self.target, len(self.scratch))
        if solution is None:
            raise ValueError(f"a size of {product} is beyond an int")
        self.actions += solution.actions
        self.scratch += solution.scratch
        if solution.tactic not in self.tactics:
            self.tactics.append(solution.tactic)

    def lowered(self, steps: str) -> Lowered:
        """All of it, with a name."""
        return Lowered(tuple(self.actions), tuple(self.scratch), tactic=f"{', '.join(self.tactics)}, then {steps}")


def _whole(net: _Net, projected: Operand, rows: int) -> Launch[Operand]:
    arguments = (*net.arguments(projected), Operand.input(2), *net.initial())
    grid = (-(-net.batch // rows), net.directions)
    shared = net.states * rows * net.hidden * net.item
    return Launch(net.kernel("recurrent_all", "recurrent_all.cu", rows), grid, (32, min(16, net.hidden)), arguments, shared)


def _steps(net: _Net, work: _Work, projected: Operand) -> None:
    rows = min(8, power_of_two_from(net.batch))
    states = work.buffer(net.states * net.state_count * net.item)
    work.actions.append(_start(net, work.target, states, NULL))
    grid = (-(-net.hidden // 8), min(-(-net.batch // rows), 65535), net.directions)
    kernel, arguments = net.kernel("recurrent_step", "recurrent_step.cu", rows), net.arguments(projected)
    tails = [(Operand.input(2), states, Round(), np.int32(phase)) for phase in net.phases]
    work.actions.append(Repeat(net.length, tuple(Launch(kernel, grid, (32, 8), (*arguments, *tail)) for tail in tails)))


def _products(net: _Net, work: _Work, projected: Operand) -> None:
    """The recurrence's sums by a product, which takes states of the net's own type."""
    states = work.buffer(net.states * net.state_count * net.item)
    narrow: Argument = NULL
    if net.dtype != net.acc:
        narrow = work.buffer(2 * net.state_count * element_nbytes(net.dtype))
    sums = work.buffer(net.gates * net.state_count * net.item)
    work.actions.append(_start(net, work.target, states, narrow))
    kernel, arguments = net.kernel("recurrent_cells", "recurrent_cells.cu"), net.arguments(projected)
    grid = (blocks_for(net.state_count, work.target.multiprocessors),)
    nbytes = net.state_count * net.item
    partial: list[int] = []

    def step(number: Round | np.int32, parity: int) -> list[Once[Operand]]:
        """The actions of a time step. The two arrays of h take turns, so every other step is the same."""
        actions: list[Once[Operand]] = []
        for phase in net.phases:
            left = Operand.scratch(states.number, parity * nbytes if phase < 2 else 3 * nbytes)
            if isinstance(narrow, Operand):
                behind = net.state_count * element_nbytes(net.dtype) if phase == 2 else 0
                left = Operand.scratch(narrow.number, behind)
            product, right = _recurrence(net, phase)
            solution = solve(product, Operands(left, right, sums), work.target, len(work.scratch))
            assert solution is not None
            partial[:] = [max(p, s) for p, s in zip(partial or solution.scratch, solution.scratch, strict=False)] or partial
            tail = (sums, states, narrow, number, np.int32(phase))
            actions += [*flat(solution.actions), Launch(kernel, grid, (BLOCK,), (*arguments, *tail))]
        return actions

    if net.length > 1:
        work.actions.append(Repeat(net.length // 2, (*step(Round(0, 2), 0), *step(Round(1, 2), 1))))
    if net.length % 2:
        work.actions += step(np.int32(net.length - 1), 0)
    work.scratch += partial


def _recurrence(net: _Net, phase: int) -> tuple[Product, Operand]:
    """A step's product for every direction, and where its weights lie."""
    gates = {0: net.gates, 1: 2, 2: 1}[phase]
    h, n = net.hidden, net.batch
    axis = Axis(net.directions, a=n * h, b=net.gates * h * h, d=n * gates * h)
    types = net.dtype, net.dtype, net.acc
    product = Product(n, gates * h, h, *types, False, True, h, h, gates * h, (axis,) if net.directions > 1 else ())
    skipped = 2 * h * h * element_nbytes(net.dtype) if phase == 2 else 0
    return product, Operand.input(2, skipped)


def _start(net: _Net, target: Target, states: Operand, narrow: Argument) -> Launch[Operand]:
    arguments = (*net.initial(), states, narrow, net.sizes(), net.distances())
    return launch_over(net.kernel("recurrent_start", "recurrent_cells.cu"), net.state_count, arguments, target.multiprocessors)


def _rows_per_block(net: _Net, target: Target) -> int:
    """Sequences of a block that makes every step: one, or as few more as leave a multiprocessor to each block."""
    rows = 1
    while rows < 8 and net.directions * -(-net.batch // rows) > target.multiprocessors:
        rows *= 2
    return rows


def _functions(
    names: Sequence[str], alphas: Sequence[float] | None, betas: Sequence[float] | None
) -> tuple[list[int], list[float], list[float]]:
    """Codes, alphas and betas of six functions; parameters are handed out in order to the functions that have them."""
    left_alphas, left_betas = iter(alphas or ()), iter(betas or ())
    order = list(_FUNCTIONS)
    codes, first, second = [0] * 6, [0.0] * 6, [0.0] * 6
    for i, name in enumerate(names):
        alpha, beta = _FUNCTIONS[name.lower()]
        codes[i] = order.index(name.lower())
        first[i] = 0.0 if alpha is None else float(next(left_alphas, alpha))
        second[i] = 0.0 if beta is None else float(next(left_betas, beta))
    return codes, first, second
