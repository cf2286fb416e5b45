"""cuBLASLt on the device against float64: every type, transposition, epilogue and batch, in poisoned guarded memory."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.problems import Activation, Compute, MatmulProblem
from miniinfer_cli.backends.cuda.driver.cublaslt import CublasLt
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.ir import Array, DType
from tests.gpu.driver.library_calls import check_in_threads, check_repeats, check_under_capture, run
from tests.gpu.driver.operands import Operand, assert_close, numbers_for, random_array

F16, BF16, F32, F64 = DType.F16, DType.BF16, DType.F32, DType.F64
TAKEN = [Activation.NONE, Activation.RELU, Activation.GELU_TANH]
Types = tuple[DType, DType, Compute]
TYPES: list[Types] = [
    *((F32, F32, Compute.F32), (F32, F32, Compute.TF32), (F16, F16, Compute.F32), (F16, F32, Compute.F32)),
    *((BF16, BF16, Compute.F32), (BF16, F32, Compute.F32), (F64, F64, Compute.F64)),
]
TYPE_NAMES = [f"{a}-{d}-{c}" for a, d, c in TYPES]


@pytest.fixture(scope="module")
def library(device: Device) -> Iterator[CublasLt]:
    with CublasLt(device) as made:
        yield made


def problem_of(a: DType, d: DType, compute: Compute, m: int, n: int, k: int, **options: Any) -> MatmulProblem:
    return MatmulProblem(m=m, n=n, k=k, a=a, b=a, d=d, compute=compute, **options)


class Case:
    """A problem's operands on the device, filled, and its result in float64."""

    def __init__(self, device: Device, stream: Stream, problem: MatmulProblem, *, in_place: bool = False, shift: int = 0) -> None:
        p = self.problem = problem
        random = numbers_for(p)
        self.stream = stream
        a_shape = (p.k, p.m) if p.transpose_a else (p.m, p.k)
        b_shape = (p.n, p.k) if p.transpose_b else (p.k, p.n)
        scale = p.k**-0.5
        self._device = device
        self._shift = shift
        self.a, a = self._operand(random, p.a, a_shape, p.lda, p.stride_a)
        self.b, b = self._operand(random, p.b, b_shape, p.ldb, p.stride_b, scale)
        self.d, d = self._operand(random, p.d, (p.m, p.n), p.ldd, p.stride_d)
        self.c, c = (self.d, d) if in_place or not p.residual else self._operand(random, p.d, (p.m, p.n), p.ldd, p.stride_d)
        self.bias, bias = self._operand(random, p.d, (1, p.n), 0, 0)
        if not (p.residual and in_place):
            self.poison()
        left, right = (np.swapaxes(x, 1, 2) if t else x for x, t in ((a, p.transpose_a), (b, p.transpose_b)))
        total = p.alpha * (left @ right) + (c if p.residual else 0)
        total = total + (bias[0] if p.bias else 0)
        if p.activation is Activation.RELU:
            total = np.maximum(total, 0)
        if p.activation is Activation.GELU_TANH:
            total = 0.5 * total * (1 + np.tanh(0.7978845608028654 * (total + 0.044715 * total**3)))
        self.expected = np.broadcast_to(total, (p.batch, p.m, p.n))

    def _operand(
        self, random: np.random.Generator, dtype: DType, shape: tuple[int, int], ld: int, stride: int, scale: float = 1.0
    ) -> tuple[Operand, Array]:
        """The operand, and its matrices as float64 of shape (batch or 1, rows, columns)."""
        ld = ld or shape[1]
        batch = self.problem.batch if stride else 1
        count = (batch - 1) * stride + (shape[0] - 1) * ld + shape[1]
        flat = random_array(random, dtype, (count,), scale)
        operand = Operand(self._device, self.stream, dtype, count, self._shift)
        operand.write(flat)
        strides = (stride * flat.itemsize, ld * flat.itemsize, flat.itemsize)
        return operand, np.lib.stride_tricks.as_strided(flat, (batch, *shape), strides).astype(np.float64)

    def poison(self) -> None:
        self.d.write(np.frombuffer(b"\xff" * len(self.d.read()) * self.d.dtype.itemsize, self.d.dtype))

    @property
    def addresses(self) -> list[int]:
        p = self.problem
        operands = [self.a, self.b, self.d, *([self.c] if p.residual else []), *([self.bias] if p.bias else [])]
        return [o.address for o in operands]

    def result(self) -> Array:
        p, flat = self.problem, self.d.read()
        strides = (p.stride_d * flat.itemsize, (p.ldd or p.n) * flat.itemsize, flat.itemsize)
        return np.lib.stride_tricks.as_strided(flat, (p.batch, p.m, p.n), strides)

    def check(self) -> None:
        assert_close(self.result(), self.expected, self.problem.d, self.problem.compute, self.problem)


