"""Convolutions as matrix products straight into the arena, weights upcast and laid out once."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.operands import operand
from miniinfer_cli.backends.cpu.routine import Routine, Site, lowers, shape_of
from miniinfer_cli.ir import Array, numpy_dtype
from miniinfer_cli.ops.convolve import Geometry, conv_channels_last, conv_scratch_nbytes
from miniinfer_cli.ops.products import Then
from miniinfer_cli.ops.windows import window


@lowers("ConvNHWC", domain="miniinfer")
def lower_conv_nhwc(site: Site) -> Routine | None:
    """Channels-last convolution; weights are ``[K, spatial..., C/group]``."""
    compute = site.compute_dtype()
    if compute is None:
        return None
    node, dtype = site.node, numpy_dtype(compute)
    x_shape, w_shape = shape_of(site.inputs[0]), shape_of(site.inputs[1])
    names = ("strides", "dilations", "pads", "auto_pad")
    stated = window("ConvNHWC", w_shape[1:-1], **{k: node.attrs[k] for k in names if k in node.attrs})
    geometry = Geometry.of(stated, x_shape[1:-1], node.attrs.get("group", 1))
    threads = site.threads
    scratch_nbytes = conv_scratch_nbytes(x_shape, w_shape, dtype.itemsize, geometry, threads=threads.count)
    load = [operand(site, i, dtype) for i in range(len(site.inputs))]

    def run(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array, then: Then | None = None) -> None:
        x, w, *bias = [None if a is None else get(a) for get, a in zip(load, inputs, strict=True)]
        assert x is not None
        assert w is not None
        out = outputs[0]
        wide = out if out.dtype == dtype else np.empty(out.shape, dtype)
        bias_row = bias[0] if bias else None
        conv_channels_last(x, w, bias_row, geometry, out=wide, scratch=scratch, for_each=threads, then=then)
        if wide is not out:
            np.copyto(out, wide, casting="unsafe")

    follows = numpy_dtype(site.outputs[0].dtype) == dtype
    tactic = "conv as gemm" if geometry.group == 1 else "grouped conv"
    return Routine(run, scratch_nbytes=scratch_nbytes, tactic=tactic, run_then=run if follows else None)
