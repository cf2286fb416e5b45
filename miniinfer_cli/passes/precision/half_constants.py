"""Constants of f32 as f16 or bf16: what that loses, and the rounded constants, which are recipes where they are large."""

import functools
import math

import numpy as np

from miniinfer_cli.ir import Array, Constant, DType, Node, numpy_dtype
from miniinfer_cli.ir.constants import Filled
from miniinfer_cli.passes.convolution_weights import weights_by_outputs
from miniinfer_cli.passes.recipes import map_constants, reshape_constant
from miniinfer_cli.passes.sum_rounding import round_keeping_sums

_SMALLEST_NORMAL = {DType.F16: 2.0**-14, DType.BF16: 2.0**-126}


def loss_of(handle: Constant, half: DType) -> tuple[str, str]:
    """What rounding to ``half`` does to an f32 constant: a word (``beyond``, ``vanishes``, ``coarse`` or none), and a sentence.

    ``beyond``: a finite number becomes infinite; ``vanishes``: all of it becomes 0, and was not; ``coarse``: its largest number
    is too small for the type's full digits. The constant is read once, block by block.
    """
    if not handle.size:
        return "", ""
    largest = _largest(handle)
    with np.errstate(all="ignore"):
        rounded = float(np.float32(largest).astype(numpy_dtype(half)))
    if math.isinf(rounded):
        return "beyond", f"reaches {largest:.3g}, and {half} ends at {_end(half):.5g}"
    if largest and not rounded:
        return "vanishes", f"is {largest:.3g} at most, which is 0 in {half}"
    if 0 < largest < _SMALLEST_NORMAL[half]:
        return "coarse", f"is {largest:.3g} at most, where {half} has few digits"
    return "", ""


def rounded_constant(handle: Constant, half: DType, node: Node, index: int) -> Constant:
    """An f32 constant, which ``node`` reads as its input ``index``, as ``half``.

    Weights of convolutions keep the sums of their channels, see sum_rounding; others are rounded to the nearest.
    """
    if node.is_op("Conv", "ConvTranspose") and index == 1 and not isinstance(handle, Filled):
        view, _, kept = weights_by_outputs(node, handle)
        return reshape_constant(round_keeping_sums(view, half, kept), handle.shape)
    return map_constants(functools.partial(_round, half=half), [handle], half, handle.shape, str(half))


def _round(block: Array, half: DType) -> Array:
    with np.errstate(all="ignore"):
        return block.astype(numpy_dtype(half))


def _largest(handle: Constant) -> float:
    """The largest finite magnitude."""
    found = float(handle.magnitudes(range(len(handle.shape))).largest.reshape(()))
    if math.isfinite(found):
        return found
    array = handle.array()
    return float(np.max(np.abs(array[np.isfinite(array)]), initial=0.0))


def _end(half: DType) -> float:
    largest = np.array(0x7BFF if half is DType.F16 else 0x7F7F, np.uint16).view(numpy_dtype(half))
    return float(largest)
