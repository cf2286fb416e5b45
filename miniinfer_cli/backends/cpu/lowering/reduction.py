"""Sums, means and extremes over constant axes straight into the arena, as the references compute them."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Routine, Site, contents_behind_first, lowers, shape_of
from miniinfer_cli.ir import Array, DType
from miniinfer_cli.ops.products import Call, in_order
from miniinfer_cli.ops.sums import add_up

_FOLDS: dict[str, tuple[np.ufunc, bool]] = {
    "ReduceSum": (np.add, False), "ReduceMean": (np.add, True),
    "ReduceMax": (np.maximum, False), "ReduceMin": (np.minimum, False),
    "GlobalAveragePool": (np.add, True), "GlobalMaxPool": (np.maximum, False),
}  # fmt: skip
"""What folds two elements, and whether the result is divided by their number."""


@lowers("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")
def lower_reduction(site: Site) -> Routine | None:
    """Over axes that are known; all of them where none is named."""
    x = shape_of(site.inputs[0])
    given = contents_behind_first(site)
    if given is None:
        return None
    (axes,) = given or (None,)
    if axes is None or axes.size == 0:
        chosen = () if site.node.attrs.get("noop_with_empty_axes", 0) else tuple(range(len(x)))
    else:
        chosen = tuple(int(a) % len(x) for a in axes.reshape(-1)) if x else ()
    return _folded(site, *_FOLDS[site.node.op], chosen)


@lowers("GlobalAveragePool", "GlobalMaxPool")
def lower_global_pool(site: Site) -> Routine | None:
    """Over all axes behind the channels."""
    rank = len(shape_of(site.inputs[0]))
    return _folded(site, *_FOLDS[site.node.op], tuple(range(2, rank)))


@lowers("GlobalAveragePoolNHWC", domain="miniinfer")
def lower_global_average_pool_nhwc(site: Site) -> Routine | None:
    """Over all axes between the batch and the channels."""
    rank = len(shape_of(site.inputs[0]))
    return _folded(site, np.add, True, tuple(range(1, rank - 1)))


def _folded(site: Site, fold: np.ufunc, mean: bool, axes: tuple[int, ...]) -> Routine | None:
    """None for what is not f32 or f64, and where nothing is folded."""
    shape = shape_of(site.inputs[0])
    count = math.prod(shape[a] for a in axes)
    if site.outputs[0].dtype not in (DType.F32, DType.F64) or not count or not axes or len(set(axes)) < len(axes):
        return None
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape))

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        out = outputs[0].reshape(kept)
        calls: list[Call] = [
            functools.partial(add_up, inputs[0], axes, keep=True, out=out)
            if fold is np.add
            else functools.partial(fold.reduce, inputs[0], axis=axes, out=out, keepdims=True)
        ]
        if mean:
            calls.append(functools.partial(np.divide, out, out.dtype.type(count), out))
        return in_order(*calls)

    return Routine(prepare, tactic="fold")