def solve(device: Device, stream: Stream, library: CublasLt, problem: MatmulProblem, **options: Any) -> None:
    prepared = library.prepare(problem)
    assert prepared is not None, f"no algorithm for {problem}"
    assert prepared.workspace_nbytes <= 32 << 20
    case = Case(device, stream, problem, **options)
    run(device, stream, prepared, case)
    case.check()


@pytest.mark.parametrize("types", TYPES, ids=TYPE_NAMES)
@pytest.mark.parametrize(
    "size", [(64, 48, 32), (1, 1000, 512), (128, 1, 96), (33, 17, 65), (8, 8, 4096), (300, 257, 129)], ids=str
)
def test_types_sizes_and_transpositions(
    types: Types, size: tuple[int, int, int], device: Device, stream: Stream, library: CublasLt
):
    for transpose_a, transpose_b in itertools.product((False, True), repeat=2):
        solve(device, stream, library, problem_of(*types, *size, transpose_a=transpose_a, transpose_b=transpose_b))


@pytest.mark.parametrize("types", TYPES, ids=TYPE_NAMES)
def test_epilogues(types: Types, device: Device, stream: Stream, library: CublasLt):
    for activation, bias, residual in itertools.product(
        (Activation.NONE, Activation.RELU, Activation.GELU_TANH), (False, True), (False, True)
    ):
        problem = problem_of(*types, 40, 72, 64, activation=activation, bias=bias, residual=residual, alpha=0.5)
        if types[0] is F64 and library.prepare(problem) is None and (activation or bias):
            continue  # whether doubles have epilogues differs between releases
        solve(device, stream, library, problem)
        if residual:
            solve(device, stream, library, problem, in_place=True)


@pytest.mark.parametrize("types", TYPES, ids=TYPE_NAMES)
@pytest.mark.parametrize("shared", ["", "a", "b"])
def test_batches(types: Types, shared: str, device: Device, stream: Stream, library: CublasLt):
    strides = {"stride_a": 0 if shared == "a" else 24 * 40, "stride_b": 0 if shared == "b" else 40 * 16, "stride_d": 24 * 16}
    for transpose_b, bias, residual in itertools.product((False, True), repeat=3):
        if types[0] is F64 and bias:
            continue
        options: dict[str, Any] = {**strides, "transpose_b": transpose_b, "bias": bias, "residual": residual}
        solve(device, stream, library, problem_of(*types, 24, 16, 40, batch=5, **options))


