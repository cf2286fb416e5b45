"""What a lowering gives for one node on the CPU, what it may look at, and the register of lowerings.

A lowering looks at a node with fully known types and returns a Routine, or None when it has nothing better than the
numpy reference. Routines write into arrays of the arena; the reference's result is copied there.
"""

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from miniinfer_cli.backends.cpu.threads import Threads
from miniinfer_cli.backends.lowering_registry import LoweringRegistry
from miniinfer_cli.host_memory import available_memory
from miniinfer_cli.ir import Array, Constant, DType, Node, TensorType, constant
from miniinfer_cli.ir.arrays import numpy_dtype
from miniinfer_cli.ops.products import Call, Then

Prepare = Callable[[Sequence[Any], Sequence[Array], Array], Call]
PrepareThen = Callable[[Sequence[Any], Sequence[Array], Array, Then], Call]


@dataclass(frozen=True, slots=True)
class Routine:
    """One node for fixed types: ``prepare(inputs, outputs, scratch)`` gives what computes it, as often as it is called.

    ``scratch`` is a uint8 array of ``scratch_nbytes``, whose contents do not last from call to call. Views and the like are made
    in ``prepare``, which most steps go through once; one that reads what the caller gave, each time.
    ``in_place``: see planning.memory.StepUse, by input and output number.
    ``tactic`` names the way chosen, for the profile. ``prepare_then``, where there is one, does the same, and lets its last
    argument follow on the rows of the output, taken as a matrix, as they are done, on the thread that did them.
    """

    prepare: Prepare
    scratch_nbytes: int = 0
    in_place: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    tactic: str = ""
    prepare_then: PrepareThen | None = None

    def run(self, inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> None:
        """Computes it once."""
        self.prepare(inputs, outputs, scratch)()


def each_time(run: Callable[[Sequence[Any], Sequence[Array], Array], object]) -> Prepare:
    """``prepare`` of what has nothing to make ready: ``run(inputs, outputs, scratch)``."""

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        return functools.partial(run, inputs, outputs, scratch)

    return prepare


class Weights:
    """The engine's constants as arrays, made once and shared by all programs and contexts.

    ``derived`` holds forms that a lowering asked for (upcast, transposed ...), by constant and key. Two threads may
    derive the same form at once; both results are equal, and one of them stays. Constants of a program's own (what shapes tell
    in a late part) go with it.
    """

    def __init__(self) -> None:
        self._arrays: WeakKeyDictionary[Constant, Array] = WeakKeyDictionary()
        self._derived: WeakKeyDictionary[Constant, dict[str, Array]] = WeakKeyDictionary()
        self._constants: WeakKeyDictionary[Constant, dict[str, Constant]] = WeakKeyDictionary()
        self._unfolded: dict[Hashable, tuple[Constant, Any]] = {}

    def unfolded(self, key: Hashable, alive: Any, make: Callable[[], Constant]) -> Constant | None:
        """The constant that programs make of others, one for all of them; None where half of the free memory does not hold it.

        ``alive``: what ``key`` names by its identity.
        """
        if key not in self._unfolded:
            made, free = make(), available_memory()
            if free is not None and made.nbytes > free // 2:
                return None
            self._unfolded.setdefault(key, (made, alive))
        return self._unfolded[key][0]

    def array(self, handle: Constant) -> Array:
        """The constant's contents; a view of the mapped plan where the type allows it.

        In a model's own file, which a plan in memory reads, a tensor may lie at any byte, and one that is another transposed has
        its rows in steps. Such are copied once: numpy's loops would copy them again at each use, and products with columns in the
        place of rows take 1.2 to 1.6 times as long.
        """
        found = self._arrays.get(handle)
        if found is None:
            array = handle.array()
            lies_well = array.flags.c_contiguous and array.flags.aligned
            repeats = 0 in array.strides  # one element in the place of many takes no memory
            found = self._arrays.setdefault(handle, array if lies_well or repeats else _in_rows(array))
        return found

    def derived(self, handle: Constant, key: str, make: Callable[[Array], Array]) -> Array:
        """``make(contents)``, computed at the first call for this constant and key."""
        forms = self._derived.setdefault(handle, {})
        found = forms.get(key)
        if found is None:
            found = forms.setdefault(key, make(self.array(handle)))
        return found

    def derived_constant(self, handle: Constant, key: str, make: Callable[[Array], Array]) -> Constant:
        """The same as a constant, one for all programs, so that forms may be derived from it in turn."""
        known = self._constants.setdefault(handle, {})
        return known.get(key) or known.setdefault(key, constant(self.derived(handle, key, make)))

    @property
    def derived_nbytes(self) -> int:
        """Bytes held by derived forms, and by what programs made of constants."""
        held = (self._arrays.get(made) for made, _ in self._unfolded.values())
        forms = (a for forms in self._derived.values() for a in forms.values())
        return sum(a.nbytes for a in (*forms, *held) if a is not None)


@dataclass(frozen=True, slots=True)
class Site:
    """A node with the concrete types of its operands, and the engine's weights and threads. Lowerings read it, nothing else.

    ``handles`` has the constant behind each input, None where the input is computed or absent.
    """

    node: Node
    inputs: tuple[TensorType | None, ...]
    outputs: tuple[TensorType, ...]
    handles: tuple[Constant | None, ...]
    weights: Weights
    threads: Threads

    def compute_dtype(self) -> DType | None:
        """The type to compute in: f32 for half-width outputs, else the output's own if it is f32 or f64; else None."""
        dtype = self.outputs[0].dtype
        if dtype in (DType.F16, DType.BF16):
            return DType.F32
        return dtype if dtype in (DType.F32, DType.F64) else None


def contents(site: Site, number: int) -> Array | None:
    """What operand ``number`` holds, where it is a constant or follows from the shapes; None where only a run tells."""
    handle = site.handles[number]
    if handle is not None:
        return site.weights.array(handle)
    kind = site.inputs[number]
    known = None if kind is None else kind.concrete
    return None if known is None else np.asarray(known)


def contents_behind_first(site: Site) -> list[Array | None] | None:
    """``contents`` of each operand but the first, None where it is left out. None instead where only a run tells one of them."""
    held = [contents(site, number) for number in range(1, len(site.inputs))]
    return None if any(k is not None and h is None for k, h in zip(site.inputs[1:], held, strict=True)) else held


def _in_rows(array: Array) -> Array:
    """A copy of ``array`` as numpy has it by itself, made in tiles: row by row, each element would cost a line of the cache."""
    result = np.empty(array.shape, array.dtype)
    if array.ndim < 2:
        result[...] = array
        return result
    for i, j in itertools.product(range(0, array.shape[0], _TILE), range(0, array.shape[1], _TILE)):
        result[i : i + _TILE, j : j + _TILE] = array[i : i + _TILE, j : j + _TILE]
    return result


_TILE = 256
_LINE_NBYTES = 64


def shape_of(type: TensorType | None) -> tuple[int, ...]:
    """The shape of an operand whose type is concrete. Raises TypeError when it is not."""
    if type is None or type.shape is None or not type.is_static:
        raise TypeError(f"expected a concrete tensor, got {type}")
    return type.shape  # type: ignore[return-value]


def nbytes_of(type: TensorType) -> int:
    """Bytes of the operand as a numpy array (types under 8 bits take a whole byte)."""
    return math.prod(shape_of(type)) * numpy_dtype(type.dtype).itemsize


def padded_nbytes(nbytes: int) -> int:
    """``nbytes`` of scratch up to a whole line of the cache, where the next piece begins."""
    return -(-nbytes // _LINE_NBYTES) * _LINE_NBYTES


Lowering = Callable[[Site], Routine | None]
_LOWERINGS: LoweringRegistry[Lowering] = LoweringRegistry("CPU")
lowers = _LOWERINGS.register
find_lowering = _LOWERINGS.find
