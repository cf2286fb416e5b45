"""Our kernels for matrix products: tiles, a few rows at a time, and parts of k added up."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from miniinfer_cli.backends.cuda.grids import BLOCK, launch_over, power_of_two_from
from miniinfer_cli.backends.cuda.launching.product_records import Operands, Product, Solution
from miniinfer_cli.backends.cuda.problems import Activation
from miniinfer_cli.backends.cuda.site import Target
from miniinfer_cli.backends.cuda.steps import NULL, Action, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.types import c_type, computed_type, element_nbytes
from miniinfer_cli.ir import DType

FEW_ROWS = 8
_AXES = 4  # batch axes that a kernel walks
_MOST_PARTS = 1024
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


def launch_product(product: Product, operands: Operands, target: Target, scratch: int = 0) -> Solution | None:
    """The product by our kernels; not an empty one. None where a size is beyond an int."""
    if max(product.m, product.n, product.k) >= 1 << 31:
        return None
    outer, inner = product.batch[:-_AXES], product.batch[-_AXES:]
    whole = replace(product, batch=inner)
    way = _choose(whole)
    actions: list[Action] = []
    nbytes = 0
    tactic = ""
    for place in itertools.product(*(range(axis.size) for axis in outer)):
        moved = operands.moved(product, outer, place)
        launches, nbytes, tactic = way(_Form(whole, moved, (product.ldd, 1)), target, Operand.scratch(scratch))
        actions += launches
    return Solution(tuple(actions), (nbytes,) if nbytes else (), tactic)


_Way = Callable[[_Form, Target, Operand], tuple[list[Action], int, str]]


def _choose(p: Product) -> _Way:
    if p.a_zero is None and p.b_zero is None and p.k > 0:
        if p.m <= FEW_ROWS:
            return _few_rows
        if p.n <= FEW_ROWS:
            return lambda form, target, scratch: _few_rows(form.turned(), target, scratch)
    return _tiles


def _tiles(form: _Form, target: Target, scratch: Operand) -> tuple[list[Action], int, str]:
    p, o = form.product, form.operands
    tile = 64
    if _accumulator(p) != "f64" and element_nbytes(p.d) < 8 and _tile_count(p, 128) >= target.multiprocessors:
        tile = 128
    count = _tile_count(p, tile)
    k_part, parts = _parts(p.k, 1 if count >= target.multiprocessors else 2 * target.multiprocessors // count, 256)
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
        *_pointers(o, scratch if parts > 1 else None),
        o.a_zero or NULL,
        o.b_zero or NULL,
        *(np.int32(s) for s in (p.m, p.n, p.k, k_part)),
        np.int64(p.lda),
        np.int64(p.ldb),
        *_ending(form),
    )
    grid = (per_matrix, parts, min(p.matrices, 65535))
    launch = Launch(Kernel("gemm", "gemm.cu", defines), grid, (BLOCK,), arguments)
    return _with_parts([launch], form, target, scratch, parts, f"gemm {tile}x{tile}")


def _few_rows(form: _Form, target: Target, scratch: Operand) -> tuple[list[Action], int, str]:
    p, o = form.product, form.operands
    steps = [p.ldb, p.k if p.transpose_b else p.n, *(axis.b for axis in p.batch)]
    pack = _pack(16 // element_nbytes(p.b), steps, p.b, o.b)
    left = (1, p.lda) if p.transpose_a else (p.lda, 1)
    steps = [left[0] if p.m > 1 else 0, p.k, *(axis.a for axis in p.batch)]
    pack_a = pack if left[1] == 1 and p.transpose_b and _pack(pack, steps, p.a, o.a) == pack else 1
    pack_a = min(pack_a, 16 // element_nbytes(p.a))
    blocks = -(-p.n // 8) if p.transpose_b else -(-p.n // (32 * pack))
    blocks *= p.matrices
    wanted = 4 * target.multiprocessors // blocks if blocks < 2 * target.multiprocessors else 1
    k_part, parts = _parts(p.k, wanted, 32 * pack * 4 if p.transpose_b else 64)
    rows = power_of_two_from(p.m)
    defines = (*_types(p), ("MI_ROWS", str(rows)), ("MI_PACK", str(pack)), ("MI_PACK_A", str(pack_a)))
    name = "gemv_along_k" if p.transpose_b else "gemv_along_n"
    arguments = (
        *_pointers(o, scratch if parts > 1 else None),
        *(np.int32(s) for s in (p.m, p.n, p.k, k_part)),
        np.array(left, np.int64),
        np.int64(p.ldb),
        *_ending(form),
    )
    grid = (blocks // p.matrices, parts, min(p.matrices, 65535))
    launch = Launch(Kernel(name, "gemv.cu", defines), grid, (32, 8), arguments)
    return _with_parts([launch], form, target, scratch, parts, name)


def _with_parts(
    launches: list[Action], form: _Form, target: Target, scratch: Operand, parts: int, tactic: str
) -> tuple[list[Action], int, str]:
    """With the launch that adds up the parts, where there are several."""
    p, o = form.product, form.operands
    if parts == 1:
        return launches, 0, tactic
    count = p.matrices * p.m * p.n
    types = tuple(pair for pair in _types(p) if pair[0] in ("MI_D", "MI_ACC"))
    c, bias = (o.c or NULL), (o.bias or NULL)
    arguments = (scratch, o.d, c, bias, *(np.int32(s) for s in (parts, p.m, p.n)), *_ending(form))
    add = launch_over(Kernel("add_parts", "product_parts.cu", types), count, arguments, target.multiprocessors)
    item = 8 if _accumulator(p) in ("f64", "i64", "u64") else 4
    return [*launches, add], parts * count * item, f"{tactic} in {parts} parts"


def _parts(k: int, wanted: int, least: int) -> tuple[int, int]:
    """The length of a part of k and the number of parts: about ``wanted``, none much shorter than ``least``."""
    parts = max(1, min(wanted, k // least, _MOST_PARTS))
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
