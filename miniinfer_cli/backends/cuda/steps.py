"""What a lowering gives for one node: launches, copies and library calls over symbolic operands.

Plain data: making it touches no device, so it is made and tested on machines without one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np

from miniinfer_cli.backends.cuda.problems import Problem
from miniinfer_cli.ir import Array, Constant, Graph


@dataclass(frozen=True, slots=True)
class Operand:
    """Device memory that a step reads or writes, ``offset`` bytes behind the start of a buffer.

    ``kind`` says which buffer, ``number`` which of them:

    ======== ======================================================================================
    input    the node's input of that number
    output   the node's output of that number
    scratch  the entry of that number of ``Lowered.scratch``: memory that lives during the node alone
    count    an int64 beside the output of that number, whose size depends on data (``Lowered.bounds``)
    derived  the entry of that number of ``Lowered.derived``: a constant in a form made at load
    table    the entry of that number of ``Lowered.tables``: a small array made while lowering
    ======== ======================================================================================
    """

    kind: str
    number: int
    offset: int = 0


Argument = Union[Operand, "np.generic[Any]", Array]
"""An argument of a kernel: an address, a scalar of the parameter's exact type, or an array passed by value as a struct.

``np.array([n, m], np.int32)`` fills a parameter ``struct { int d[2]; }``; types.cuh has ``Ints<N>`` and ``Longs<N>``.
"""

NULL = np.uint64(0)
"""The address of what is not there. ``Site.operand`` and ``Site.result`` give it; ``bias or NULL`` where None stands for it."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel to compile: the function ``name`` of ``kernels/FILE``, of generated ``code``, or of code behind the file's.

    ``defines`` are macros in order; every name begins with ``MI_``. Sizes belong into arguments, not here: each distinct
    kernel is one more compilation.
    """

    name: str
    file: str = ""
    defines: tuple[tuple[str, str], ...] = ()
    code: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch. ``grid`` and ``block`` are sizes per dimension (x, y, z), ``shared_nbytes`` is dynamic."""

    kernel: Kernel
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Argument, ...]
    shared_nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Copy:
    """``nbytes`` bytes from ``source`` to ``target``, both on the device."""

    target: Operand
    source: Operand
    nbytes: int


@dataclass(frozen=True, slots=True)
class Fill:
    """``nbytes`` bytes of ``target`` set to ``byte``."""

    target: Operand
    byte: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class LibraryCall:
    """A call into cuBLASLt or cuDNN that solves ``problem``; ``operands`` in the order that its class documents."""

    problem: Problem
    operands: tuple[Operand, ...]


Action = Launch | Copy | Fill | LibraryCall


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
    number of elements that the step leaves in ``count``. ``tactic`` names the way chosen, for reports.
    """

    actions: tuple[Action, ...]
    scratch: tuple[int, ...] = ()
    derived: tuple[Derived, ...] = ()
    tables: tuple[Array, ...] = ()
    in_place: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    bounds: Mapping[int, "Bound"] = field(default_factory=dict)
    tactic: str = ""


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
    return tuple(Operand("input", n) for n in numbers)


def outputs(*numbers: int) -> tuple[Operand, ...]:
    """Operands for outputs of these numbers."""
    return tuple(Operand("output", n) for n in numbers)
