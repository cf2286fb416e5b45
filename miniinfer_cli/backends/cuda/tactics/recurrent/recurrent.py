"""RNN, GRU and LSTM: one product of all time steps with the input weights, then the steps."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import (
    NULL,
    Argument,
    Launch,
    Lowered,
    Once,
    Operand,
    Repeat,
    Round,
    flat,
)
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, blocks_for, launch_over, power_of_two_from
from miniinfer_cli.backends.cuda.tactics.products.product_records import Axis, Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.products import alike, main_tactics
from miniinfer_cli.backends.cuda.tactics.recurrent.recurrent_net import Net


@dataclass(frozen=True, slots=True)
class RecurrentHeuristic:
    """When which way of the steps is the heuristic's favourite, behind the product of all time steps with the input weights.

    The order is: every step in one launch; a launch for each step, or a product and a launch.
    """

    cached_nbytes: int = 256 << 10
    """Recurrence weights of one direction that one multiprocessor reads in a step fast enough, so that one launch does all."""
    many_rows: int = 16
    """Sequences from which on a matrix product beats warps that read the weights once for every 8 of them."""


RECURRENT = RecurrentHeuristic()


@lowers("RNN", "GRU", "LSTM")
def lower_recurrent(site: Site) -> Lowered | tuple[Tactic, ...]:
    """Small weights: every step in one launch. Few sequences: a launch for each step; many: a product and a launch."""
    net = Net(site)
    if 0 in (net.batch, net.hidden):
        return Lowered(())
    if net.length == 0:
        return Lowered(tuple(net.untouched()))
    return recurrent_tactics(net)


def recurrent_tactics(net: Net, table: RecurrentHeuristic = RECURRENT) -> tuple[Tactic, ...]:
    """The ways of a net that writes something, the heuristic's favourite first; none where a size is beyond an int."""
    target, rows = net.site.target, _rows_per_block(net, net.site.target)
    projected = Operand.scratch(0)
    projections = main_tactics(net.projection(), Operands(Operand.input(0), Operand.input(1), projected), target)
    whole = _Steps("in one launch", lambda work: work.add(_whole(net, projected, rows)))
    single = _Steps("step by step", lambda work: _steps(net, work, projected))
    at_once = [_behind(net, projection, whole) for projection in projections] if net.fits_at_once(rows) else []
    one_by_one = [_behind(net, projection, single) for projection in projections]
    by_products = _by_products(net, projections, projected)
    others = (*one_by_one, *by_products) if net.batch < table.many_rows else (*by_products, *one_by_one)
    return (*at_once, *others) if net.weights_nbytes <= table.cached_nbytes else (*others, *at_once)


@dataclass(frozen=True, slots=True)
class _Steps:
    """A way of the time steps: its name, what emits it behind the projection, and the products of each step."""

    name: str
    emit: Callable[[Work], None]
    products: tuple[Tactic, ...] = ()


def _behind(net: Net, projection: Tactic, steps: _Steps) -> Tactic:
    """The projection and the steps as one tactic."""

    def emit(work: Work) -> None:
        work.scratch(net.projected_nbytes)
        projection.emit(work)
        steps.emit(work)

    return Tactic(
        f"{projection.key}, then {steps.name}",
        emit,
        projection.estimate + net.estimate_of_steps(),
        problems=tuple(p for t in (projection, *steps.products) for p in t.problems),
        parts=tuple(t.key for t in (projection, *steps.products)),
    )


