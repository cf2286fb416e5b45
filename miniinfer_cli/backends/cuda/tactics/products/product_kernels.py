"""Our kernels for matrix products: tiles, a few rows at a time, and parts of k added up."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.steps import NULL, Action, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, computed_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, launch_over, power_of_two_from
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands, Product, estimate_of
from miniinfer_cli.ir import DType

_MOST_MATRICES = 65535  # along the third axis of a grid; a block takes further ones in turn
_AXES = 4  # batch axes that a kernel walks
_ACTIVATIONS = {Activation.NONE: 0, Activation.RELU: 1, Activation.GELU_TANH: 2}


@dataclass(frozen=True, slots=True)
class _Form:
    """A product in the kernels' terms: distances both ways in D, so that the product may be seen from its other side."""

    product: Product
    operands: Operands
    d: tuple[int, int]

    def turned(self) -> "_Form":
        """The transposed product: B's columns are its rows."""
        p, o = self.product, self.operands
        turned = replace(
            p,
            m=p.n,
            n=p.m,
            a=p.b,
            b=p.a,
            transpose_a=not p.transpose_b,
            transpose_b=not p.transpose_a,
            lda=p.ldb,
            ldb=p.lda,
            c=p.c and p.c[::-1],
            bias=p.bias and p.bias[::-1],
            batch=tuple(replace(axis, a=axis.b, b=axis.a) for axis in p.batch),
        )
        return _Form(turned, replace(o, a=o.b, b=o.a), self.d[::-1])


def kernel_tactics(
    product: Product, operands: Operands, target: Target, table: ProductHeuristic = PRODUCTS
) -> tuple[Tactic, ...]:
    """The product by our kernels, the heuristic's favourite first; not an empty one. None where a size is beyond an int."""
    if max(product.m, product.n, product.k) >= 1 << 31:
        return ()
    whole = _Form(replace(product, batch=product.batch[-_AXES:]), operands, (product.ldd, 1))
    ways: list[_Way] = []
    if product.a_zero is None and product.b_zero is None and product.k > 0:
        if product.m <= table.few_rows:
            ways += _row_ways(whole, False, target, table)
        elif product.n <= table.few_rows:
            ways += _row_ways(whole.turned(), True, target, table)
    tiles = [table.small_tile, *([table.large_tile] if _accumulator(product) != "f64" and element_nbytes(product.d) < 8 else [])]
    if _tile_count(whole.product, tiles[-1]) >= target.multiprocessors:
        tiles.reverse()
    for tile in tiles:
        ways += _tile_ways(whole, tile, target, table)

    estimate = estimate_of(product)

    def tactic(way: _Way) -> Tactic:
        return Tactic(way.key, lambda work: _emit(work, way, product, operands, target), _estimate(way, product, estimate))

    return tuple(map(tactic, ways))


@dataclass(frozen=True, slots=True)
class _Way:
    """One of our kernels with its parameters. ``launch`` takes a form at one place, k of a part, the parts, scratch.

    ``tile``: the side of its tiles, 0 where it has none.
    """

    name: str
    parts: int
    launch: Callable[[_Form, int, int, Operand | None], Action]
    k_part: int
    is_turned: bool = False
    tile: int = 0

    @property
    def key(self) -> str:
        """Its name, and the number of parts where there are several."""
        return f"{self.name} in {self.parts} parts" if self.parts > 1 else self.name


