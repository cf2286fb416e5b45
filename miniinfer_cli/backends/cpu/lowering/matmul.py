"""MatMul and Gemm by BLAS straight into the arena; the epilogue of a fused region follows each part of a MatMul."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.operands import anew, operand, stays
from miniinfer_cli.backends.cpu.routine import Routine, Site, lowers, shape_of
from miniinfer_cli.ir import Array, numpy_dtype
from miniinfer_cli.ops.products import Call, Then, in_order, multiply, prepare_product


@lowers("MatMul")
def lower_matmul(site: Site) -> Routine | None:
    """One product, in parts, into the output; a batch that shares one matrix becomes the rows of a single product."""
    compute = site.compute_dtype()
    if compute is None:
        return None
    a, b = (shape_of(t) for t in site.inputs)
    if len(a) < 2 or len(b) < 2:
        return None
    dtype = numpy_dtype(compute)
    load = [operand(site, i, dtype) for i in (0, 1)]
    collapse = len(b) == 2 and len(a) > 2
    out_shape = shape_of(site.outputs[0])
    rows = math.prod(a[:-1])
    for_each = site.threads

    def ready(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array, then: Then | None = None) -> Call:
        x, w, out = load[0](inputs[0]), load[1](inputs[1]), outputs[0]
        if collapse:
            x, out = x.reshape(rows, a[-1]), out.reshape(rows, b[-1])
        if out.dtype == dtype:
            return prepare_product(x, w, out, for_each, then)
        return lambda: np.copyto(out, multiply(x, w, for_each=for_each), casting="unsafe")

    prepare = ready if stays(site, dtype) else anew(ready)
    is_matrix = collapse or len(out_shape) == 2
    follows = is_matrix and numpy_dtype(site.outputs[0].dtype) == dtype
    return Routine(prepare, tactic="gemm" if is_matrix else "batched gemm", prepare_then=prepare if follows else None)


@lowers("Gemm")
def lower_gemm(site: Site) -> Routine | None:
    """alpha * A' B' + beta * C, with transposes as views."""
    compute = site.compute_dtype()
    if compute is None:
        return None
    attrs, dtype = site.node.attrs, numpy_dtype(compute)
    alpha, beta = attrs.get("alpha", 1.0), attrs.get("beta", 1.0)
    trans = [bool(attrs.get(k, 0)) for k in ("transA", "transB")]
    load = [operand(site, i, dtype) for i in range(len(site.inputs))]
    for_each = site.threads
    has_c = len(site.inputs) > 2 and site.inputs[2] is not None and beta != 0

    def ready(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        a, b = (load[i](inputs[i]) for i in (0, 1))
        out = outputs[0]
        wide = out if out.dtype == dtype else np.empty(out.shape, dtype)
        calls = [prepare_product(a.T if trans[0] else a, b.T if trans[1] else b, wide, for_each)]
        if alpha != 1:
            calls.append(functools.partial(np.multiply, wide, dtype.type(alpha), wide))
        if has_c:
            c = load[2](inputs[2])
            calls.append(
                functools.partial(np.add, wide, c, wide) if beta == 1 else lambda: np.add(wide, c * dtype.type(beta), wide)
            )
        if wide is not out:
            calls.append(functools.partial(np.copyto, out, wide, casting="unsafe"))
        return in_order(*calls)

    return Routine(ready if stays(site, dtype) else anew(ready), tactic="gemm")
