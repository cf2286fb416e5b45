"""What a lowering gives for one node: launches, copies and library calls over symbolic operands.

Plain data: making it touches no device, so it is made and tested on machines without one. ``At`` is how memory is named: an
``Operand`` while a node is lowered, a place of the program (``program.Place``) once it has one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Generic, Self, TypeVar, Union

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.launch_attributes import NO_ATTRIBUTES, LaunchAttributes
from miniinfer_cli.backends.cuda.contract.problems import Problem, Variant
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from miniinfer_cli.ir import Array, Constant, Graph


class OperandKind(StrEnum):
    """Which buffers of a node an operand is one of."""

    INPUT = "input"
    """The node's input of that number."""
    OUTPUT = "output"
    """The node's output of that number."""
    SCRATCH = "scratch"
    """The entry of that number of ``Lowered.scratch``: memory that lives during the node alone."""
    COUNT = "count"
    """An int64 beside the output of that number, whose size depends on data (``Lowered.bounds``)."""
    DERIVED = "derived"
    """The entry of that number of ``Lowered.derived``: a constant in a form made at load."""
    TABLE = "table"
    """The entry of that number of ``Lowered.tables``: a small array made while lowering."""


@dataclass(frozen=True, slots=True)
class Operand:
    """Device memory that a step reads or writes, ``offset`` bytes behind the start of buffer ``number`` of its kind."""

    kind: OperandKind
    number: int
    offset: int = 0

    @classmethod
    def input(cls, number: int, offset: int = 0) -> Self:
        """The node's input of that number."""
        return cls(OperandKind.INPUT, number, offset)

    @classmethod
    def output(cls, number: int, offset: int = 0) -> Self:
        """The node's output of that number."""
        return cls(OperandKind.OUTPUT, number, offset)

    @classmethod
    def scratch(cls, number: int, offset: int = 0) -> Self:
        """The scratch buffer of that number."""
        return cls(OperandKind.SCRATCH, number, offset)

    @classmethod
    def count(cls, number: int, offset: int = 0) -> Self:
        """The count beside the output of that number."""
        return cls(OperandKind.COUNT, number, offset)

    @classmethod
    def derived(cls, number: int, offset: int = 0) -> Self:
        """The derived constant of that number."""
        return cls(OperandKind.DERIVED, number, offset)

    @classmethod
    def table(cls, number: int, offset: int = 0) -> Self:
        """The table of that number."""
        return cls(OperandKind.TABLE, number, offset)


@dataclass(frozen=True, slots=True)
class Round:
    """An int32 argument of a launch within a Repeat: ``first`` in the first round, ``by`` more in each that follows."""

    first: int = 0
    by: int = 1

    def value(self, number: int) -> np.int32:
        """The argument in the round of this number, from 0 on."""
        return np.int32(self.first + number * self.by)


At = TypeVar("At")
To = TypeVar("To")

ByValue = Union["np.generic[Any]", Array]
"""A scalar of a parameter's exact type, or an array passed by value as a struct.

``np.array([n, m], np.int32)`` fills a parameter ``struct { int d[2]; }``; types.cuh has ``Ints<N>`` and ``Longs<N>``.
"""

Argument = Union[Operand, ByValue, TensorMap[Operand]]
"""An argument of a kernel: an address, a value, or how the device's copies see a tensor."""

NULL = np.uint64(0)
"""The address of what is not there. ``Site.operand`` and ``Site.result`` give it; ``bias or NULL`` where None stands for it."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel to compile: the function ``name`` of ``kernels/FILE``, of generated ``code``, or of code behind the file's.

    ``defines`` are macros in order; every name begins with ``MI_``. Sizes belong into arguments, not here: each distinct
    kernel is one more compilation. ``arch``: the GPUs that it is for; empty for all, ``sm_90`` for that and newer ones,
    ``sm_90a`` for that alone (``architectures.py``).
    """

    name: str
    file: str = ""
    defines: tuple[tuple[str, str], ...] = ()
    code: str = ""
    arch: str = ""


@dataclass(frozen=True, slots=True)
class Launch(Generic[At]):
    """One kernel launch. ``grid`` and ``block`` are sizes per dimension (x, y, z), ``shared_nbytes`` is dynamic."""

    kernel: Kernel
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[At | Round | ByValue | TensorMap[At], ...]
    shared_nbytes: int = 0
    attributes: LaunchAttributes = NO_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class Copy(Generic[At]):
    """``nbytes`` bytes from ``source`` to ``target``, both on the device."""

    target: At
    source: At
    nbytes: int


@dataclass(frozen=True, slots=True)
class Fill(Generic[At]):
    """``nbytes`` bytes of ``target`` set to ``byte``."""

    target: At
    byte: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class LibraryCall(Generic[At]):
    """A call into cuBLASLt or cuDNN that solves ``problem``; ``operands`` in the order that its class documents.

    ``variant``: the way in which the library is to do it; None leaves that to its heuristic.
    """

    problem: Problem
    operands: tuple[At, ...]
    variant: Variant | None = None


