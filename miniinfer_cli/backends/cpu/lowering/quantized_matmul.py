"""Products of 8-bit integers by constant matrices, exact in f32: the matrix is converted once, and cut where sums would round."""

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Routine, Site, lowers, shape_of
from miniinfer_cli.ir import Array
from miniinfer_cli.ops.products import multiply
from miniinfer_cli.ops.quantized_matmul import per_row

_EXACT = 1 << 24  # whole numbers up to here are floats of 32 bits
_LARGEST = 255  # what an operand of 8 bits is away from its zero point at most


@lowers("MatMulInteger")
def lower_matmul_integer(site: Site) -> Routine | None:
    """``a`` times a constant matrix with a constant zero point, or none, as sums of exact products of parts."""
    a, b = shape_of(site.inputs[0]), shape_of(site.inputs[1])
    handles = (*site.handles, None, None)[:4]
    matrix, zero = handles[1], handles[3]
    has_zero = len(site.inputs) > 3 and site.inputs[3] is not None
    if len(a) < 2 or len(b) != 2 or matrix is None or (has_zero and zero is None):
        return None
    point = None if zero is None else site.weights.array(zero)
    name = "" if point is None else hashlib.sha256(point.tobytes()).hexdigest()

    def centred(stored: Array) -> Array:
        return stored.astype(np.float32) if point is None else stored.astype(np.float32) - point.astype(np.float32)

    wide = site.weights.derived(matrix, f"less zero point {name}", centred)
    largest = max(float(np.abs(wide).max(initial=0)), 1.0)
    terms = max(int((_EXACT - 1) // (_LARGEST * largest)), 1)
    cuts = [slice(start, start + terms) for start in range(0, b[0], terms)]
    rows = int(np.prod(a[:-1], dtype=np.int64))
    for_each = site.threads

    def run(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> None:
        x = inputs[0].astype(np.float32)
        if len(inputs) > 2 and inputs[2] is not None:
            x -= per_row(inputs[2]).astype(np.float32)
        x, out = x.reshape(rows, a[-1]), outputs[0].reshape(rows, b[1])
        total = scratch.view(np.float32).reshape(out.shape)
        for cut, adds in zip(cuts, itertools.chain([False], itertools.repeat(True)), strict=False):
            multiply(x[:, cut], wide[cut], total, for_each)
            if adds:
                out += total.astype(np.int32)
            else:
                np.copyto(out, total, casting="unsafe")
        if not cuts:
            out[...] = 0

    return Routine(run, scratch_nbytes=rows * b[1] * 4, tactic="exact gemm")
