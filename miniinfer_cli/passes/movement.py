"""Chains of Reshape, Transpose, Squeeze, Unsqueeze and Flatten as one rearrangement of a tensor's elements.

The axes of a tensor are cut into *atoms*, runs of indices that the chain never takes apart. A Transpose permutes axes, a
view regroups the same atoms into other axes, and may cut an atom in two. In the end the chain is a permutation of atoms,
and is written with one Transpose at most: cut the axes, permute, regroup.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from miniinfer_cli.ir import Dim, Graph, Node, Value
from miniinfer_cli.ir.dims import divide_exactly, product
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.cancel_reshapes import VIEWS
from miniinfer_cli.passes.cancel_transposes import permutation
from miniinfer_cli.passes.operands import dims, sole_user
from miniinfer_cli.passes.reshape_targets import insert_reshape, reshape_target

Axes = list[list[int]]  # atoms by axis


@dataclass(frozen=True, slots=True)
class Moves:
    """Reshape to ``cut``, Transpose by ``perm``, Reshape to the target; None where a step is not needed."""

    cut: tuple[Dim, ...] | None
    perm: list[int] | None
    target: tuple[Dim, ...] | None

    @property
    def cost(self) -> tuple[int, int]:
        """Transposes, which move data, and nodes."""
        return int(self.perm is not None), sum(step is not None for step in (self.cut, self.perm, self.target))


class Movement:
    """A rearrangement: the atoms of the source by axis, in row-major order, and the axes that they form in the end.

    Axes of size 1 have no atoms.
    """

    def __init__(self, shape: Sequence[Dim]) -> None:
        self.shape = tuple(shape)
        self.size: dict[int, Dim] = {}
        self.source: Axes = [self.add_atom(d) for d in shape]
        self.axes: Axes = [list(a) for a in self.source]

    def copy(self) -> "Movement":
        """A copy that can be extended alone."""
        other = Movement(())
        other.shape, other.size = self.shape, dict(self.size)
        other.source, other.axes = [list(a) for a in self.source], [list(a) for a in self.axes]
        return other

    @property
    def target(self) -> tuple[Dim, ...]:
        """The shape in the end."""
        return tuple(self.measure(a) for a in self.axes)

    def measure(self, atoms: Iterable[int]) -> Dim:
        """The size of an axis of these atoms."""
        return product(self.size[a] for a in atoms)

    def apply(self, node: Node) -> bool:
        """Appends what ``node`` does; False, and the movement is of no more use, where that cannot be told."""
        if node.is_op("Transpose"):
            perm = permutation(node)
            if perm is None or len(perm) != len(self.axes):
                return False
            self.axes = [self.axes[p] for p in perm]
            return True
        shape = dims(node.output)
        return shape is not None and self.view(shape)

    def view(self, shape: Sequence[Dim]) -> bool:
        """Regroups the atoms, in the order that they have, into axes of ``shape``."""
        queue = [a for axis in self.axes for a in axis]
        axes: Axes = []
        for dim in shape:
            axis: list[int] = []
            while dim != 1:
                if not queue or dim == 0:
                    return False
                rest = divide_exactly(dim, self.size[queue[0]])
                if rest is None:
                    if divide_exactly(self.size[queue[0]], dim) is None:
                        return False
                    queue[:1] = self._cut(queue[0], dim)
                    rest = 1
                axis.append(queue.pop(0))
                dim = rest
            axes.append(axis)
        self.axes = axes
        return not queue

    def moves(self) -> Moves:
        """The cheapest way to write the movement."""
        if self.target == self.shape and self._is_in_order(self.axes):
            return Moves(None, None, None)
        flat = [a for axis in self.axes for a in axis]
        if self._is_in_order(self.axes):
            return Moves(None, None, self.target)
        order = [a for axis in self.source for a in axis]
        # Permute whole axes of the source, whole axes of the target, or the longest runs that stay together.
        candidates = [
            self._moves([a for a in self.source if a], flat),
            self._moves(sorted((a for a in self.axes if a), key=lambda a: order.index(a[0])), flat),
            self._moves(_runs(order, flat), flat),
        ]
        return min((c for c in candidates if c is not None), key=lambda c: c.cost)

    def _moves(self, units: Axes, flat: list[int]) -> Moves | None:
        """The movement as a permutation of ``units``, given in the order of the source; None when it takes one apart."""
        order = [a for axis in self.source for a in axis]
        starts = {unit[0]: i for i, unit in enumerate(units)}
        perm: list[int] = []
        at = 0
        while at < len(flat):
            unit = starts.get(flat[at])
            if unit is None or flat[at : at + len(units[unit])] != units[unit]:
                return None
            perm.append(unit)
            at += len(units[unit])
        if [a for unit in units for a in unit] != order:
            return None
        cut = tuple(self.measure(u) for u in units)
        permuted = tuple(cut[p] for p in perm)
        return Moves(None if cut == self.shape else cut, perm, None if permuted == self.target else self.target)

    def _is_in_order(self, axes: Axes) -> bool:
        return [a for axis in axes for a in axis] == [a for axis in self.source for a in axis]

    def add_atom(self, size: Dim) -> list[int]:
        """An axis of this size: a new atom, or none for size 1."""
        if size == 1:
            return []
        atom = len(self.size)
        self.size[atom] = size
        return [atom]

    def _cut(self, atom: int, size: Dim) -> list[int]:
        """Cuts an atom into one of ``size`` and the rest, everywhere."""
        rest = divide_exactly(self.size[atom], size)
        if rest is None:
            raise ValueError(f"{size} does not divide {self.size[atom]}")
        parts = [*self.add_atom(size), *self.add_atom(rest)]
        for axes in (self.source, self.axes):
            for axis in axes:
                if atom in axis:
                    axis[axis.index(atom) : axis.index(atom) + 1] = parts
        return parts


def is_movement(node: Node | None) -> bool:
    """True for the operations that a Movement is made of."""
    return node is not None and node.is_op("Transpose", *VIEWS) and node.inputs[0] is not None


def chain_above(graph: Graph, value: Value) -> list[Node]:
    """The movements that end in ``value``, first to last, as far as nobody else reads what is between them."""
    chain: list[Node] = []
    node = value.producer
    while node is not None and is_movement(node):
        chain.append(node)
        source = node.inputs[0]
        if source is None or sole_user(graph, source) is not node:
            break
        node = source.producer
    return chain[::-1]


def movement_of(chain: Sequence[Node]) -> Movement | None:
    """The movement of a chain; None when a shape is not known or does not divide into atoms."""
    shape = dims(chain[0].inputs[0]) if chain else None
    if shape is None or any(d == 0 for d in shape):
        return None
    movement = Movement(shape)
    return movement if all(movement.apply(node) for node in chain) else None


def is_writable(movement: Movement, moves: Moves) -> bool:
    """True when the Reshapes of the moves can be asked for by constants, symbolic dimensions and all."""
    shape = movement.shape
    if moves.cut is not None and reshape_target(shape, moves.cut) is None:
        return False
    shape = moves.cut or shape
    if moves.perm is not None:
        shape = tuple(shape[p] for p in moves.perm)
    return moves.target is None or reshape_target(shape, moves.target) is not None


def write(graph: Graph, x: Value, moves: Moves, *, before: Node, out: str) -> Value:
    """Inserts the nodes of writable moves on ``x``."""
    steps = [("reshape", moves.cut), ("transpose", moves.perm), ("reshape", moves.target)]
    wanted = [(kind, step) for kind, step in steps if step is not None]
    for number, (kind, step) in enumerate(wanted):
        name = out if number + 1 == len(wanted) else f"{out}_{'cut' if number == 0 else 'permuted'}"
        if kind == "transpose":
            x = insert(graph, "Transpose", x, before=before, out=name, perm=list(step))
            continue
        reshaped = insert_reshape(graph, x, list(step), before=before, out=name)
        if reshaped is None:
            raise ValueError(f"{x!r} cannot be asked to be {step}")
        x = reshaped
    return x


def _runs(order: Sequence[int], flat: Sequence[int]) -> Axes:
    """The longest runs of atoms that follow one another in both orders, in the first one's order."""
    follower = dict(itertools.pairwise(flat))
    runs: Axes = []
    for atom in order:
        if runs and follower.get(runs[-1][-1]) == atom:
            runs[-1].append(atom)
        else:
            runs.append([atom])
    return runs
