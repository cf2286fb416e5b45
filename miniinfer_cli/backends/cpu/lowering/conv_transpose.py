"""Transposed convolutions with the channels last, straight into the arena; weights are upcast once."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.operands import anew, operand, stays
from miniinfer_cli.backends.cpu.routine import Routine, Site, lowers, shape_of
from miniinfer_cli.ir import Array, numpy_dtype
from miniinfer_cli.ops.conv_transpose import transpose_padding
from miniinfer_cli.ops.convolve_transposed import Spread, conv_transpose_scratch_nbytes, prepare_conv_transpose
from miniinfer_cli.ops.products import Call, Then, in_order
from miniinfer_cli.ops.windows import window


@lowers("ConvTransposeNHWC", domain="miniinfer")
def lower_conv_transpose_nhwc(site: Site) -> Routine | None:
    """Channels-last transposed convolution; weights are ``[C, kernel..., K/group]``."""
    compute = site.compute_dtype()
    if compute is None:
        return None
    dtype, attrs, threads = numpy_dtype(compute), site.node.attrs, site.threads
    x_shape, w_shape, out_shape = shape_of(site.inputs[0]), shape_of(site.inputs[1]), shape_of(site.outputs[0])
    names = ("strides", "dilations", "pads", "auto_pad")
    geometry = window(site.node.op, w_shape[1:-1], **{k: attrs[k] for k in names if k in attrs})
    begin = transpose_padding(geometry, x_shape[1:-1], attrs.get("output_padding"), attrs.get("output_shape"))
    spread = Spread(geometry.strides, begin, geometry.dilations, attrs.get("group", 1))
    load = [operand(site, i, dtype) for i in range(len(site.inputs))]

    def ready(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array, then: Then | None = None) -> Call:
        x, w, bias = ([None if a is None else get(a) for get, a in zip(load, inputs, strict=True)] + [None])[:3]
        assert x is not None
        assert w is not None
        out = outputs[0]
        wide = out if out.dtype == dtype else np.empty(out.shape, dtype)
        calls: list[Call] = []
        if not x.flags.c_contiguous:
            dense = np.empty(x.shape, dtype)
            calls, x = [functools.partial(np.copyto, dense, x)], dense
        calls.append(prepare_conv_transpose(x, w, bias, spread, out=wide, scratch=scratch, for_each=threads, then=then))
        if wide is not out:
            calls.append(functools.partial(np.copyto, out, wide, casting="unsafe"))
        return in_order(*calls)

    follows = numpy_dtype(site.outputs[0].dtype) == dtype
    constants = all(kind is None or handle is not None for kind, handle in zip(site.inputs[1:], site.handles[1:], strict=True))
    prepare = ready if follows and constants and stays(site, dtype) else anew(ready)
    nbytes = conv_transpose_scratch_nbytes(x_shape, w_shape, out_shape, dtype.itemsize, spread, threads=threads.count)
    return Routine(prepare, scratch_nbytes=nbytes, tactic="taps as gemm", prepare_then=prepare if follows else None)
