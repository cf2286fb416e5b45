"""Past and fresh keys and values of attention joined: in the present outputs, or in scratch where there are none."""

from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes, unit_type
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, blocks_for, index_dtype, index_name
from miniinfer_cli.backends.cuda.launching.strided_copy import widest_unit
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import PAST_KEY, PAST_VALUE, Form, K, Strides, V
from miniinfer_cli.ir import Array


def join_past(form: Form, joined: tuple[Operand | None, Operand | None], target: Target) -> tuple[list[Launch[Operand]], Form]:
    """Writes joined keys and values, those that are wanted, and gives the form that reads them.

    ``form.offset`` is the length of the past. Strides of the fresh keys and values are the form's.
    """
    nbytes = element_nbytes(form.dtype)
    fresh = form.strides[K], form.strides[V]
    sizes = form.size, form.v_size
    unit = widest_unit(nbytes, *(n for pair in zip(sizes, fresh, strict=True) for n in (pair[0], *pair[1])))
    counts = [
        0 if to is None else form.batch * form.kv_heads * form.keys * size // unit for to, size in zip(joined, sizes, strict=True)
    ]
    reach = [form.batch * strides[0] // unit for strides in fresh]
    launches = []
    if any(counts):
        largest = max(*counts, *reach)
        walks = [_walk(form, *parts, unit, largest) for parts in zip(counts, sizes, fresh, strict=True)]
        operands: list[Argument] = []
        for past, number, to in zip((PAST_KEY, PAST_VALUE), (K, V), joined, strict=True):
            operands += [Operand.input(past) if form.offset else NULL, Operand.input(number), NULL if to is None else to]
        division = [dividers((max(size // unit, 1), form.keys, form.kv_heads)) for size in sizes]
        kernel = Kernel("join_past", "join_past.cu", (("MI_T", unit_type(nbytes * unit)), ("MI_INDEX", index_name(largest))))
        grid = (blocks_for(max(counts), target.multiprocessors), 2)
        launches.append(Launch(kernel, grid, (BLOCK,), (*operands, *walks, *division)))
    q, k, v, y = form.strides
    if joined[0] is not None:
        k, form = _dense(form, form.size), replace(form, k=joined[0])
    if joined[1] is not None:
        v, form = _dense(form, form.v_size), replace(form, v=joined[1])
    return launches, replace(form, strides=(q, k, v, y))


def _walk(form: Form, count: int, size: int, strides: Strides, unit: int, largest: int) -> Array:
    """The argument ``Joined``."""
    steps = [s // unit for s in strides]
    return np.array([count, size // unit, form.keys, form.kv_heads, form.offset, *steps], index_dtype(largest))


def _dense(form: Form, size: int) -> Strides:
    return form.kv_heads * form.keys * size, form.keys * size, size
