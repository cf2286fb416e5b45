"""CumSum, CumProd."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.grids import BLOCK, index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.site import Site, lowers
from miniinfer_cli.backends.cuda.steps import NULL, Argument, Kernel, Launch, Lowered, Operand, inputs
from miniinfer_cli.backends.cuda.types import bits_type, c_type

_WARP_ROW = 512  # elements of a row up to which a warp takes it
_ENOUGH = 4  # blocks for each multiprocessor, with which it is busy
_PARTS = 1024  # parts that a row is cut into at most: one warp adds them up


@lowers("CumSum", "CumProd")
def lower_cumulative(site: Site) -> Lowered | None:
    """A scan: by blocks over rows where the axis is the last, by a thread for each column otherwise."""
    shape = site.shape(0)
    count = math.prod(shape)
    if count == 0:
        return Lowered(())
    known = site.known(1)
    if known is None:
        return Lowered((_columns(site, None, NULL, math.prod(shape), 1, max(shape)),), tactic="scan_columns")
    axis = int(known.reshape(-1)[0]) % len(shape)
    n, inner = shape[axis], math.prod(shape[axis + 1 :])
    columns = count // n
    if inner == 1:
        return _rows(site, columns, n)
    parts = _parts(columns, n, BLOCK * site.target.multiprocessors * _ENOUGH, 32)
    part = -(-n // parts)
    parts = -(-n // part)
    if parts == 1:
        return Lowered((_columns(site, axis, NULL, columns, 1, n),), tactic="scan_columns")
    totals = Operand.scratch(0)
    actions = (
        _columns(site, axis, totals, columns * parts, parts, part, write=False),
        _totals(site, columns, parts, inner),
        _columns(site, axis, totals, columns * parts, parts, part),
    )
    return Lowered(actions, (columns * parts * _accumulator_nbytes(site),), tactic="scan_columns_in_parts")


def _rows(site: Site, rows: int, n: int) -> Lowered:
    if n <= _WARP_ROW:
        return Lowered((_row_launch(site, NULL, rows, n, n, 1, (32, 8)),), tactic="scan_warps")
    parts = _parts(rows, n, site.target.multiprocessors * _ENOUGH, 4096)
    part = -(-n // (parts * 4)) * 4  # whole packs
    parts = -(-n // part)
    if parts == 1:
        return Lowered((_row_launch(site, NULL, rows, n, n, 1, (BLOCK,)),), tactic="scan_blocks")
    totals = Operand.scratch(0)
    actions = (
        _row_launch(site, totals, rows, n, part, parts, (BLOCK,), write=False),
        _totals(site, rows, parts, 1),
        _row_launch(site, totals, rows, n, part, parts, (BLOCK,)),
    )
    return Lowered(actions, (rows * parts * _accumulator_nbytes(site),), tactic="scan_blocks_in_parts")


def _parts(lines: int, n: int, enough: int, least: int) -> int:
    """How many parts lines of n elements are cut into, so that there are ``enough`` of them of ``least`` elements."""
    return max(1, min(-(-enough // lines), n // least, _PARTS)) if lines * 2 < enough else 1


def _row_launch(
    site: Site, totals: Argument, rows: int, n: int, part: int, parts: int, block: tuple[int, ...], write: bool = True
) -> Launch[Operand]:
    index = np.dtype(index_dtype(math.prod(site.shape(0)))).type
    count = rows * parts
    blocks = min(-(-count // (8 if len(block) > 1 else 1)), site.target.multiprocessors * 32)
    arguments: tuple[Argument, ...] = (
        *inputs(0), Operand.output(0) if write else NULL, totals, index(count), index(n), index(part), index(parts),
        np.int32(site.attr("exclusive", 0)), np.int32(site.attr("reverse", 0)),
    )  # fmt: skip
    return Launch(_kernel(site, "scan_rows"), (blocks,), block, arguments)


def _columns(
    site: Site, axis: int | None, totals: Argument, threads: int, parts: int, part: int, write: bool = True
) -> Launch[Operand]:
    index = np.dtype(index_dtype(math.prod(site.shape(0))))
    arguments: tuple[Argument, ...] = (
        *inputs(0), Operand.output(0) if write else NULL, totals, np.array(site.shape(0), index),
        np.int32(axis or 0), Operand.input(1) if axis is None else NULL, index.type(part), index.type(parts),
        np.int32(site.attr("exclusive", 0)), np.int32(site.attr("reverse", 0)),
    )  # fmt: skip
    return launch_over(_kernel(site, "scan_columns"), threads, arguments, site.target.multiprocessors)


def _totals(site: Site, columns: int, parts: int, inner: int) -> Launch[Operand]:
    index = np.dtype(index_dtype(math.prod(site.shape(0)))).type
    arguments: tuple[Argument, ...] = (Operand.scratch(0), index(columns), index(parts), index(inner))
    return launch_over(_kernel(site, "scan_totals"), columns * 32, arguments, site.target.multiprocessors)


def _kernel(site: Site, name: str) -> Kernel:
    dtype = site.dtype()
    # Sums and products of integers are the same bits with and without a sign.
    element = bits_type(dtype) if dtype.is_integer and dtype.bits >= 8 else c_type(dtype)
    defines = (
        ("MI_T", element),
        ("MI_C", _accumulator(site)),
        ("MI_PRODUCT", str(int(site.node.op == "CumProd"))),
        ("MI_RANK", str(max(len(site.shape(0)), 1))),
        ("MI_AXIS", c_type(site.dtype(1))),
        ("MI_INDEX", index_name(math.prod(site.shape(0)))),
    )
    return Kernel(name, "scan_ops.cu", defines)


def _accumulator(site: Site) -> str:
    dtype = site.dtype()
    wide = dtype.bits == 64
    return ("f64" if wide else "f32") if dtype.is_float else ("u64" if wide else "u32")


def _accumulator_nbytes(site: Site) -> int:
    return 8 if site.dtype().bits == 64 else 4
