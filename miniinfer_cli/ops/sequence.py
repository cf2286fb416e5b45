"""Sequences: SequenceConstruct, Empty, Insert, Erase, At, Length, SplitToSequence, ConcatFromSequence.

At run time a sequence is a list of arrays. Lists are never changed in place: each operation gives a new one.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, DType, SequenceType, TensorType, Type
from miniinfer_cli.ops.budget import expect_arrays
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.operands import count_of, ints_of
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axis
from miniinfer_cli.ops.type_codes import dtype_of_code
from miniinfer_cli.ops.type_merging import merge_types


def infer_sequence_construct(*inputs: TensorType) -> SequenceType:
    """A sequence of what the inputs have in common."""
    if not inputs:
        raise ModelError("SequenceConstruct has no inputs, expected one or more")
    element: Type | None = inputs[0]
    for other in inputs[1:]:
        element = merge_types("SequenceConstruct", element, other)
    return SequenceType(_any_contents(element))


def sequence_construct(*inputs: Array) -> list[Array]:
    """The inputs as a list. Source: ONNX SequenceConstruct-11."""
    return list(inputs)


def infer_sequence_empty(*, dtype: int = 1) -> SequenceType:
    """A sequence of tensors of ``dtype``, ONNX's number of an element type, of any shape."""
    return SequenceType(TensorType(dtype_of_code(dtype)))


def sequence_empty(*, dtype: int = 1) -> list[Array]:
    """An empty list. Source: ONNX SequenceEmpty-11."""
    return []


def infer_sequence_insert(input_sequence: SequenceType, tensor: TensorType, position: TensorType | None = None) -> SequenceType:
    """A sequence of what the elements and ``tensor`` have in common."""
    return SequenceType(_any_contents(merge_types("SequenceInsert", input_sequence.element, tensor)))


def sequence_insert(input_sequence: list[Array], tensor: Array, position: Array | None = None) -> list[Array]:
    """``tensor`` put before the element at ``position``, at the end by default. Source: ONNX SequenceInsert-11."""
    count = len(input_sequence)
    at = count if position is None else _position("SequenceInsert", position, -count, count)
    at = at + count if at < 0 else at
    return [*input_sequence[:at], tensor, *input_sequence[at:]]


def infer_sequence_erase(input_sequence: SequenceType, position: TensorType | None = None) -> SequenceType:
    """A sequence of the same elements."""
    return input_sequence


def sequence_erase(input_sequence: list[Array], position: Array | None = None) -> list[Array]:
    """The list without the element at ``position``, the last by default. Source: ONNX SequenceErase-11."""
    count = len(input_sequence)
    at = _position("SequenceErase", np.array(-1) if position is None else position, -count, count - 1) % count
    return [*input_sequence[:at], *input_sequence[at + 1 :]]


def infer_sequence_at(input_sequence: SequenceType, position: TensorType) -> Type | None:
    """The type of the elements."""
    return input_sequence.element


def sequence_at(input_sequence: list[Array], position: Array) -> Array:
    """The element at ``position``. Source: ONNX SequenceAt-11."""
    count = len(input_sequence)
    return input_sequence[_position("SequenceAt", position, -count, count - 1)]


def infer_sequence_length(input_sequence: SequenceType) -> TensorType:
    """One i64."""
    return TensorType(DType.I64, ())


def sequence_length(input_sequence: list[Array]) -> Array:
    """The number of elements. Source: ONNX SequenceLength-11."""
    return np.array(len(input_sequence), np.int64)


def infer_split_to_sequence(
    input: TensorType, split: TensorType | None = None, *, axis: int = 0, keepdims: int = 1
) -> SequenceType:
    """A sequence of tensors that differ from ``input`` at ``axis`` alone."""
    if input.shape is None:
        return SequenceType(TensorType(input.dtype))
    at = normal_axis("SplitToSequence", axis, input)
    before, after = input.shape[:at], input.shape[at + 1 :]
    if split is None:
        return SequenceType(TensorType(input.dtype, (*before, *((1,) if keepdims else ()), *after)))
    return SequenceType(TensorType(input.dtype, (*before, _part_size(input.shape[at], split), *after)))


