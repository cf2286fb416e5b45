"""LayerNormalization and RMSNormalization along the last axis in cache-sized groups of rows, on all threads."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Routine, Site, lowers, shape_of
from miniinfer_cli.ir import Array, DType
from miniinfer_cli.ops.layer_normalization import inverse_root_mean_square
from miniinfer_cli.ops.products import Call, in_order
from miniinfer_cli.ops.type_codes import dtype_of_code

_GROUP = 1 << 15  # elements


@lowers("LayerNormalization", "RMSNormalization")
def lower_layer_normalization(site: Site) -> Routine | None:
    """Of f32 throughout, with a scale, perhaps a bias, for each column; by the reference's formula, in the output's memory."""
    attrs, shape = site.node.attrs, shape_of(site.outputs[0])
    kinds = [kind for kind in (*site.inputs, *site.outputs) if kind is not None]
    stash = dtype_of_code(attrs.get("stash_type", 1))
    if len(site.outputs) != 1 or not shape or any(kind.dtype is not DType.F32 for kind in kinds) or stash.bits > 32:
        return None
    columns = shape[-1]
    if not math.prod(shape) or attrs.get("axis", -1) % len(shape) != len(shape) - 1:
        return None
    if any(shape_of(kind) != (*(1,) * (len(shape_of(kind)) - 1), columns) for kind in site.inputs[1:] if kind is not None):
        return None
    rows = math.prod(shape[:-1])
    step = max(_GROUP // columns, 1)
    parts = [slice(start, start + step) for start in range(0, rows, step)]
    centred, epsilon, threads = site.node.op == "LayerNormalization", attrs.get("epsilon", 1e-5), site.threads

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        x, y = inputs[0].reshape(rows, columns), outputs[0].reshape(rows, columns)
        scale, *bias = [operand.reshape(columns) for operand in inputs[1:] if operand is not None]
        calls = [functools.partial(_normalize, x[part], y[part], centred, epsilon, scale, *bias) for part in parts]
        if len(calls) == 1 or threads.count == 1:
            return in_order(*calls)
        return functools.partial(threads, len(calls), lambda number: calls[number]())

    return Routine(prepare, in_place={0: (0,)}, tactic="row groups")


def _normalize(x: Array, y: Array, centred: bool, epsilon: float, scale: Array, bias: Array | None = None) -> None:
    """Rows of ``x`` into ``y``, which may be ``x``."""
    if centred:
        mean = np.add.reduce(x, axis=1, keepdims=True)
        mean /= x.shape[1]
        np.subtract(x, mean, y)
        np.multiply(y, inverse_root_mean_square(y, epsilon), y)
    else:
        np.multiply(x, inverse_root_mean_square(x, epsilon), y)
    np.multiply(y, scale, y)
    if bias is not None:
        np.add(y, bias, y)