def _estimate(way: _Way, p: Product, whole: Estimate) -> Estimate:
    """As the product has it; tiles that are partly empty are multiplied whole, and parts of k are written and read again."""
    flops = whole.flops
    if way.tile:
        flops = 2 * (-(-p.m // way.tile) * way.tile) * (-(-p.n // way.tile) * way.tile) * p.k * p.matrices
    sums = way.parts * p.m * p.n * p.matrices if way.parts > 1 else 0
    return Estimate(flops + sums, whole.nbytes + 2 * sums * _part_nbytes(p))


def _part_nbytes(p: Product) -> int:
    """Bytes of a sum of a part."""
    return 8 if _accumulator(p) in ("f64", "i64", "u64") else 4


def _emit(work: Work, way: _Way, product: Product, operands: Operands, target: Target) -> None:
    """The launches for each place of the batch axes that kernels do not walk; they take turns in one scratch buffer."""
    outer, inner = product.batch[:-_AXES], product.batch[-_AXES:]
    whole = replace(product, batch=inner)
    nbytes = way.parts * whole.matrices * product.m * product.n * _part_nbytes(product)
    scratch = work.scratch(nbytes) if way.parts > 1 else None
    for place in itertools.product(*(range(axis.size) for axis in outer)):
        form = _Form(whole, operands.moved(product, outer, place), (product.ldd, 1))
        form = form.turned() if way.is_turned else form
        work.add(way.launch(form, way.k_part, way.parts, scratch))
        if scratch is not None:
            work.add(_add_parts(form, scratch, way.parts, target))


def _tile_ways(form: _Form, tile: int, target: Target, table: ProductHeuristic) -> list[_Way]:
    p = form.product
    count = _tile_count(p, tile)
    wanted = 1 if count >= target.multiprocessors else table.tile_blocks * target.multiprocessors // count
    name, launch = f"gemm {tile}x{tile}", partial(_launch_tiles, tile)
    cuts = _parts_of(p.k, wanted, table.tile_part, table)
    return [_Way(name, parts, launch, k_part, tile=tile) for k_part, parts in cuts]


def _launch_tiles(tile: int, form: _Form, k_part: int, parts: int, scratch: Operand | None) -> Action:
    p, o = form.product, form.operands
    packs = []
    for dtype, along_k, rows, ld, operand, name in (
        (p.a, not p.transpose_a, p.m, p.lda, o.a, "a"),
        (p.b, p.transpose_b, p.n, p.ldb, o.b, "b"),
    ):
        largest = min(16 // element_nbytes(dtype), tile * 16 // BLOCK)
        steps = [ld, p.k if along_k else rows, *(int(getattr(axis, name)) for axis in p.batch)]
        packs.append(_pack(largest, steps, dtype, operand))
    zero_points = p.a_zero is not None or p.b_zero is not None
    defines = (
        *_types(p),
        ("MI_TILE", str(tile)),
        ("MI_TRANSPOSE_A", str(int(p.transpose_a))),
        ("MI_TRANSPOSE_B", str(int(p.transpose_b))),
        ("MI_PACK_A", str(packs[0])),
        ("MI_PACK_B", str(packs[1])),
        ("MI_ZERO_POINTS", str(int(zero_points))),
    )
    per_matrix = -(-p.m // tile) * -(-p.n // tile)
    arguments = (
        *_pointers(o, scratch),
        o.a_zero or NULL,
        o.b_zero or NULL,
        *(np.int32(s) for s in (p.m, p.n, p.k, k_part)),
        np.int64(p.lda),
        np.int64(p.ldb),
        *_ending(form),
    )
    return Launch(Kernel("gemm", "gemm.cu", defines), (per_matrix, parts, min(p.matrices, _MOST_MATRICES)), (BLOCK,), arguments)


def _row_ways(form: _Form, is_turned: bool, target: Target, table: ProductHeuristic) -> list[_Way]:
    p = form.product
    pack, blocks = _row_pack(form), _row_blocks(form) * p.matrices
    scarce = blocks < table.scarce_row_blocks * target.multiprocessors
    wanted = table.row_blocks * target.multiprocessors // blocks if scarce else 1
    least = 32 * pack * table.loads_along_k if p.transpose_b else table.part_along_n
    name = "gemv_along_k" if p.transpose_b else "gemv_along_n"
    return [_Way(name, parts, _launch_rows, k_part, is_turned) for k_part, parts in _parts_of(p.k, wanted, least, table)]


def _row_pack(form: _Form) -> int:
    """Elements of B per load."""
    p = form.product
    steps = [p.ldb, p.k if p.transpose_b else p.n, *(axis.b for axis in p.batch)]
    return _pack(16 // element_nbytes(p.b), steps, p.b, form.operands.b)


def _row_blocks(form: _Form) -> int:
    """Blocks that a matrix takes."""
    p = form.product
    return -(-p.n // 8) if p.transpose_b else -(-p.n // (32 * _row_pack(form)))


def _launch_rows(form: _Form, k_part: int, parts: int, scratch: Operand | None) -> Action:
    p, o = form.product, form.operands
    pack = _row_pack(form)
    left = (1, p.lda) if p.transpose_a else (p.lda, 1)
    steps = [left[0] if p.m > 1 else 0, p.k, *(axis.a for axis in p.batch)]
    pack_a = pack if left[1] == 1 and p.transpose_b and _pack(pack, steps, p.a, o.a) == pack else 1
    pack_a = min(pack_a, 16 // element_nbytes(p.a))
    rows = power_of_two_from(p.m)
    defines = (*_types(p), ("MI_ROWS", str(rows)), ("MI_PACK", str(pack)), ("MI_PACK_A", str(pack_a)))
    arguments = (
        *_pointers(o, scratch),
        *(np.int32(s) for s in (p.m, p.n, p.k, k_part)),
        np.array(left, np.int64),
        np.int64(p.ldb),
        *_ending(form),
    )
    grid = (_row_blocks(form), parts, min(p.matrices, _MOST_MATRICES))
    name = "gemv_along_k" if p.transpose_b else "gemv_along_n"
    return Launch(Kernel(name, "gemv.cu", defines), grid, (32, 8), arguments)


def _add_parts(form: _Form, scratch: Operand, parts: int, target: Target) -> Action:
    """The launch that adds up the parts."""
    p, o = form.product, form.operands
    types = tuple(pair for pair in _types(p) if pair[0] in ("MI_D", "MI_ACC"))
    c, bias = (o.c or NULL), (o.bias or NULL)
    arguments = (scratch, o.d, c, bias, *(np.int32(s) for s in (parts, p.m, p.n)), *_ending(form))
    kernel = Kernel("add_parts", "product_parts.cu", types)
    return launch_over(kernel, p.matrices * p.m * p.n, arguments, target.multiprocessors)


def _parts_of(k: int, wanted: int, least: int, table: ProductHeuristic) -> list[tuple[int, int]]:
    """Lengths of a part of k and numbers of parts: about ``wanted``, none much shorter than ``least``; then other numbers."""
    favourite = _cut(k, max(1, min(wanted, k // least, table.most_parts)))
    others = (_cut(k, parts) for parts in table.other_parts if parts <= max(1, k // least))
    return list({cut[1]: cut for cut in (favourite, *others, favourite)}.values())


def _cut(k: int, parts: int) -> tuple[int, int]:
    """The length of a part, a multiple of 16, and the number of parts that there are then."""
    k_part = -(-k // parts)
    k_part = max(16, -(-k_part // 16) * 16)
    return k_part, max(1, -(-k // k_part))


def _pack(largest: int, steps: list[int], dtype: DType, operand: Operand) -> int:
    """Elements per load: ``largest`` where all steps are multiples of it and the operand is as aligned, else 1."""
    fits = all(step % largest == 0 for step in steps) and operand.offset % (largest * element_nbytes(dtype)) == 0
    return largest if fits else 1


def _tile_count(p: Product, tile: int) -> int:
    return -(-p.m // tile) * -(-p.n // tile) * p.matrices


def _accumulator(p: Product) -> str:
    return computed_type(p.d)


def _types(p: Product) -> tuple[tuple[str, str], ...]:
    return ("MI_A", c_type(p.a)), ("MI_B", c_type(p.b)), ("MI_D", c_type(p.d)), ("MI_ACC", _accumulator(p))


def _pointers(o: Operands, partial: Operand | None) -> tuple[Argument, ...]:
    return o.a, o.b, o.d, o.c or NULL, o.bias or NULL, partial or NULL


def _ending(form: _Form) -> tuple[Argument, ...]:
    """Places, Batches, alpha, beta and the activation."""
    p = form.product
    places = [*form.d, *(p.c or (0, 0)), *(p.bias or (0, 0)), p.a_zero or 0, p.b_zero or 0]
    axes = p.batch
    filler = [0] * (_AXES - len(axes))
    batches = [1] * len(filler) + [axis.size for axis in axes]
    for which in range(6):
        batches += [*filler, *(axis.strides[which] for axis in axes)]
    factor = np.float32 if _accumulator(p) == "f32" else np.float64
    activation = np.int32(_ACTIVATIONS[p.activation])
    return np.array(places, np.int64), np.array(batches, np.int64), factor(p.alpha), factor(p.beta), activation
