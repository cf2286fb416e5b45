"""What a generated kernel of normalized rows is made of: where rows lie, what is computed around the norm, and the norm."""

from dataclasses import dataclass

from miniinfer_cli.backends.cuda.codegen.body import Body
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.ir import DType


@dataclass(frozen=True, slots=True)
class Rows:
    """Where rows lie: elements (of indices: indices) between neighbours along each axis in front of the rows'."""

    operand: Operand
    dtype: DType
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """An operand: ``rows``, of one element each where ``is_single``; or the rows of a table of ``size`` at ``indices``.

    ``behind``: rows that follow along ``axis`` of those in front of the rows', each from a place of its own on.
    """

    rows: Rows
    is_single: bool = False
    indices: Rows | None = None
    size: int = 0
    axis: int = 0
    behind: tuple[tuple[int, Rows], ...] = ()

    @property
    def pieces(self) -> tuple[tuple[int, Rows], ...]:
        """All rows that are read, with the place along ``axis`` from which on they are."""
        return ((0, self.rows), *self.behind)


@dataclass(frozen=True, slots=True)
class Part:
    """A body over elements, what its parameters are, and where its results go, None for one that is not stored.

    A parameter of None is what the part in front gave, whose first result that is. With no ``body`` the one parameter is the
    result.
    """

    body: Body | None
    sources: tuple[Source | None, ...]
    results: tuple[Operand | None, ...]


@dataclass(frozen=True, slots=True)
class Norm:
    """A LayerNormalization (``centred``) or RMSNormalization of ``x`` to ``y``, with statistics in ``real``."""

    x: DType
    y: DType
    real: DType
    epsilon: float
    centred: bool
    scale: Rows
    bias: Rows | None


@dataclass(frozen=True, slots=True)
class Shape:
    """Axes in front of the rows, elements of a row; ``width`` of them a load, ``loads`` a thread; and the launch's sizes."""

    axes: tuple[int, ...]
    length: int
    width: int
    loads: int
    grid: tuple[int, ...]
    block: tuple[int, ...]
