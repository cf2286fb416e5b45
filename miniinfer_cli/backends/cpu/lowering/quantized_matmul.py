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


@lowers("MatMulInteger")
def lower_matmul_integer(site: Site) -> Routine | None:
    """``a`` times a constant matrix with a constant zero point, or none."""
    a, b = shape_of(site.inputs[0]), shape_of(site.inputs[1])
    if len(a) < 2 or len(b) != 2:
        return None
    matrix = centred_weights(site, 1, 3, "matrix", lambda array: array)
    if matrix is None:
        return None
    wide = matrix
    cuts = exact_cuts(wide, 0, 1)
    rows = math.prod(a[:-1])
    for_each = site.threads

    def run(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> None:
        x = inputs[0].astype(np.float32)
        if len(inputs) > 2 and inputs[2] is not None:
            x -= per_row(inputs[2]).astype(np.float32)
        x, out = x.reshape(rows, a[-1]), outputs[0].reshape(rows, b[1])
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
