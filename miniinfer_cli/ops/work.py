"""About how much the reference of an operation computes, in steps: the work functions that several families share.

A step takes about a nanosecond. The estimates are upper bounds of the right order, told by the operands at hand before anything
is computed: a small node may ask for hours (a product, an equation over many sizes, a window of 2^40 elements), and what is
computed ahead of a run is bounded by them. What is linear in what is read and written needs no function.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from miniinfer_cli.ir import Array, DType, TensorType
from miniinfer_cli.ops.budget import static_shape

CALL = 2000
"""Steps of one turn of a loop in Python, with a call or two of numpy's in it."""
_ELEMENT = 16
_STRING = 4000
NEVER = 1 << 80
"""Steps of what may take any time: beyond every limit."""

Inputs = Sequence[Array | None]
Outputs = Sequence[TensorType]
Attrs = Mapping[str, Any]


def volume(sizes: Sequence[int]) -> int:
    """The product of sizes, one of 0 counted as 1: loops over the other axes are made all the same."""
    return math.prod(max(n, 1) for n in sizes)


def touched(operand: Array | TensorType) -> int:
    """Steps of reading an operand, or of writing a result of static shape, once; each string is made or taken apart in Python."""
    if isinstance(operand, TensorType):
        return elements(operand) * (_STRING if operand.dtype is DType.STR else _ELEMENT)
    return operand.size * (_STRING if operand.dtype == object else _ELEMENT)


def elements(output: TensorType) -> int:
    """The elements of an output of static shape, 1 at least."""
    return volume(static_shape(output.shape) or ())


def product_work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """MatMul, Gemm and their quantized forms: for each element of the result, one step for each element of a row of the first.

    Integers are multiplied by no library.
    """
    a = inputs[0]
    if a is None or not a.ndim:
        return 0
    inner = a.shape[-2] if attrs.get("transA") else a.shape[-1]
    result: int = elements(outputs[0]) * max(inner, 1) * (8 if a.dtype.kind in "iu" else 1)
    return result


def convolution_work(weights: int, first_axis: int) -> Any:
    """The work of convolutions whose weights are input ``weights``, and whose spatial axes begin at ``first_axis``."""

    def work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
        x, w = inputs[0], inputs[weights]
        if x is None or w is None:
            return 0
        stop = x.ndim - (first_axis == 1)
        padded = x.size // volume(x.shape[first_axis:stop]) * _padded(x.shape[first_axis:stop], w.shape[first_axis:stop], attrs)
        result: int = 4 * elements(outputs[0]) * (w.size // max(w.shape[0], 1)) + 40 * padded
        return result

    return work


def transposed_convolution_work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """ConvTranspose, in both layouts: a product for each tap, and adding it where it belongs."""
    x, w = inputs[0], inputs[1]
    if x is None or w is None:
        return 0
    per_channel = w.size // max(w.shape[0], 1)  # taps times features of a group
    places = x.size // max(w.shape[0], 1)
    result: int = per_channel * (x.size + 4 * places * int(attrs.get("group", 1)) + CALL * 80)
    return result


def pooling_work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """Sliding windows: a call for each tap, axis by axis, or for all taps where the places of maxima are told."""
    kernel = attrs["kernel_shape"]
    x, y = inputs[0], static_shape(outputs[0].shape)
    if x is None or y is None:
        return 0
    widest = volume([max(a, b) for a, b in zip(x.shape, y, strict=True)])  # between two axes
    with_places = len(outputs) > 1
    taps = math.prod(kernel) if with_places else sum(kernel)
    return int(taps) * ((24 if with_places else 4) * widest + 12 * CALL)


def attention_work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """Attention and FlexAttention: each query with each key, before and after the softmax."""
    q, k = inputs[0], inputs[1]
    past = inputs[4] if len(inputs) > 4 else None
    if q is None or k is None:
        return 0
    keys = k.shape[-2] + (past.shape[-2] if past is not None and past.ndim > 1 else 0)
    result: int = 20 * max(keys, 1) * (volume(q.shape) + elements(outputs[0]))
    return result


def recurrent_work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """RNN, GRU and LSTM: two products for each time step and direction, and a few calls."""
    x, w, r = inputs[:3]
    if x is None or w is None or r is None:
        return 0
    batch, length = x.shape[:2] if attrs.get("layout", 0) else (x.shape[1], x.shape[0])
    result: int = length * (batch * (w.size + r.size + 80 * volume(w.shape[:2])) + 80 * CALL * volume(w.shape[:1]))
    return result


def _padded(sizes: Sequence[int], kernel: Sequence[int], attrs: Attrs) -> int:
    """The elements of one channel with the padding around it."""
    rank = len(sizes)
    strides, dilations = attrs.get("strides") or (1,) * rank, attrs.get("dilations") or (1,) * rank
    pads = attrs.get("pads") or (0,) * (2 * rank)
    if str(attrs.get("auto_pad", "NOTSET")).startswith("SAME"):
        spans = [(-(-n // s)) * s + (k - 1) * d + 1 for n, s, k, d in zip(sizes, strides, kernel, dilations, strict=True)]
        return volume([max(n, span) for n, span in zip(sizes, spans, strict=True)])
    return volume([n + b + e for n, b, e in zip(sizes, pads[:rank], pads[rank:], strict=True)])