def _whole(net: Net, projected: Operand, rows: int) -> Launch[Operand]:
    arguments = (*net.arguments(projected), Operand.input(2), *net.initial())
    grid = (-(-net.batch // rows), net.directions)
    shared = net.states * rows * net.hidden * net.item
    return Launch(net.kernel("recurrent_all", "recurrent_all.cu", rows), grid, (32, min(16, net.hidden)), arguments, shared)


def _steps(net: Net, work: Work, projected: Operand) -> None:
    rows = min(8, power_of_two_from(net.batch))
    states = work.scratch(net.states * net.state_count * net.item)
    work.add(_start(net, states, NULL))
    grid = (-(-net.hidden // 8), min(-(-net.batch // rows), 65535), net.directions)
    kernel, arguments = net.kernel("recurrent_step", "recurrent_step.cu", rows), net.arguments(projected)
    tails = [(Operand.input(2), states, Round(), np.int32(phase)) for phase in net.phases]
    work.add(Repeat(net.length, tuple(Launch(kernel, grid, (32, 8), (*arguments, *tail)) for tail in tails)))


def _by_products(net: Net, projections: Sequence[Tactic], projected: Operand) -> list[Tactic]:
    """The ways by a product for each phase of a step."""
    buffers = _Buffers(*(Operand.scratch(n) for n in range(3)))  # those of the work have other numbers, and the same offsets
    listed = [[_product_tactics(net, buffers, phase, parity) for parity in range(min(net.length, 2))] for phase in net.phases]
    found = []
    first = [[t for key, t in by_parity[0].items() if all(key in p for p in by_parity)] for by_parity in listed]
    for projection, *phases in alike(projections, *first):
        keys = tuple(t.key for t in phases)
        chosen = tuple(tactics[key] for key, by_parity in zip(keys, listed, strict=True) for tactics in by_parity)
        name, emit = f"by {' and '.join(dict.fromkeys(keys))}", partial(_products, net, projected=projected, keys=keys)
        found.append(_behind(net, projection, _Steps(name, emit, chosen)))
    return found


@dataclass(frozen=True, slots=True)
class _Buffers:
    """The states, those of the net's own type where that is narrower than what is computed in, and a step's sums."""

    states: Operand
    narrow: Operand | None
    sums: Operand


def _product_tactics(net: Net, buffers: _Buffers, phase: int, parity: int) -> dict[str, Tactic]:
    """The ways of a phase's product by key. The two arrays of h take turns: ``parity`` says which is read."""
    nbytes = net.state_count * net.item
    left = Operand.scratch(buffers.states.number, parity * nbytes if phase < 2 else 3 * nbytes)
    if buffers.narrow is not None and net.dtype != net.acc:
        left = Operand.scratch(buffers.narrow.number, net.state_count * element_nbytes(net.dtype) if phase == 2 else 0)
    product, right = _recurrence(net, phase)
    return {t.key: t for t in main_tactics(product, Operands(left, right, buffers.sums), net.site.target)}


def _products(net: Net, work: Work, projected: Operand, keys: Sequence[str]) -> None:
    """The recurrence's sums by products of these keys, one for each phase, which take states of the net's own type."""
    states = work.scratch(net.states * net.state_count * net.item)
    narrow = work.scratch(2 * net.state_count * element_nbytes(net.dtype)) if net.dtype != net.acc else None
    buffers = _Buffers(states, narrow, work.scratch(net.gates * net.state_count * net.item))
    work.add(_start(net, states, narrow or NULL))
    kernel, arguments = net.kernel("recurrent_cells", "recurrent_cells.cu"), net.arguments(projected)
    grid = (blocks_for(net.state_count, net.site.target.multiprocessors),)
    first_scratch, needed = work.next_scratch, list[int]()

    def step(number: Round | np.int32, parity: int) -> list[Once[Operand]]:
        """The actions of a time step; every other step is the same."""
        actions: list[Once[Operand]] = []
        for phase, key in zip(net.phases, keys, strict=True):
            apart = Work(first_scratch)
            _product_tactics(net, buffers, phase, parity)[key].emit(apart)
            needed[:] = [max(pair) for pair in itertools.zip_longest(needed, apart.scratch_nbytes, fillvalue=0)]
            tail = (buffers.sums, states, narrow or NULL, number, np.int32(phase))
            actions += [*flat(apart.actions), Launch(kernel, grid, (BLOCK,), (*arguments, *tail))]
        return actions

    if net.length > 1:
        work.add(Repeat(net.length // 2, (*step(Round(0, 2), 0), *step(Round(1, 2), 1))))
    if net.length % 2:
        work.add(*step(np.int32(net.length - 1), 0))
    for size in needed:  # the products take turns in these
        work.scratch(size)


def _recurrence(net: Net, phase: int) -> tuple[Product, Operand]:
    """A step's product for every direction, and where its weights lie."""
    gates = {0: net.gates, 1: 2, 2: 1}[phase]
    h, n = net.hidden, net.batch
    axis = Axis(net.directions, a=n * h, b=net.gates * h * h, d=n * gates * h)
    types = net.dtype, net.dtype, net.acc
    product = Product(n, gates * h, h, *types, False, True, h, h, gates * h, (axis,) if net.directions > 1 else ())
    skipped = 2 * h * h * element_nbytes(net.dtype) if phase == 2 else 0
    return product, Operand.input(2, skipped)


def _start(net: Net, states: Operand, narrow: Argument) -> Launch[Operand]:
    arguments = (*net.initial(), states, narrow, net.sizes(), net.distances())
    kernel = net.kernel("recurrent_start", "recurrent_cells.cu")
    return launch_over(kernel, net.state_count, arguments, net.site.target.multiprocessors)


def _rows_per_block(net: Net, target: Target) -> int:
    """Sequences of a block that makes every step: one, or as few more as leave a multiprocessor to each block."""
    rows = 1
    while rows < 8 and net.directions * -(-net.batch // rows) > target.multiprocessors:
        rows *= 2
    return rows
