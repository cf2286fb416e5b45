"""CumSum, CumProd."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.estimating import default_estimate, nbytes
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Lowered, Operand, inputs
from miniinfer_cli.backends.cuda.contract.tactic import Tactic, tactic_of
from miniinfer_cli.backends.cuda.contract.types import bits_type, c_type
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, index_dtype, index_name, launch_over

_MOST_PARTS = 1024  # parts that a row is cut into at most: one warp adds them up
_PACK = 4  # elements that a thread loads of a row


@dataclass(frozen=True, slots=True)
class ScanHeuristic:
    """The order is, of rows: a warp for each, where they are short; a block for each, in parts where there are too few blocks.

    Of columns: a thread for each, in parts where there are too few threads.
    """

    warp_row: int = 512
    """Elements of a row up to which a warp takes it."""
    blocks: int = 4
    """Blocks to a multiprocessor with which it is busy; parts are to make so many."""
    row_part: int = 4096
    """Elements of a part of a row, at least ..."""
    column_part: int = 32
    """... and of a column."""
    other_parts: tuple[int, ...] = (2, 8)
    """Numbers of parts that are offered besides the favourite."""


SCANS = ScanHeuristic()


@lowers("CumSum", "CumProd")
def lower_cumulative(site: Site) -> Lowered | tuple[Tactic, ...]:
    """A scan: by warps and blocks over rows where the axis is the last, by a thread for each column otherwise."""
    shape = site.shape(0)
    if math.prod(shape) == 0:
        return Lowered(())
    known = site.known(1)
    if known is None:
        return Lowered((_columns(site, None, NULL, math.prod(shape), 1, max(shape)),), tactic="scan by columns")
    return scan_tactics(site, int(known.reshape(-1)[0]) % len(shape))


def scan_tactics(site: Site, axis: int, table: ScanHeuristic = SCANS) -> tuple[Tactic, ...]:
    """The ways of a scan along a known axis, which writes something, the heuristic's favourite first."""
    shape, estimate = site.shape(0), default_estimate(site)
    n, inner = shape[axis], math.prod(shape[axis + 1 :])
    lines = math.prod(shape) // n
    enough = site.target.multiprocessors * table.blocks
    if inner == 1:
        name, least, pack, favourite = "blocks", table.row_part, _PACK, _favourite_parts(lines, n, enough, table.row_part)
    else:
        name, least, pack = "columns", table.column_part, 1
        favourite = _favourite_parts(lines, n, BLOCK * enough, least)

    def cut(parts: int) -> Tactic:
        part = -(-n // (parts * pack)) * pack
        parts = -(-n // part)
        if parts == 1:
            return tactic_of(f"scan by {name}", partial(_cut, site, axis, n, 1), estimate)
        again = Estimate(0, nbytes(site.types[0]) + 4 * lines * parts * _accumulator_nbytes(site))  # x, and the totals
        return tactic_of(f"scan by {name} in {parts} parts", partial(_cut, site, axis, part, parts), estimate + again)

    numbers = (favourite, 1, *(p for p in table.other_parts if p * pack <= n))
    by_key: dict[str, Tactic] = {}
    for tactic in map(cut, numbers):
        by_key.setdefault(tactic.key, tactic)
    cuts = tuple(by_key.values())
    if inner != 1:
        return cuts
    warps = tactic_of("scan by warps", lambda: Lowered((_row_launch(site, NULL, lines, n, n, 1, (32, 8)),)), estimate)
    return (warps, *cuts) if n <= table.warp_row else (*cuts, warps)


def _cut(site: Site, axis: int, part: int, parts: int) -> Lowered:
    """The scan in parts: their totals, these added up, then each part from where it starts."""
    shape = site.shape(0)
    inner = math.prod(shape[axis + 1 :])
    lines = math.prod(shape) // shape[axis]

    def launch(totals: Argument, *, write: bool = True) -> Launch[Operand]:
        if inner == 1:
            return _row_launch(site, totals, lines, shape[axis], part, parts, (BLOCK,), write)
        return _columns(site, axis, totals, lines * parts, parts, part, write)

    if parts == 1:
        return Lowered((launch(NULL),))
    totals = Operand.scratch(0)
    actions = (launch(totals, write=False), _totals(site, lines, parts, inner), launch(totals))
    return Lowered(actions, (lines * parts * _accumulator_nbytes(site),))


def _favourite_parts(lines: int, n: int, enough: int, least: int) -> int:
    """How many parts lines of n elements are cut into, so that there are ``enough`` of them of ``least`` elements."""
    return max(1, min(-(-enough // lines), n // least, _MOST_PARTS)) if lines * 2 < enough else 1


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
