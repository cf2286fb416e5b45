"""Whether two results on the device are the same, as far as their type can say: compared there, by kernels of ours."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np

from miniinfer_cli.backends.choosing import HEURISTIC
from miniinfer_cli.backends.cuda.contexts.buffers import Buffer
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, Place
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.loading.sharing import Shared
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.ir import DType, Graph, TensorType
from miniinfer_cli.ops.type_codes import code_of_dtype

_INTEGERS = 2e-2  # of 8 bits, rounded from floats: one off here and there
_TF32 = 5e-3
_TOLERANCES = {
    DType.F64: 1e-5,
    DType.F32: 1e-5,
    DType.F16: 1e-2,
    DType.BF16: 5e-2,
    DType.F8E4M3FN: 0.1,
    DType.F8E5M2: 0.2,
    DType.I8: _INTEGERS,
    DType.U8: _INTEGERS,
}


def tolerance(dtype: DType, *, tf32: bool) -> float:
    """The norm of the difference by that of the reference that a result of this type may have; 0 where it has to be equal."""
    return _TF32 if dtype is DType.F32 and tf32 else _TOLERANCES.get(dtype, 0.0)


def comparison(kinds: Sequence[TensorType]) -> Graph:
    """A graph of pairs of tensors: for each, the sum of the squares of their difference, and of the second, in f32."""
    graph = Graph("comparison")
    wide, scalar = DType.F32, TensorType(DType.F32, ())
    pairs = [(graph.add_input(f"a{i}", kind), graph.add_input(f"b{i}", kind)) for i, kind in enumerate(kinds)]
    sums = []
    for kind, pair in zip(kinds, pairs, strict=True):
        cast = TensorType(wide, kind.shape)
        a, b = (v if kind.dtype is wide else graph.add("Cast", v, type=cast, to=code_of_dtype(wide)) for v in pair)
        difference = graph.add("Sub", a, b, type=cast)
        sums += [graph.add("ReduceSumSquare", x, type=scalar, keepdims=0) for x in (difference, b)]
    graph.set_outputs(sums, [f"s{i}" for i in range(len(sums))])
    return graph


class Comparisons:
    """Compares results of programs where they lie on the device; a context. Keeps a program for each set of types."""

    def __init__(self, model: Shared, target: Target) -> None:
        self._model = model
        self._target = target
        self._programs: dict[tuple[TensorType, ...], LoadedProgram] = {}
        self._arena = Buffer(model.gpu.allocate, "memory to compare results in")
        self._sums = Buffer(model.gpu.allocate, "memory for sums of differences")
        self._stream = model.gpu.create_stream()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.ExitStack() as stack:  # which goes on when one of them fails
            for close in (*(p.close for p in self._programs.values()), self._arena.close, self._sums.close, self._stream.close):
                stack.callback(close)

    def kernels(self, made: CudaProgram) -> tuple[Kernel, ...]:
        """What comparing the program's results launches: to be compiled with others."""
        return self._comparing(_result_kinds(made)).kernels

    def equal(self, made: CudaProgram, results: int, others: int) -> bool:
        """True when two sets of the program's results, at these addresses, are equal, and all numbers."""
        return all(error == 0 for error in self._errors(made, results, others))

    def difference(self, made: CudaProgram, results: int, reference: int) -> str:
        """In what results differ from the reference by more than they may; nothing where they do not."""
        for kind, error in zip(_result_kinds(made), self._errors(made, results, reference), strict=True):
            allowed = tolerance(kind.dtype, tf32=self._target.tf32)
            if not error <= allowed:
                return f"its results differ by {error:.2g} from the reference, and {allowed:.2g} is allowed for {kind.dtype}"
        return ""

    def _errors(self, made: CudaProgram, results: int, reference: int) -> list[float]:
        kinds = _result_kinds(made)
        if kinds not in self._programs:
            self._programs[kinds] = LoadedProgram(self._comparing(kinds), self._model)
        program = self._programs[kinds]
        comparing = program.made
        self._arena.grow(max(comparing.arena_nbytes, 256))
        self._sums.grow(max(comparing.io.output_nbytes, 256))
        places = [made.io.outputs[made.slots[s].root] for s in made.output_slots]
        given = [base + place for place in places for base in (results, reference)]
        inputs = dict(zip(comparing.input_slots, given, strict=True))

        def address(place: Place) -> int:
            if place.scratch:
                return self._arena.address + comparing.layout.scratch_offsets[place.number] + place.offset
            behind = comparing.behind_root(place)
            root, start = behind.number, behind.offset
            if root in inputs:
                return inputs[root] + start
            if root in comparing.io.outputs:
                return self._sums.address + comparing.io.outputs[root] + start
            offset = comparing.layout.offsets.get(root)
            return (program.address_of(root) if offset is None else self._arena.address + offset) + start

        calls = program.calls(self._stream, address, 0)
        for call in calls:
            call()
        sums = np.zeros(comparing.io.output_nbytes, np.uint8)
        self._stream.copy_to_host(sums.ctypes.data, self._sums.address, sums.nbytes)
        self._stream.synchronize()
        values = [float(sums[o : o + 4].view(np.float32)[0]) for o in (comparing.io.outputs[s] for s in comparing.output_slots)]
        return [relative_error(d, r) for d, r in zip(values[::2], values[1::2], strict=True)]

    def _comparing(self, kinds: tuple[TensorType, ...]) -> CudaProgram:
        types = [kind for kind in kinds for _ in range(2)]
        return make_program(comparison(kinds), types, replace(self._target, policy=HEURISTIC, watch=None))


def _result_kinds(made: CudaProgram) -> tuple[TensorType, ...]:
    kinds = (made.slots[s].type for s in made.output_slots)
    return tuple(TensorType(k.dtype, k.shape) for k in kinds if isinstance(k, TensorType))


def relative_error(difference: float, reference: float) -> float:
    """Of two sums of squares; infinite where one is no number, or where the reference is nothing and the difference is not."""
    if not (math.isfinite(difference) and math.isfinite(reference)):
        return math.inf
    if difference == 0:
        return 0.0
    return math.sqrt(difference / reference) if reference > 0 else math.inf
