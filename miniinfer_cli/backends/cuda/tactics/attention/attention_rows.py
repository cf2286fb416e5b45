"""Attention: queries whose probabilities are NaN, where neither the kernel nor the library takes care of them."""

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type
from miniinfer_cli.backends.cuda.launching.grids import launch_over
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Form


def clear_nan(form: Form, y: Operand, target: Target) -> tuple[Launch[Operand], ...]:
    """What puts the result of zeros in the place of NaN in ``y``; nothing where NaN stays."""
    if form.nan_rows != "zero":
        return ()
    kernel = Kernel("clear_nan", "attention_rows.cu", (("MI_T", c_type(form.dtype)), *form.nan_defines()))
    rows = form.batch * form.heads * form.queries
    strides: Argument = np.array(form.strides, np.int64).reshape(-1)
    counts = [np.int32(n) for n in (form.heads, form.group, form.queries, form.keys, form.v_size)]
    arguments: tuple[Argument, ...] = (form.v, y, strides, np.int64(rows), *counts)
    return (launch_over(kernel, rows * form.v_size, arguments, target.multiprocessors),)
