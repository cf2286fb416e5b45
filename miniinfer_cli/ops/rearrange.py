"""Rearranging elements inside a tensor: DepthToSpace, SpaceToDepth, ReverseSequence, Trilu."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, TensorType
from miniinfer_cli.ir.dims import floor_divide
from miniinfer_cli.ops.element_types import INDICES
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.operands import expect_one_item, to_ints, to_scalar
from miniinfer_cli.ops.padding import zero_of
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import expect_rank, same_dim

# -- DepthToSpace, SpaceToDepth ----------------------------------------------------------------------------------------


def infer_depth_to_space(input: TensorType, *, blocksize: int, mode: str = "DCR") -> TensorType:
    """[N, C/b², H*b, W*b] from [N, C, H, W]."""
    _check_blocks("DepthToSpace", input, blocksize, mode)
    if input.shape is None:
        return TensorType(input.dtype, (UNKNOWN,) * 4)
    n, c, h, w = input.shape
    if isinstance(c, int) and c % blocksize**2:
        raise ModelError(f"DepthToSpace: {c} channels of {input} are not a multiple of {blocksize}²")
    return TensorType(input.dtype, (n, floor_divide(c, blocksize**2), h * blocksize, w * blocksize))


def depth_to_space(input: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Channels moved into blocks of pixels; they are numbered block first (DCR) or block last (CRD).

    Source: ONNX DepthToSpace-28.
    """
    n, c, h, w = input.shape
    depth = c // blocksize**2
    if mode == "DCR":
        blocks = input.reshape(n, blocksize, blocksize, depth, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        blocks = input.reshape(n, depth, blocksize, blocksize, h, w).transpose(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, depth, h * blocksize, w * blocksize)


def infer_space_to_depth(input: TensorType, *, blocksize: int, mode: str = "DCR") -> TensorType:
    """[N, C*b², H/b, W/b] from [N, C, H, W]."""
    _check_blocks("SpaceToDepth", input, blocksize, mode)
    if input.shape is None:
        return TensorType(input.dtype, (UNKNOWN,) * 4)
    n, c, h, w = input.shape
    for d in (h, w):
        if isinstance(d, int) and d % blocksize:
            raise ModelError(f"SpaceToDepth: a side of {d} of {input} is not a multiple of {blocksize}")
    return TensorType(input.dtype, (n, c * blocksize**2, floor_divide(h, blocksize), floor_divide(w, blocksize)))


def space_to_depth(input: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Blocks of pixels moved into channels; the inverse of DepthToSpace. Source: ONNX SpaceToDepth-28."""
    n, c, h, w = input.shape
    blocks = input.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return blocks.transpose(order).reshape(n, c * blocksize**2, h // blocksize, w // blocksize)


def _check_blocks(op: str, input: TensorType, blocksize: int, mode: str) -> None:
    expect_rank(op, input, 4)
    if blocksize < 1:
        raise ModelError(f"{op} blocksize {blocksize} is not positive")
    if mode not in ("DCR", "CRD"):
        raise ModelError(f"{op} mode {mode!r} is neither DCR nor CRD")


# -- ReverseSequence ---------------------------------------------------------------------------------------------------


def infer_reverse_sequence(
    input: TensorType, sequence_lens: TensorType, *, batch_axis: int = 1, time_axis: int = 0
) -> TensorType:
    """Same type as ``input``."""
    if {batch_axis, time_axis} != {0, 1}:
        raise ModelError(f"ReverseSequence batch_axis {batch_axis} and time_axis {time_axis} are not 0 and 1, or 1 and 0")
    if input.shape is not None:
        if len(input.shape) < 2:
            raise ModelError(f"ReverseSequence expects an input of rank 2 or more, got {input}")
        if sequence_lens.shape is not None:
            expect_rank("ReverseSequence lengths", sequence_lens, 1)
            same_dim("ReverseSequence", f"lengths {sequence_lens} for {input}", sequence_lens.shape[0], input.shape[batch_axis])
    return TensorType(input.dtype, input.shape)


def reverse_sequence(input: Array, sequence_lens: Array, *, batch_axis: int = 1, time_axis: int = 0) -> Array:
    """The first ``sequence_lens[i]`` steps of sample i in reverse order, the rest as they are.

    Source: ONNX ReverseSequence-28.
    """
    lengths = np.array(to_ints(sequence_lens), np.int64)[:, None]
    steps = np.arange(input.shape[time_axis])
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= steps.size:
        raise ModelError(f"ReverseSequence lengths {lengths.reshape(-1).tolist()} do not lie in [0, {steps.size}]")
    sources = np.where(steps < lengths, lengths - 1 - steps, steps)  # [batch, time]
    samples = np.arange(lengths.size)[:, None]
    return input[samples, sources] if batch_axis == 0 else input[sources.T, samples.T]


# -- Trilu -------------------------------------------------------------------------------------------------------------


def infer_trilu(input: TensorType, k: TensorType | None = None, *, upper: int = 1) -> TensorType:
    """Same type as ``input``."""
    if input.rank is not None and input.rank < 2:
        raise ModelError(f"Trilu expects matrices, got {input}")
    expect_one_item("Trilu k", k)
    return TensorType(input.dtype, input.shape)


def trilu(input: Array, k: Array | None = None, *, upper: int = 1) -> Array:
    """The upper or lower triangle of each matrix from diagonal ``k``, zeros elsewhere. Source: ONNX Trilu-14."""
    rows, columns = input.shape[-2:]
    diagonal = 0 if k is None else int(to_scalar(k))
    offset = np.arange(columns) - np.arange(rows)[:, None]
    kept = offset >= diagonal if upper else offset <= diagonal
    return np.where(kept, input, np.array(zero_of(input.dtype), input.dtype))


DEPTH_TO_SPACE = define("DepthToSpace", infer=infer_depth_to_space, reference=depth_to_space, moves=True)
SPACE_TO_DEPTH = define("SpaceToDepth", infer=infer_space_to_depth, reference=space_to_depth, moves=True)
REVERSE_SEQUENCE = define("ReverseSequence", infer=infer_reverse_sequence, reference=reverse_sequence)
TRILU = define("Trilu", infer=infer_trilu, reference=trilu, takes=(None, INDICES))
