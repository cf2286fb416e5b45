"""Random inputs for a set of shapes: seeded, never zeros, and harmless as indices."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine_format.records import DimensionRange
from miniinfer_cli.errors import UsageError
from miniinfer_cli.host_memory import expect_memory
from miniinfer_cli.ir import Array, DType, TensorType, numpy_dtype
from miniinfer_cli.ir.dims import evaluate, names_in
from miniinfer_cli.runtime.bindings import Binding, bind_sizes, expect_sizes
from miniinfer_cli.wording import Wording

_MOST_ELEMENTS = 1 << 56  # of what has none because of one size of 0: numpy multiplies the others all the same


def random_inputs(
    bindings: Sequence[Binding],
    ranges: Mapping[str, DimensionRange],
    shapes: Mapping[str, Sequence[int]],
    given: Mapping[str, Any],
    seed: int,
    integers: tuple[int, int] = (0, 1),
) -> dict[str, Any]:
    """An array for every input: ``given`` ones as they are, the others random.

    Shapes come from ``shapes`` by input name; where a name is left open, from its optimum, or 1. Floats are uniform in
    [-1, 1), integers between the two of ``integers`` (0 or 1 is valid as token, index or mask), bools either. Raises UsageError
    for an unknown name, for shapes that contradict each other, and for inputs that are not tensors.
    """
    known = {b.name for b in bindings}
    for name in (*shapes, *given):
        if name not in known:
            raise UsageError(f"there is no input {name!r}", hint=f"the inputs are {', '.join(map(str, bindings))}")
    sizes = {name: r.optimum for name, r in ranges.items()}
    fixed: dict[str, int] = {}
    for b in bindings:
        shape = shapes.get(b.name)
        if shape is None and isinstance(given.get(b.name), np.ndarray):
            shape = given[b.name].shape
        if shape is not None:
            bind_sizes(b, shape, fixed)
    sizes |= fixed
    generator = np.random.default_rng(seed)
    return {
        b.name: given[b.name] if b.name in given else _array(b, sizes, shapes.get(b.name), generator, integers) for b in bindings
    }


def _array(
    binding: Binding,
    sizes: Mapping[str, int],
    shape: Sequence[int] | None,
    generator: "np.random.Generator",
    integers: tuple[int, int],
) -> Any:
    kind = binding.type
    if not isinstance(kind, TensorType):
        raise UsageError(
            f"input {binding.name!r} is {kind or 'of unknown type'}: random values are made for tensors only",
            hint="give it through the Python API: miniinfer_cli.load(plan).run({...})",
        )
    if kind.dtype is DType.STR:
        raise UsageError(f"input {binding.name!r} holds strings", hint=_given(binding))
    if shape is None:
        if kind.shape is None:
            hint = Wording(
                f"give its shape: {{{binding.name!r}: (1, 3, 224, 224)}}", flags=f"give --shapes {binding.name}:1x3x224x224"
            )
            raise UsageError(f"the rank of input {binding.name!r} is not known", hint=hint)
        complete = dict.fromkeys({n for d in kind.shape for n in names_in(d)}, 1) | dict(sizes)
        shape = expect_sizes(binding, [evaluate(d, complete) or 0 for d in kind.shape], complete)
    target = numpy_dtype(kind.dtype)
    sizes_text = "x".join(map(str, shape))
    if 0 in shape and math.prod(max(d, 1) for d in shape) > _MOST_ELEMENTS:
        hint = Wording(
            f"give smaller sizes: {{{binding.name!r}: (...)}}", flags=f"give smaller sizes: --shapes {binding.name}:..."
        )
        raise UsageError(f"input {binding.name!r} of {sizes_text} is beyond what an array can be", hint=hint)
    expect_memory(math.prod(shape) * max(target.itemsize, 4), f"memory for input {binding.name!r} of {sizes_text}")
    if kind.dtype is DType.BOOL or kind.dtype.is_integer:
        low, high = (0, 1) if kind.dtype is DType.BOOL else integers
        return _filled(generator.integers(low, high + 1, shape, np.int8), target)
    values = generator.random(shape, np.float32) * np.float32(2) - np.float32(1)
    if kind.dtype in (DType.C64, DType.C128):
        return _filled(values + 1j * (generator.random(shape, np.float32) * 2 - 1), target)
    return _filled(values, target)


def _given(binding: Binding) -> str:
    return Wording(f"give it: {{{binding.name!r}: array}}", flags=f"give it: --input {binding.name}=file.npy")


def _filled(values: Any, dtype: np.dtype[Any]) -> Array:
    """``values`` as an array of ``dtype``, of rank 0 too, where numpy hands out scalars."""
    return np.asarray(values).astype(dtype)
