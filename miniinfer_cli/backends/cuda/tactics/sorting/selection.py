"""NonZero, Compress. (Unique has a file of its own.)"""

import math
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Argument, Bound, Fill, Kernel, Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.types import bits_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.tactics.sorting.compaction import BLOCK, compact, counts_nbytes
from miniinfer_cli.ir import DType

_COUNT = Operand.count(0)
_NO_SIGN = {DType.F8E4M3FNUZ, DType.F8E5M2FNUZ}  # the sign alone is their NaN
_NO_ZERO = DType.F8E8M0


@lowers("NonZero")
def lower_non_zero(site: Site) -> Lowered | None:
    """Coordinates of what has a bit set besides the sign."""
    shape, dtype = site.shape(0), site.dtype()
    if dtype in (DType.C128, DType.STR, _NO_ZERO):
        return None
    count = math.prod(shape)
    bounds = {0: Bound((len(shape), count), 1)}
    if count == 0:
        return Lowered((Fill(_COUNT, 0, 8),), bounds=bounds)
    index = index_dtype(count)
    counts = Operand.scratch(0)
    x = Operand.input(0)
    mask = _mask(dtype)
    defines = _defines(bits_type(dtype), count, len(shape))
    sizes = np.array(shape or (1,), index)

    def count_by(grid: tuple[int, ...]) -> Launch[Operand]:
        return Launch(Kernel("count_set", "selection.cu", defines), grid, (BLOCK,), (x, mask, index.type(count), counts))

    def write_by(grid: tuple[int, ...]) -> Launch[Operand]:
        arguments = (x, mask, index.type(count), counts, sizes, Operand.output(0))
        return Launch(Kernel("write_coordinates", "selection.cu", defines), grid, (BLOCK,), arguments)

    actions = compact(count, counts, (_COUNT,), count_by, write_by)
    # A scalar has no coordinates, only a count of them.
    return Lowered(actions[:2] if not shape else actions, (counts_nbytes(count),), bounds=bounds, tactic="compaction")


@lowers("Compress")
def lower_compress(site: Site) -> Lowered | None:
    """The numbers of the slices whose condition holds, then those slices."""
    axis = site.attr("axis")
    shape = site.shape(0) if axis is not None else (math.prod(site.shape(0)),)
    at = 0 if axis is None else axis % len(shape)
    outer, n, inner = math.prod(shape[:at]), shape[at], math.prod(shape[at + 1 :])
    most = min(n, math.prod(site.shape(1)))
    bounds = {0: Bound((*shape[:at], most, *shape[at + 1 :]), at)}
    if most == 0:
        return Lowered((Fill(_COUNT, 0, 8),), bounds=bounds)
    counts, chosen = Operand.scratch(0), Operand.scratch(1)
    actions = select_flagged("write_numbers", index_name(most), Operand.input(1), most, counts, chosen, (_COUNT,))
    index = index_dtype(most)
    scratch = (counts_nbytes(most), most * index.itemsize)
    if outer * inner == 0:
        return Lowered(actions, scratch, bounds=bounds)
    gather = gather_chosen(site, chosen, index_name(most), _COUNT, (outer, n, most, inner))
    return Lowered((*actions, gather), scratch, bounds=bounds, tactic="compaction")


def select_flagged(
    name: str, index: str, flags: Operand, count: int, counts: Operand, target: Operand, totals: tuple[Operand, ...] = ()
) -> tuple[Launch[Operand], ...]:
    """Launches of ``write_numbers`` or ``write_ranks`` over the bytes of ``flags``, with offsets of C type ``index``."""
    defines = (("MI_T", "u8"), ("MI_RANK", "1"), ("MI_INDEX", index))
    mask = np.uint8(0xFF)
    number = np.int32(count) if index == "int" else np.int64(count)

    def count_by(grid: tuple[int, ...]) -> Launch[Operand]:
        return Launch(Kernel("count_set", "selection.cu", defines), grid, (BLOCK,), (flags, mask, number, counts))

    def write_by(grid: tuple[int, ...]) -> Launch[Operand]:
        return Launch(Kernel(name, "selection.cu", defines), grid, (BLOCK,), (flags, mask, number, counts, target))

    return compact(count, counts, totals, count_by, write_by, index=index)


def gather_chosen(site: Site, chosen: Operand, number: str, total: Operand, sizes: tuple[int, int, int, int]) -> Launch[Operand]:
    """Output 0, with room for ``most`` slices: ``total`` of input 0's, whose numbers (of C type ``number``) are ``chosen``.

    ``sizes`` are outer, n, most, inner: the input is ``[outer, n, inner]``.
    """
    outer, n, most, inner = sizes
    largest = outer * n * inner
    wide = 16 // element_nbytes(site.dtype()) if element_nbytes(site.dtype()) < 16 else 1
    moved = bits_type(site.dtype())
    if inner % wide == 0 and wide > 1:
        moved, inner = "Pack<u64, 2>", inner // wide
    index = index_dtype(largest).type
    defines = (("MI_T", moved), ("MI_INDEX", index_name(largest)), ("MI_NUMBER", number))
    arguments: tuple[Argument, ...] = (
        Operand.input(0), chosen, total, Operand.output(0), index(outer), index(n), index(most), index(inner),
    )  # fmt: skip
    kernel = Kernel("gather_chosen", "chosen_slices.cu", defines)
    return launch_over(kernel, outer * most * inner, arguments, site.target.multiprocessors)


def _mask(dtype: DType) -> "np.unsignedinteger[Any]":
    """The bits of which one is set in every element that is not zero."""
    unsigned = np.dtype(f"u{element_nbytes(dtype)}").type
    if dtype is DType.C64:
        return np.uint64(0x7FFFFFFF7FFFFFFF)
    if dtype.bits < 8:
        return np.uint8((1 << dtype.bits) - 1 >> dtype.is_float)
    every = np.iinfo(unsigned).max
    return unsigned(every >> 1 if dtype.is_float and dtype not in _NO_SIGN else every)  # type: ignore[no-any-return]


def _defines(element: str, count: int, rank: int) -> tuple[tuple[str, str], ...]:
    return (("MI_T", element), ("MI_RANK", str(max(rank, 1))), ("MI_INDEX", index_name(count)))