def split_to_sequence(input: Array, split: Array | None = None, *, axis: int = 0, keepdims: int = 1) -> list[Array]:
    """Parts along ``axis``: of size ``split`` (a scalar; the last may be smaller), of the sizes in ``split`` (a vector),
    or, without ``split``, of size 1, which ``keepdims`` 0 drops. Source: ONNX SplitToSequence-24.
    """
    total = input.shape[axis]
    ends: Sequence[int]
    if split is None:
        ends = range(1, total + 1)
    elif split.ndim == 0:
        size = int(split)
        if size < 1:
            raise ModelError(f"SplitToSequence split is {size}, expected 1 or more")
        ends = range(size, max(total, 1) + size, size)  # the last may lie behind the end, as slices may
    else:
        if int(split.sum()) != total or (split < 0).any():
            raise ModelError(f"SplitToSequence sizes {split.tolist()} do not add up to {total}, the size of axis {axis}")
        ends = list(map(int, np.cumsum(split)))
    expect_arrays(len(ends), input.nbytes, "the parts of SplitToSequence")
    moved = np.moveaxis(input, axis, 0)
    if split is None and not keepdims:
        return [np.array(part) for part in moved]
    parts = (np.moveaxis(moved[begin:end], 0, axis) for begin, end in zip(itertools.chain((0,), ends), ends, strict=False))
    return [np.array(part, order="C") for part in parts]


def infer_concat_from_sequence(input_sequence: SequenceType, *, axis: int, new_axis: int = 0) -> TensorType | None:
    """The elements' type with the size at ``axis`` open."""
    element = input_sequence.element
    if not isinstance(element, TensorType) or element.shape is None:
        return TensorType(element.dtype) if isinstance(element, TensorType) else None
    if new_axis:
        at = normal_axis("ConcatFromSequence", axis, TensorType(element.dtype, (*element.shape, UNKNOWN)))
        return TensorType(element.dtype, (*element.shape[:at], UNKNOWN, *element.shape[at:]))
    at = normal_axis("ConcatFromSequence", axis, element)
    return TensorType(element.dtype, (*element.shape[:at], UNKNOWN, *element.shape[at + 1 :]))


def concat_from_sequence(input_sequence: list[Array], *, axis: int, new_axis: int = 0) -> Array:
    """The elements joined along ``axis``, or stacked along a new one. Source: ONNX ConcatFromSequence-11."""
    if not input_sequence:
        raise ModelError("ConcatFromSequence got an empty sequence, expected one tensor or more")
    return np.stack(input_sequence, axis=axis) if new_axis else np.concatenate(input_sequence, axis=axis)


def _part_size(total: Dim, split: TensorType) -> Dim:
    """The size that all parts have along the axis, UNKNOWN when they differ or it cannot be told."""
    count_of("SplitToSequence split", split)
    sizes = ints_of(split)
    if sizes is None or not isinstance(total, int):
        return UNKNOWN
    if split.rank == 0:
        return sizes[0] if sizes[0] > 0 and total % sizes[0] == 0 else UNKNOWN
    return sizes[0] if len(set(sizes)) == 1 else UNKNOWN


def _position(op: str, position: Array, lowest: int, highest: int) -> int:
    at = int(position.reshape(-1)[0])
    if not lowest <= at <= highest:
        raise ModelError(f"{op} position {at} is outside [{lowest}, {highest}]")
    return at


def _any_contents(element: Type | None) -> Type | None:
    """``element`` with nothing said of the contents: a sequence holds several."""
    return TensorType(element.dtype, element.shape) if isinstance(element, TensorType) else element


SEQUENCE_CONSTRUCT = define("SequenceConstruct", infer=infer_sequence_construct, reference=sequence_construct)
SEQUENCE_EMPTY = define("SequenceEmpty", infer=infer_sequence_empty, reference=sequence_empty)
SEQUENCE_INSERT = define("SequenceInsert", infer=infer_sequence_insert, reference=sequence_insert)
SEQUENCE_ERASE = define("SequenceErase", infer=infer_sequence_erase, reference=sequence_erase)
SEQUENCE_AT = define("SequenceAt", infer=infer_sequence_at, reference=sequence_at)
SEQUENCE_LENGTH = define("SequenceLength", infer=infer_sequence_length, reference=sequence_length)
SPLIT_TO_SEQUENCE = define("SplitToSequence", infer=infer_split_to_sequence, reference=split_to_sequence)
CONCAT_FROM_SEQUENCE = define("ConcatFromSequence", infer=infer_concat_from_sequence, reference=concat_from_sequence)