@dataclass(frozen=True, slots=True)
class Repeat(Generic[At]):
    """The same actions ``rounds`` times, one round after the other; only their arguments that are a ``Round`` advance.

    A program does not grow with the number of rounds; what is enqueued, and captured, does.
    """

    rounds: int
    actions: "tuple[Launch[At] | Copy[At] | Fill[At] | LibraryCall[At], ...]"


Once = Union[Launch[At], Copy[At], Fill[At], LibraryCall[At]]
"""What a Repeat may repeat."""

AnyAction = Union[Launch[At], Copy[At], Fill[At], LibraryCall[At], Repeat[At]]
"""One thing that the device does."""

Action = AnyAction[Operand]
"""An action of a lowering, whose operands have no place yet."""


@dataclass(frozen=True, slots=True, eq=False)
class Derived:
    """A constant in another form, computed on the device when it is first asked for, once for all programs.

    ``graph`` has one output and as many inputs as there are ``sources``; equal ``key`` and sources mean equal contents.
    """

    sources: tuple[Constant, ...]
    key: str
    graph: Graph


@dataclass(frozen=True, slots=True)
class Lowered:
    """One node as device work.

    ``scratch``: bytes of each scratch buffer. ``in_place``: see planning.memory.StepUse, by output and input number.
    ``bounds``: for an output whose size depends on data, the largest shape, and the axis along which it is cut to the
    number of elements that the step leaves in ``count``. ``tactic`` names the way chosen, for reports. ``estimate``: what it
    takes at least, where that is not every operand read, every result written and an operation for each of its elements.
    """

    actions: tuple[Action, ...]
    scratch: tuple[int, ...] = ()
    derived: tuple[Derived, ...] = ()
    tables: tuple[Array, ...] = ()
    in_place: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    bounds: Mapping[int, "Bound"] = field(default_factory=dict)
    tactic: str = ""
    estimate: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """The largest ``shape`` of an output, of which ``axis`` is cut to the count."""

    shape: tuple[int, ...]
    axis: int


@dataclass(frozen=True, slots=True, eq=False)
class Rewrite:
    """The node as a graph of other nodes, with the node's inputs (those that are not None) and outputs; lowered in its place."""

    graph: Graph


def inputs(*numbers: int) -> tuple[Operand, ...]:
    """Operands for inputs of these numbers."""
    return tuple(map(Operand.input, numbers))


def outputs(*numbers: int) -> tuple[Operand, ...]:
    """Operands for outputs of these numbers."""
    return tuple(map(Operand.output, numbers))


def moved(action: AnyAction[At], place: Callable[[At], To]) -> AnyAction[To]:
    """The action over ``place`` of each of its operands."""
    if isinstance(action, Repeat):
        return Repeat(action.rounds, tuple(_moved(a, place) for a in action.actions))
    return _moved(action, place)


def _moved(action: Once[At], place: Callable[[At], To]) -> Once[To]:
    match action:
        case Launch(kernel, grid, block, arguments, shared_nbytes, attributes):
            values = tuple(_moved_argument(a, place) for a in arguments)
            return Launch(kernel, grid, block, values, shared_nbytes, attributes)
        case Copy(target, source, nbytes):
            return Copy(place(target), place(source), nbytes)
        case Fill(target, byte, nbytes):
            return Fill(place(target), byte, nbytes)
        case LibraryCall(problem, operands, variant):
            return LibraryCall(problem, tuple(map(place, operands)), variant)


def _moved_argument(
    argument: At | Round | ByValue | TensorMap[At], place: Callable[[At], To]
) -> To | Round | ByValue | TensorMap[To]:
    match argument:
        case TensorMap():
            return argument.over(place(argument.operand))
        case Round() | np.generic() | np.ndarray():
            return argument
    return place(argument)


def library_problems(actions: Iterable[AnyAction[At]]) -> tuple[Problem, ...]:
    """What libraries are asked to solve by the actions, each once."""
    return tuple(dict.fromkeys(a.problem for a in flat(actions) if isinstance(a, LibraryCall)))


def with_variant(lowered: Lowered, problem: Problem, variant: Variant) -> Lowered:
    """The work with the problem solved in the way of ``variant``."""

    def once(action: Once[Operand]) -> Once[Operand]:
        if isinstance(action, LibraryCall) and action.problem == problem:
            return replace(action, variant=variant)
        return action

    def all_of(action: Action) -> Action:
        return Repeat(action.rounds, tuple(map(once, action.actions))) if isinstance(action, Repeat) else once(action)

    return replace(lowered, actions=tuple(map(all_of, lowered.actions)))


def flat(actions: Iterable[AnyAction[At]]) -> Iterator[Once[At]]:
    """Every action once, those within a Repeat too."""
    for action in actions:
        if isinstance(action, Repeat):
            yield from action.actions
        else:
            yield action