@pytest.mark.parametrize("types", TYPES, ids=TYPE_NAMES)
def test_gaps_between_rows_and_matrices(types: Types, device: Device, stream: Stream, library: CublasLt):
    gaps = {"lda": 48, "ldb": 40, "ldd": 56, "stride_a": 16 * 48 + 64, "stride_b": 32 * 40 + 8, "stride_d": 16 * 56 + 24}
    options: dict[str, Any] = {"batch": 3, **gaps}
    problem = problem_of(*types, 16, 24, 32, **options)
    prepared = library.prepare(problem)
    assert prepared is not None
    case = Case(device, stream, problem)
    before = case.d.read().view(np.uint8).copy()
    run(device, stream, prepared, case)
    case.check()
    after = case.d.read().view(np.uint8)
    inside = np.zeros(len(case.d.read()), bool)
    np.lib.stride_tricks.as_strided(inside, (3, 16, 24), (problem.stride_d, problem.ldd, 1))[...] = True
    outside = ~np.repeat(inside, case.d.dtype.itemsize)
    np.testing.assert_array_equal(after[outside], before[outside])


@pytest.mark.parametrize("types", TYPES, ids=TYPE_NAMES)
def test_operands_on_any_element(types: Types, device: Device, stream: Stream, library: CublasLt):
    alignment = max(t.bits for t in types[:2]) // 8
    problem = problem_of(*types, 64, 64, 64, alignment=alignment, residual=True, bias=types[0] is not F64)
    shift = max(alignment, types[1].bits // 8)
    solve(device, stream, library, problem, shift=shift)


def test_whole_numbers_are_exact(device: Device, stream: Stream, library: CublasLt):
    problem = MatmulProblem(64, 32, 128, DType.I8, DType.I8, DType.I32, Compute.I32, transpose_b=True)
    solve(device, stream, library, problem)
    # The library has rules of its own for these; what it accepts has to be right.
    for m, n, k, transpose_a, transpose_b in [(64, 64, 64, False, False), (5, 7, 9, False, True), (64, 32, 16, True, True)]:
        other = replace(problem, m=m, n=n, k=k, transpose_a=transpose_a, transpose_b=transpose_b)
        if library.prepare(other) is not None:
            solve(device, stream, library, other)


def test_tf32_is_chosen_only_when_allowed(device: Device, stream: Stream, library: CublasLt):
    errors = {}
    for compute in (Compute.F32, Compute.TF32):
        problem = problem_of(F32, F32, compute, 512, 512, 512)
        prepared = library.prepare(problem)
        assert prepared is not None
        case = Case(device, stream, problem)
        run(device, stream, prepared, case)
        got = case.result()
        errors[compute] = np.linalg.norm(got - case.expected) / np.linalg.norm(case.expected)
    assert errors[Compute.F32] < 2e-6 < errors[Compute.TF32]


def test_every_candidate_is_right_and_repeats_its_bits(device: Device, stream: Stream, library: CublasLt):
    for problem in (problem_of(F16, F16, Compute.F32, 16, 64, 4096, bias=True), problem_of(F32, F32, Compute.TF32, 8, 8, 8192)):
        found = library.candidates(problem, 32)
        assert len(found) > 1
        case = Case(device, stream, problem)
        for prepared in found:
            check_repeats(device, stream, prepared, case)
        assert len({bytes(p._algorithm) for p in found}) == len(found)


def test_under_capture_with_two_sets_of_operands(device: Device, stream: Stream, library: CublasLt):
    problem = problem_of(BF16, BF16, Compute.F32, 96, 64, 128, bias=True, residual=True, activation=Activation.GELU_TANH)
    prepared = library.prepare(problem)
    assert prepared is not None
    check_under_capture(device, stream, prepared, [Case(device, stream, problem) for _ in range(2)])


def test_threads_with_streams_of_their_own(device: Device, library: CublasLt):
    problem = problem_of(F16, F16, Compute.F32, 64, 64, 64, bias=True)
    prepared = library.prepare(problem)
    assert prepared is not None
    check_in_threads(device, prepared, lambda stream: Case(device, stream, problem))


def test_a_limit_of_no_workspace(library: CublasLt):
    found = library.candidates(problem_of(F16, F16, Compute.F32, 16, 64, 4096), 16, workspace_limit=0)
    assert found and all(prepared.workspace_nbytes == 0 for prepared in found)
