"""Actions that move elements between two strided layouts, in the widest units that both allow.

Offsets and strides are in elements of ``nbytes`` bytes; the axes are walked as given, the last one fastest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Argument, Copy, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.strides import merge_axes, row_major
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import unit_type
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.ir import DType, TensorType

UNIT = 16  # bytes that a thread moves at once, at most


@dataclass(frozen=True, slots=True)
class Layouts:
    """The same ``sizes`` under the strides of a target and a source, in units of ``nbytes``."""

    nbytes: int
    sizes: tuple[int, ...]
    destination: tuple[int, ...]
    source: tuple[int, ...]


def is_movable(site: Site) -> bool:
    """True when the node's data can be moved by the device: no strings, and outputs of known size."""
    return site.dtype() is not DType.STR and all(isinstance(t, TensorType) and t.is_static for t in site.results)


def at(operand: Operand, nbytes: int) -> Operand:
    """The operand from ``nbytes`` bytes further on."""
    return replace(operand, offset=operand.offset + nbytes)


def widest_unit(nbytes: int, *multiples: int) -> int:
    """How many elements of ``nbytes`` a unit of at most 16 bytes has when it must divide each of these numbers of elements."""
    width = UNIT // nbytes
    while any(m % width for m in multiples):
        width //= 2
    return width


def layouts(nbytes: int, sizes: Sequence[int], destination: Sequence[int], source: Sequence[int], *offsets: int) -> Layouts:
    """Merged axes; units as wide as a last axis dense on both sides allows, and the ``offsets`` in bytes of both operands."""
    merged, (targets, sources) = merge_axes(sizes, destination, source)
    if not merged or (targets[-1], sources[-1]) != (1, 1) or any(o % nbytes for o in offsets):
        return Layouts(nbytes, merged, targets, sources)
    width = widest_unit(nbytes, merged[-1], *targets[:-1], *sources[:-1], *(o // nbytes for o in offsets))
    merged, (targets, sources) = merge_axes(
        (*merged[:-1], merged[-1] // width),
        (*(s // width for s in targets[:-1]), 1),
        (*(s // width for s in sources[:-1]), 1),
    )
    return Layouts(nbytes * width, merged, targets, sources)


def copy_strided(
    destination: Operand,
    source: Operand,
    nbytes: int,
    sizes: Sequence[int],
    to: Sequence[int],
    come: Sequence[int],
    target: Target,
) -> Copy[Operand] | Launch[Operand]:
    """``destination[strides to] = source[strides come]`` over ``sizes``, none of which is 0.

    The destination's elements are distinct.
    """
    form = layouts(nbytes, sizes, to, come, destination.offset, source.offset)
    return copy_layouts(destination, source, form, target)


def copy_layouts(destination: Operand, source: Operand, form: Layouts, target: Target) -> Copy[Operand] | Launch[Operand]:
    """The same for what ``layouts`` gave."""
    if not form.sizes or (len(form.sizes) == 1 and form.destination == form.source == (1,)):
        return Copy(destination, source, form.nbytes * math.prod(form.sizes))
    sizes, targets = form.sizes, form.destination
    width = 1
    if targets[-1] == 1 and form.source[-1] == 0 and destination.offset % form.nbytes == 0:
        width = widest_unit(form.nbytes, sizes[-1], *targets[:-1], destination.offset // form.nbytes)
    if width > 1:
        sizes, targets = (*sizes[:-1], sizes[-1] // width), (*(s // width for s in targets[:-1]), 1)
    count = math.prod(sizes)
    largest = max(count, *(sum(abs(s) * (n - 1) for n, s in zip(sizes, w, strict=True)) for w in (targets, form.source)))
    rank = compiled_rank(len(sizes))
    dense = targets == row_major(sizes)
    defines = (
        ("MI_T", unit_type(form.nbytes)),
        ("MI_WIDTH", str(width)),
        ("MI_RANK", str(rank)),
        ("MI_DENSE", str(int(dense))),
        ("MI_INDEX", index_name(largest)),
    )
    kernel = Kernel("spread" if width > 1 else "copy", "copying.cu", defines)
    arguments = (source, destination, index_dtype(largest).type(count), *walk(rank, largest, sizes, form.source, targets))
    return launch_over(kernel, count, arguments, target.multiprocessors)


def compiled_rank(rank: int) -> int:
    """The number of axes that a kernel is compiled for: few values serve all ranks, the axes in front having one element."""
    return max(rank, 1) if rank <= 4 else -(-rank // 4) * 4


def walk(rank: int, largest: int, sizes: Sequence[int], *strides: Sequence[int]) -> tuple[Argument, ...]:
    """Arguments for ``offset_of`` of copying.cuh: the sizes, their dividers, and each of the strides, padded to ``rank``."""
    index: np.dtype[Any] = index_dtype(largest)
    padded = [1] * (rank - len(sizes)) + list(sizes)
    rows = (np.array([0] * (rank - len(s)) + list(s), index) for s in strides)
    return (np.array(padded, index), dividers(padded), *rows)
