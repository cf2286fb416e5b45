"""Pad, CenterCropPad."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.strides import row_major
from miniinfer_cli.backends.cuda.contract.types import bits_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.launching.strided_copy import at, compiled_rank, copy_strided, is_movable, widest_unit

_MODES = {"constant": "0", "edge": "1", "reflect": "2", "wrap": "3"}  # as in padding.cu


@dataclass(frozen=True, slots=True)
class _Axis:
    """``size`` kept elements, ``stride`` apart in the source, ``before`` of the padding in front of them."""

    size: int
    stride: int
    before: int
    padded: int


@lowers("Pad")
def lower_pad(site: Site) -> Lowered | None:
    """Borders grown, or cropped where a pad is negative; the value to grow with is read on the device."""
    pads, axes = site.known(1), site.known(3)
    if not is_movable(site) or pads is None or (site.has(3) and axes is None):
        return None
    rank = len(site.shape(0))
    chosen = range(rank) if axes is None else [int(a) for a in axes.reshape(-1)]
    sizes = [int(n) for n in pads.reshape(-1)]
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(chosen):
        before[axis], after[axis] = sizes[i], sizes[i + len(chosen)]
    return _pad(site, before, after, site.attr("mode", "constant"), site.operand(2))


@lowers("CenterCropPad")
def lower_center_crop_pad(site: Site) -> Lowered | None:
    """The middle of what is too long, zeros around what is too short."""
    if not is_movable(site):
        return None
    before, after = [], []
    for have, want in zip(site.shape(0), site.out_shape(), strict=True):
        front = (want - have) // 2 if want >= have else -((have - want) // 2)
        before.append(front)
        after.append(want - have - front)
    return _pad(site, before, after, "constant", NULL)


def _pad(site: Site, before: Sequence[int], after: Sequence[int], mode: str, value: Argument) -> Lowered:
    shape, out_shape = site.shape(0), site.out_shape()
    if 0 in out_shape:
        return Lowered(())
    nbytes = element_nbytes(site.dtype())
    strides = row_major(shape)
    kept = [n + min(b, 0) + min(a, 0) for n, b, a in zip(shape, before, after, strict=True)]
    cropped = sum(max(-b, 0) * s for b, s in zip(before, strides, strict=True)) if 0 not in kept else 0
    source, target = at(Operand.input(0), cropped * nbytes), Operand.output(0)
    if tuple(kept) == out_shape:
        return Lowered((copy_strided(target, source, nbytes, out_shape, row_major(out_shape), strides, site.target),))
    axes = _merge([_Axis(*a) for a in zip(kept, strides, [max(b, 0) for b in before], out_shape, strict=True)], mode)
    axes, width = _widen(axes, nbytes, cropped, mode)
    count = math.prod(a.padded for a in axes)
    largest = max(count, 1 + sum(a.stride * max(a.size - 1, 0) for a in axes))
    rank = compiled_rank(len(axes))
    axes = [_Axis(1, 0, 0, 1)] * (rank - len(axes)) + axes
    index = index_dtype(largest)
    sizes = [a.padded for a in axes]
    kernel = Kernel(
        "pad",
        "padding.cu",
        (
            ("MI_T", bits_type(site.dtype())),
            ("MI_WIDTH", str(width)),
            ("MI_MODE", _MODES[mode]),
            ("MI_RANK", str(rank)),
            ("MI_INDEX", index_name(largest)),
        ),
    )
    arguments = (
        source,
        target,
        value,
        index.type(count),
        np.array(sizes, index),
        dividers(sizes),
        np.array([a.before for a in axes], index),
        np.array([a.size for a in axes], index),
        np.array([a.stride for a in axes], index),
    )
    return Lowered((launch_over(kernel, count, arguments, site.target.multiprocessors),), tactic=f"pad {mode}")


def _merge(axes: Sequence[_Axis], mode: str) -> list[_Axis]:
    """Axes joined with the axis in front where nothing was cut off or put around them. A constant's border may be in
    elements of the joined axis; the other modes need both axes whole."""
    merged: list[_Axis] = []
    for axis in axes:
        last = merged[-1] if merged else None
        whole = axis.size == axis.padded
        joins = last is not None and whole and last.stride == axis.stride * axis.size and axis.size
        if last is not None and joins and (mode == "constant" or last.size == last.padded):
            n = axis.size
            merged[-1] = _Axis(last.size * n, axis.stride, last.before * n, last.padded * n)
        else:
            merged.append(axis)
    return merged


def _widen(axes: list[_Axis], nbytes: int, cropped: int, mode: str) -> tuple[list[_Axis], int]:
    """The axes in units of several elements, and how many."""
    last = axes[-1]
    if last.stride != 1 or not (mode == "constant" or last.size == last.padded):
        return axes, 1
    width = widest_unit(nbytes, last.size, last.before, last.padded, cropped, *(a.stride for a in axes[:-1]))
    rest = [_Axis(a.size, a.stride // width, a.before, a.padded) for a in axes[:-1]]
    return [*rest, _Axis(last.size // width, 1, last.before // width, last.padded // width)], width
