"""Products of 8-bit integers by constant matrices, as products of f32 that are exact."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.exact_parts import centred_weights, exact_cuts
from miniinfer_cli.backends.cpu.routine import Routine, Site, each_time, lowers, shape_of
from miniinfer_cli.ir import Array
from miniinfer_cli.ops.products import multiply
from miniinfer_cli.ops.quantized_matmul import per_row

_STREAMED_NBYTES = 8 << 20  # of a matrix in f32: what is larger does not stay in the cache from run to run
_BLOCK = 512  # columns


@lowers("MatMulInteger")
def lower_matmul_integer(site: Site) -> Routine | None:
    """``a`` times a constant matrix with a constant zero point, or none."""
    a, b = shape_of(site.inputs[0]), shape_of(site.inputs[1])
    if len(a) < 2 or len(b) != 2:
        return None
    rows = math.prod(a[:-1])
    if 4 * math.prod(b) > _STREAMED_NBYTES:
        narrow = centred_weights(
            site, 1, 3, "matrix", lambda array: array, narrow=True, kept=lambda a: len(exact_cuts(a, 0, 1)) == 1
        )
        if narrow is not None and narrow.size:
            return _streamed(site, narrow, rows)
    matrix = centred_weights(site, 1, 3, "matrix", lambda array: array)
    if matrix is None:
        return None
    wide = matrix
    cuts = exact_cuts(wide, 0, 1)
    for_each = site.threads

    def run(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> None:
        x = _centred(inputs, rows)
        out = outputs[0].reshape(rows, b[1])
        total = scratch.view(np.float32).reshape(out.shape)
        if not cuts:
            out[...] = 0
        for number, cut in enumerate(cuts):
            multiply(x[:, cut], wide[cut], total, for_each)
            if number:
                out += total.astype(np.int32)
            else:
                np.copyto(out, total, casting="unsafe")

    return Routine(each_time(run), scratch_nbytes=rows * b[1] * 4, tactic="exact gemm")


def _streamed(site: Site, narrow: Array, rows: int) -> Routine:
    """The matrix, of small integers, widened some columns at a time.

    A large one comes from memory, which takes longer than to multiply it by few rows: of 8-bit numbers a quarter comes.
    """
    depth, columns = narrow.shape
    starts = range(0, columns, _BLOCK)
    blocks = [narrow[:, start : start + _BLOCK] for start in starts]
    threads = site.threads
    each = depth * _BLOCK + rows * _BLOCK

    def run(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> None:
        x = _centred(inputs, rows)
        out = outputs[0].reshape(rows, columns)
        buffers = list(scratch.view(np.float32).reshape(-1, each))

        def block(number: int) -> None:
            buffer = buffers.pop()  # there is one for each thread
            held = blocks[number]
            matrix = buffer[: held.size].reshape(held.shape)
            product = buffer[depth * _BLOCK :][: rows * held.shape[1]].reshape(rows, held.shape[1])
            np.copyto(matrix, held)
            np.matmul(x, matrix, out=product)
            np.copyto(out[:, starts[number] : starts[number] + _BLOCK], product, casting="unsafe")
            buffers.append(buffer)

        threads(len(blocks), block)

    count = min(len(blocks), threads.count)
    return Routine(each_time(run), scratch_nbytes=count * each * 4, tactic="exact gemm in blocks")


def _centred(inputs: Sequence[Any], rows: int) -> Array:
    """The first operand less its zero point, as a matrix."""
    x: Array = inputs[0].astype(np.float32)
    if len(inputs) > 2 and inputs[2] is not None:
        x -= per_row(inputs[2]).astype(np.float32)
    return x.reshape(rows, x.shape[-1])
