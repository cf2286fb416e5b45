"""Constants made from constants: each function gives a small result as an array and a large one as a recipe."""

from collections.abc import Callable, Sequence

from miniinfer_cli.ir import Array, Constant, DType
from miniinfer_cli.ir.arrays import numpy_dtype
from miniinfer_cli.ir.constants import (
    ArrayConstant,
    Concatenated,
    Filled,
    Mapped,
    Sliced,
    Transposed,
    reshaped,
)
from miniinfer_cli.limits import RECIPE_STEPS


def transpose_constant(source: Constant, perm: Sequence[int]) -> Constant:
    """``source`` with axis i taken from axis ``perm[i]``."""
    if isinstance(source, Transposed):  # one permutation in place of two, and none where they undo each other
        return transpose_constant(source.source, [source.perm[p] for p in perm])
    shape = tuple(source.shape[p] for p in perm)
    if tuple(perm) == tuple(range(len(perm))):
        return source
    if isinstance(source, Filled):
        return Filled(source.dtype, shape, source.value)
    # Axes of size 1 may move for free, as a reshape, which keeps a mapped file range one.
    if [p for p in perm if source.shape[p] != 1] == [i for i, n in enumerate(source.shape) if n != 1]:
        return reshape_constant(source, shape)
    return _settle(Transposed(source.dtype, shape, source, tuple(perm)))


def reshape_constant(source: Constant, shape: Sequence[int]) -> Constant:
    """The elements of ``source`` in their order under another shape."""
    if source.shape == tuple(shape):
        return source
    if isinstance(source, Filled):
        return Filled(source.dtype, tuple(shape), source.value)
    return reshaped(source, tuple(shape))


def slice_constant(source: Constant, start: Sequence[int], shape: Sequence[int]) -> Constant:
    """The block of ``source`` of this shape that begins at ``start``."""
    if source.shape == tuple(shape):
        return source
    if isinstance(source, Filled):
        return Filled(source.dtype, tuple(shape), source.value)
    return _settle(Sliced(source.dtype, tuple(shape), source, tuple(start)))


def concatenate_constants(sources: Sequence[Constant], axis: int) -> Constant:
    """``sources`` joined along ``axis`` (not negative)."""
    if len(sources) == 1:
        return sources[0]
    total = sum(s.shape[axis] for s in sources)
    shape = (*sources[0].shape[:axis], total, *sources[0].shape[axis + 1 :])
    return _settle(Concatenated(sources[0].dtype, shape, tuple(sources), axis))


def map_constants(
    function: Callable[..., Array], sources: Sequence[Constant], dtype: DType, shape: Sequence[int], label: str
) -> Constant:
    """The elementwise ``function`` of sources that broadcast to ``shape``; ``label`` names it in descriptions."""
    if all(isinstance(s, Filled) or s.size == 1 for s in sources) and shape:
        scalars = [s.block(tuple(slice(0, 1) for _ in s.shape)).reshape(()) for s in sources]
        return Filled(dtype, tuple(shape), function(*scalars).astype(numpy_dtype(dtype)).reshape(())[()])
    padded = [reshape_constant(s, (1,) * (len(shape) - len(s.shape)) + s.shape) for s in sources]
    return _settle(Mapped(dtype, tuple(shape), tuple(padded), function, label))


def _settle(handle: Constant) -> Constant:
    """``handle``, computed now when it is small: a small array needs no recipe, and its contents become known.

    So is one of very many steps: a recipe that reads another twice does all its steps twice, for every block.
    """
    if handle.is_small or handle.steps > RECIPE_STEPS.value:
        return ArrayConstant(handle.dtype, handle.shape, handle.array())
    return handle
