"""Convolutions as matrix products, or by Winograd, straight into the arena; weights upcast and laid out once."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.operands import anew, operand, stays
from miniinfer_cli.backends.cpu.routine import Routine, Site, lowers, padded_nbytes, shape_of
from miniinfer_cli.backends.cpu.threads import Threads
from miniinfer_cli.ir import Array, numpy_dtype
from miniinfer_cli.ops.convolve import Geometry, conv_scratch_nbytes, prepare_conv, with_bias
from miniinfer_cli.ops.convolve_winograd import pays, prepare_winograd, scratch_elements, turned_weights
from miniinfer_cli.ops.products import Call, Then, in_order, prepare_product
from miniinfer_cli.ops.windows import window


@lowers("Conv")
def lower_conv(site: Site) -> Routine | None:
    """Channels-first convolution, of f32 or f64: as a product where it is one, else between two turns of the axes."""
    compute = site.compute_dtype()
    if compute is None or not stays(site, numpy_dtype(compute)) or site.outputs[0].dtype is not compute:
        return None
    dtype = numpy_dtype(compute)
    x_shape, w_shape = shape_of(site.inputs[0]), shape_of(site.inputs[1])
    geometry = geometry_of(site, w_shape[2:], x_shape[2:])
    g, threads = geometry, site.threads
    if g.group == 1 and math.prod(w_shape[2:]) == 1 and not g.is_padded and all(s == 1 for s in g.strides):
        return Routine(functools.partial(_points, threads), tactic="conv as gemm")
    last, w_last = (x_shape[0], *x_shape[2:], x_shape[1]), (w_shape[0], *w_shape[2:], w_shape[1])
    out_shape = shape_of(site.outputs[0])
    out_last = (out_shape[0], *out_shape[2:], out_shape[1])
    read, made = (padded_nbytes(math.prod(shape) * dtype.itemsize) for shape in (last, out_last))
    scratch_nbytes = read + made + conv_scratch_nbytes(last, w_last, dtype.itemsize, geometry, threads=threads.count)
    handle = site.handles[1]
    turned = (
        None
        if handle is None
        else site.weights.derived(handle, "channels last", lambda w: np.ascontiguousarray(channels_last(w)))
    )

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        x, w, bias = (*inputs, None)[:3]
        image = scratch[:read].view(dtype)[: math.prod(last)].reshape(last)
        result = scratch[read : read + made].view(dtype)[: math.prod(out_last)].reshape(out_last)
        filters = channels_last(w) if turned is None else turned
        room = scratch[read + made :]
        conv = prepare_conv(image, filters, bias, geometry, out=result, scratch=room, for_each=threads)
        into, back = (
            functools.partial(np.copyto, image, channels_last(x)),
            functools.partial(np.copyto, channels_last(outputs[0]), result),
        )
        return in_order(into, conv, back)

    return Routine(prepare if _has_constant_weights(site) else anew(prepare), scratch_nbytes=scratch_nbytes, tactic="turned conv")


def _has_constant_weights(site: Site) -> bool:
    """True where weights and bias are constants: they are laid out while a convolution is made ready."""
    return all(kind is None or handle is not None for kind, handle in zip(site.inputs[1:], site.handles[1:], strict=True))


def _points(threads: Threads, inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
    """Weights ``[K,C]`` times each image ``[C,P]``, and the bias."""
    x, w, bias = (*inputs, None)[:3]
    features, channels = w.shape[:2]
    count = math.prod(x.shape[2:])
    out, pixels = outputs[0].reshape(len(x), features, count), x.reshape(len(x), channels, count)
    product = prepare_product(w.reshape(features, channels), pixels, out, threads)
    return product if bias is None else in_order(product, functools.partial(np.add, out, bias[:, None], out))


def channels_last(array: Array) -> Array:
    """[N,C,spatial...] as [N,spatial...,C], and weights alike: a view."""
    return np.moveaxis(array, 1, -1)


def geometry_of(site: Site, kernel: Sequence[int], sizes: Sequence[int]) -> Geometry:
    """How the node's ``kernel`` goes over an input of these ``sizes``, both without batch and channels."""
    attrs = site.node.attrs
    names = ("strides", "dilations", "pads", "auto_pad")
    stated = window(site.node.op, kernel, **{k: attrs[k] for k in names if k in attrs})
    return Geometry.of(stated, sizes, attrs.get("group", 1))


@lowers("ConvNHWC", domain="miniinfer")
def lower_conv_nhwc(site: Site) -> Routine | None:
    """Channels-last convolution; weights are ``[K, spatial..., C/group]``."""
    compute = site.compute_dtype()
    if compute is None:
        return None
    dtype = numpy_dtype(compute)
    x_shape, w_shape = shape_of(site.inputs[0]), shape_of(site.inputs[1])
    geometry = geometry_of(site, w_shape[1:-1], x_shape[1:-1])
    threads = site.threads
    turned = _turned(site, geometry, dtype)
    scratch_nbytes = conv_scratch_nbytes(x_shape, w_shape, dtype.itemsize, geometry, threads=threads.count)
    if turned is not None:
        batch, *sizes, features = shape_of(site.outputs[0])
        count = scratch_elements(batch, sizes, x_shape[-1], features, dtype.itemsize, threads.count)
        scratch_nbytes = count * dtype.itemsize
    load = [operand(site, i, dtype) for i in range(len(site.inputs))]

    def ready(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array, then: Then | None = None) -> Call:
        x, w, *bias = [None if a is None else get(a) for get, a in zip(load, inputs, strict=True)]
        assert x is not None
        assert w is not None
        out = outputs[0]
        wide = out if out.dtype == dtype else np.empty(out.shape, dtype)
        bias_row = bias[0] if bias else None
        if turned is None:
            conv = prepare_conv(x, w, bias_row, geometry, out=wide, scratch=scratch, for_each=threads, then=then)
        else:
            follow = with_bias(wide, bias_row, then)
            room = scratch.view(dtype)
            conv = prepare_winograd(x, turned, geometry.begin, out=wide, scratch=room, for_each=threads, follow=follow)
        return conv if wide is out else in_order(conv, functools.partial(np.copyto, out, wide, casting="unsafe"))

    once = stays(site, dtype) and numpy_dtype(site.outputs[0].dtype) == dtype and _has_constant_weights(site)
    prepare = ready if once else anew(ready)
    follows = numpy_dtype(site.outputs[0].dtype) == dtype
    tactic = "winograd" if turned is not None else "conv as gemm" if geometry.group == 1 else "grouped conv"
    return Routine(prepare, scratch_nbytes=scratch_nbytes, tactic=tactic, prepare_then=prepare if follows else None)


def _turned(site: Site, geometry: Geometry, dtype: np.dtype[Any]) -> Array | None:
    """The weights as Winograd's convolution takes them, where they are constant and it takes less time."""
    handle = site.handles[1]
    batch, *sizes, _ = shape_of(site.outputs[0])
    g = geometry
    if handle is None or not pays(shape_of(site.inputs[1]), g.strides, g.dilations, g.group, batch, sizes):
        return None
    return site.weights.derived(handle, f"winograd {dtype}", lambda w: turned_weights(w.astype(dtype, copy=False)))
