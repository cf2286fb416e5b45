"""Problems in cuBLASLt's terms, and what is asked of the library, against one of numpy that thinks in columns."""

import ctypes
import gc
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.backends.cuda.contract.problems import Activation, Compute, MatmulProblem, Variant
from miniinfer_cli.backends.cuda.driver import cublaslt
from miniinfer_cli.backends.cuda.driver import cublaslt_api as api
from miniinfer_cli.backends.cuda.driver.cublaslt import CublasLt
from miniinfer_cli.backends.cuda.driver.cublaslt_forms import describe
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.ir import DType, numpy_dtype
from tests.backends.cuda.driver.fake_cublaslt import FakeCublasLt

PLAIN = MatmulProblem(m=3, n=4, k=5, a=DType.F32, b=DType.F32, d=DType.F32, compute=Compute.F32)


TAKEN = [Activation.NONE, Activation.RELU, Activation.GELU_TANH]


class FakeDevice:
    def __init__(self) -> None:
        self.made_current = 0

    def make_current(self) -> None:
        self.made_current += 1


@pytest.fixture
def fake() -> FakeCublasLt:
    return FakeCublasLt()


@pytest.fixture
def library(fake: FakeCublasLt, monkeypatch: pytest.MonkeyPatch) -> Iterator[CublasLt]:
    with opened(fake, monkeypatch) as made:
        yield made


def opened(fake: FakeCublasLt, monkeypatch: pytest.MonkeyPatch) -> CublasLt:
    monkeypatch.setattr(cublaslt, "load_library", lambda name: fake.library)
    return CublasLt(FakeDevice())  # type: ignore[arg-type]


def test_sizes_and_numbers_are_those_of_the_header():
    assert ctypes.sizeof(api.Algorithm) == 64
    assert ctypes.sizeof(api.HeuristicResult) == 96
    assert [getattr(api.HeuristicResult, f).offset for f in ("workspace_nbytes", "state", "waves", "reserved")] == [
        64,
        72,
        76,
        80,
    ]
    # cublasLt.h, cublas_api.h and library_types.h of nvidia-cublas 13.
    assert (api.COMPUTE_32F, api.COMPUTE_64F, api.COMPUTE_32I, api.COMPUTE_32F_FAST_TF32) == (68, 70, 72, 77)
    assert (api.DESC_TRANSA, api.DESC_TRANSB, api.DESC_EPILOGUE, api.DESC_BIAS_POINTER) == (3, 4, 7, 8)
    assert (api.LAYOUT_BATCH_COUNT, api.LAYOUT_STRIDED_BATCH_OFFSET) == (5, 6)
    assert (api.EPILOGUE_DEFAULT, api.EPILOGUE_RELU, api.EPILOGUE_BIAS, api.EPILOGUE_GELU) == (1, 2, 4, 32)
    assert (api.PREF_MAX_WORKSPACE_BYTES, api.PREF_REDUCTION_SCHEME_MASK) == (1, 3)
    assert api.PREF_MIN_ALIGNMENT_BYTES == (5, 6, 7, 8)
    assert api.DATA_TYPES == {
        DType.F32: 0,
        DType.F64: 1,
        DType.F16: 2,
        DType.I8: 3,
        DType.I32: 10,
        DType.BF16: 14,
        DType.F8E4M3FN: 28,
        DType.F8E5M2: 29,
    }


@pytest.mark.parametrize(
    ("activation", "bias", "epilogue"),
    [
        (Activation.NONE, False, 1),
        (Activation.NONE, True, 4),
        (Activation.RELU, False, 2),
        (Activation.RELU, True, 6),
        (Activation.GELU_TANH, False, 32),
        (Activation.GELU_TANH, True, 36),
    ],
)
def test_epilogues(activation: Activation, bias: bool, epilogue: int):
    form = describe(replace(PLAIN, activation=activation, bias=bias))
    assert form is not None and form.epilogue == epilogue


def test_tf32_is_for_f32_operands_only():
    halves = replace(PLAIN, a=DType.F16, b=DType.F16, compute=Compute.TF32)
    assert [describe(p).compute for p in (replace(PLAIN, compute=Compute.TF32), halves)] == [Compute.TF32, Compute.F32]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change",
    [
        {"m": 0},
        {"k": 0},
        {"batch": 0},
        {"a": DType.I16},
        {"activation": Activation.GELU},
        {"compute": Compute.I32, "a": DType.I8, "b": DType.I8, "d": DType.I32, "alpha": 0.5},
    ],
)
def test_what_cublaslt_has_no_word_for_is_not_asked(change: dict[str, Any], library: CublasLt, fake: FakeCublasLt):
    assert library.prepare(replace(PLAIN, **change)) is None
    assert "cublasLtMatmulAlgoGetHeuristic" not in fake.calls


@pytest.mark.parametrize("change", [{"lda": 4}, {"transpose_b": True, "ldb": 4}, {"ldd": 3}, {"batch": 2, "stride_a": 15}])
def test_contradictory_problems_are_bugs(change: dict[str, Any]):
    with pytest.raises(ValueError, match=r"apart|overlap"):
        describe(replace(PLAIN, **change))


class Operand:
    """A batch of row-major matrices with gaps between rows and matrices, on a multiple of 64 bytes."""

    def __init__(self, dtype: Any, batch: int, rows: int, columns: int, ld: int, stride: int) -> None:
        self.dtype = np.dtype(dtype)
        count = (batch - 1) * stride + (rows - 1) * ld + columns
        self._raw = np.full(count * self.dtype.itemsize + 64, 0xA5, np.uint8)
        start = -self._raw.ctypes.data % 64
        self.flat = self._raw[start : start + count * self.dtype.itemsize].view(self.dtype)
        self.address = self.flat.ctypes.data
        strides = (stride * self.dtype.itemsize, ld * self.dtype.itemsize, self.dtype.itemsize)
        self.array = np.lib.stride_tricks.as_strided(self.flat, (batch, rows, columns), strides)

    def fill(self, random: np.random.Generator) -> None:
        # Small whole numbers: exact in every type, whatever the order of the sum.
        self.array[...] = random.integers(-3, 4, self.array.shape)


@st.composite
def problems(draw: st.DrawFn) -> MatmulProblem:
    size = st.integers(1, 6)
    m, n, k, batch = draw(size), draw(size), draw(size), draw(st.integers(1, 3))
    a, b, d, compute = draw(
        st.sampled_from(
            [
                (DType.F32, DType.F32, DType.F32, Compute.F32),
                (DType.F32, DType.F32, DType.F32, Compute.TF32),
                (DType.F16, DType.F16, DType.F16, Compute.F32),
                (DType.F16, DType.F16, DType.F32, Compute.F32),
                (DType.F64, DType.F64, DType.F64, Compute.F64),
                (DType.I8, DType.I8, DType.I32, Compute.I32),
            ]
        )
    )
    transpose_a, transpose_b = draw(st.booleans()), draw(st.booleans())
    a_rows, a_columns = (k, m) if transpose_a else (m, k)
    b_rows, b_columns = (n, k) if transpose_b else (k, n)
    lda, ldb, ldd = (draw(st.one_of(st.just(0), st.integers(c, c + 3))) for c in (a_columns, b_columns, n))
    many = batch > 1
    return MatmulProblem(
        *(m, n, k, a, b, d, compute, transpose_a, transpose_b, lda, ldb, ldd, batch),
        stride_a=draw(st.sampled_from([0, a_rows * (lda or a_columns) + 1])) if many else 0,
        stride_b=draw(st.sampled_from([0, b_rows * (ldb or b_columns) + 2])) if many else 0,
        stride_d=m * (ldd or n) + draw(st.integers(0, 2)) if many else 0,
        alpha=draw(st.sampled_from([1.0, -2.0])),
        bias=draw(st.booleans()) and compute is not Compute.I32,
        residual=draw(st.booleans()),
        activation=draw(st.sampled_from([Activation.NONE, Activation.RELU, Activation.GELU_TANH]))
        if compute is not Compute.I32
        else Activation.NONE,
    )


def operands_of(p: MatmulProblem) -> tuple[Operand, Operand, Operand]:
    a_shape = (p.k, p.m) if p.transpose_a else (p.m, p.k)
    b_shape = (p.n, p.k) if p.transpose_b else (p.k, p.n)
    return (
        Operand(numpy_dtype(p.a), p.batch, *a_shape, p.lda or a_shape[1], p.stride_a),
        Operand(numpy_dtype(p.b), p.batch, *b_shape, p.ldb or b_shape[1], p.stride_b),
        Operand(numpy_dtype(p.d), p.batch, p.m, p.n, p.ldd or p.n, p.stride_d),
    )


@settings(max_examples=300, deadline=None)
@given(problem=problems(), seed=st.integers(0, 1000), in_place=st.booleans())
def test_every_problem_is_what_numpy_makes_of_it(problem: MatmulProblem, seed: int, in_place: bool):
    with pytest.MonkeyPatch.context() as monkeypatch, opened(FakeCublasLt(), monkeypatch) as library:
        random = np.random.default_rng(seed)
        a, b, d = operands_of(problem)
        c = d if in_place else operands_of(problem)[2]
        bias = Operand(d.dtype, 1, 1, problem.n, problem.n, 0)
        for operand in (a, b, c, bias):
            operand.fill(random)
        left = np.swapaxes(a.array, 1, 2) if problem.transpose_a else a.array
        right = np.swapaxes(b.array, 1, 2) if problem.transpose_b else b.array
        expected = problem.alpha * (left.astype(np.float64) @ right.astype(np.float64))
        expected = expected + c.array.astype(np.float64) * problem.residual + bias.array.astype(np.float64) * problem.bias
        if problem.activation is Activation.RELU:
            expected = np.maximum(expected, 0)
        if problem.activation is Activation.GELU_TANH:
            expected = 0.5 * expected * (1 + np.tanh(0.7978845608028654 * (expected + 0.044715 * expected**3)))
        gaps = d.flat.copy()

        prepared = library.prepare(problem)
        if problem.compute is Compute.F64 and problem.activation is Activation.GELU_TANH:
            assert prepared is None  # the library's is right to 3e-10 only
            return
        assert prepared is not None
        addresses = [a.address, b.address, d.address]
        addresses += [c.address] * problem.residual + [bias.address] * problem.bias
        prepared.enqueue(7, addresses)

        np.testing.assert_array_equal(d.array, expected.astype(d.dtype))
        if not in_place:
            untouched = np.ones(len(d.flat), bool)
            np.lib.stride_tricks.as_strided(untouched, d.array.shape, [s // d.dtype.itemsize for s in d.array.strides])[...] = (
                False
            )
            np.testing.assert_array_equal(d.flat[untouched].view(np.uint8), gaps[untouched].view(np.uint8))


def test_equal_problems_give_one_object_and_other_limits_another(library: CublasLt, fake: FakeCublasLt):
    first = library.prepare(PLAIN)
    assert first is not None and library.prepare(replace(PLAIN)) is first
    assert fake.calls.count("cublasLtMatmulAlgoGetHeuristic") == 1
    assert library.prepare(PLAIN, workspace_limit=0) is not first


def test_the_heuristic_is_told_what_to_avoid(library: CublasLt, fake: FakeCublasLt):
    library.prepare(replace(PLAIN, bias=True, alignment=4), workspace_limit=512)
    assert fake.preferences == [{1: 512, 3: api.REDUCTION_SCHEME_COMPUTE_TYPE, 5: 4, 6: 4, 7: 4, 8: 4, "bias": 4}]


@pytest.mark.parametrize("status", [api.STATUS_NOT_SUPPORTED, api.STATUS_INVALID_VALUE, api.STATUS_ARCH_MISMATCH])
def test_no_solution(status: int, library: CublasLt, fake: FakeCublasLt):
    fake.heuristic_status = status
    assert library.prepare(PLAIN) is None
    fake.heuristic_status = 0
    assert library.prepare(PLAIN) is None, "the answer is remembered"
    assert library.candidates(replace(PLAIN, m=2), workspace_limit=0) != []


def test_an_unexpected_status_is_an_error_with_its_name(library: CublasLt, fake: FakeCublasLt):
    fake.heuristic_status = 14
    with pytest.raises(DeviceError, match=r"cublasLtMatmulAlgoGetHeuristic failed with an unknown status \(14\)"):
        library.prepare(PLAIN)
    fake.library.cublasLtMatmul = lambda *arguments: api.STATUS_NOT_SUPPORTED
    fake.heuristic_status = 0
    prepared = library.prepare(PLAIN)
    assert prepared is not None
    with pytest.raises(DeviceError, match=r"CUBLAS_STATUS_NOT_SUPPORTED \(15\) for MatmulProblem\(m=3"):
        prepared.enqueue(0, [16, 32, 48])


def test_candidates_come_in_the_heuristics_order(library: CublasLt, fake: FakeCublasLt):
    fake.algorithms = [100, 0, 5000, 20]
    found = library.candidates(PLAIN, 3, workspace_limit=1000)
    assert [c.workspace_nbytes for c in found] == [100, 0, 20]
    assert [c.name for c in found] == ["cublasLt algorithm 0", "cublasLt algorithm 1", "cublasLt algorithm 3"]


def test_a_variant_is_the_same_algorithm_again(library: CublasLt, fake: FakeCublasLt):
    fake.algorithms = [0, 256, 512]
    first = library.prepare(PLAIN)
    second, third = library.variants(PLAIN, 16)
    assert first is not None and first.variant not in (second, third)
    assert library.variants(PLAIN, 1) == [second]
    again = library.prepare(PLAIN, third)
    assert again is not None and (again.workspace_nbytes, again.variant) == (512, third)
    assert library.prepare(PLAIN, third) is again and library.prepare(PLAIN) is first
    data = third.opaque["algorithm"]
    assert isinstance(data, bytes) and len(data) == 64
    assert library.version == "13.1.1"


def test_a_variant_that_does_not_fit_is_refused(library: CublasLt, fake: FakeCublasLt):
    fake.algorithms = [0, 256]
    (variant,) = library.variants(PLAIN, 1)
    assert library.prepare(PLAIN, variant, workspace_limit=255) is None
    data = variant.opaque["algorithm"]
    assert isinstance(data, bytes)
    for opaque in ({}, {"algorithm": data[:-8]}, {"algorithm": 1}, {"algorithm": data, "more": 1}, {"plan": data}):
        assert library.prepare(PLAIN, Variant.of(opaque)) is None
    assert library.prepare(PLAIN, Variant.of({"algorithm": b"\x09" + data[1:]})) is None  # of a number that the library has not
    fake.scheme = 4  # sums in the result's type
    assert library.prepare(replace(PLAIN, m=7), variant) is None
    assert library.prepare(replace(PLAIN, compute=Compute.F64, activation=Activation.GELU_TANH), variant) is None


def test_enqueue_refuses_what_cannot_be_right(library: CublasLt, fake: FakeCublasLt):
    fake.algorithms = [100]
    prepared = library.prepare(replace(PLAIN, bias=True))
    assert prepared is not None
    for addresses, workspace, message in (
        ([16, 32, 48], 64, "expected 4 addresses, got 3"),
        ([16, 32, 48, 8], 64, "multiples of 16 bytes, got 0x10, 0x20, 0x30, 0x8"),
        ([16, 32, 48, 64], 0, "needs a workspace of 100 bytes"),
    ):
        with pytest.raises(ValueError, match=message):
            prepared.enqueue(0, addresses, workspace)
    assert "cublasLtMatmul" not in fake.calls


def test_descriptors_go_with_their_last_user(library: CublasLt, fake: FakeCublasLt):
    before = len(fake.objects)
    found = library.candidates(PLAIN)
    assert len(fake.objects) == before + 4, "a description and three layouts; the preference is gone"
    found.clear()
    gc.collect()
    assert len(fake.objects) == before


def test_descriptors_made_before_a_failure_go_too(library: CublasLt, fake: FakeCublasLt):
    before = len(fake.objects)
    fake.library.cublasLtMatrixLayoutCreate = lambda *arguments: 3
    with pytest.raises(DeviceError, match="cublasLtMatrixLayoutCreate failed"):
        library.prepare(PLAIN)
    gc.collect()
    assert len(fake.objects) == before


def test_closing_twice_and_using_what_is_closed(fake: FakeCublasLt, monkeypatch: pytest.MonkeyPatch):
    library = opened(fake, monkeypatch)
    library.close()
    library.close()
    assert fake.calls.count("cublasLtDestroy") == 1
    with pytest.raises(ValueError, match="closed"):
        library.prepare(PLAIN)


def test_one_row_needs_no_distance_to_the_next():
    form = describe(replace(PLAIN, m=1, lda=1, ldd=2))
    assert form is not None and (form.second.ld, form.d.ld) == (5, 4)


def test_threads_share_one_description_but_not_its_bias(library: CublasLt, fake: FakeCublasLt):
    set_attribute = fake.library.cublasLtMatmulDescSetAttribute

    def set_and_let_others_run(*arguments: Any) -> int:
        status: int = set_attribute(*arguments)
        time.sleep(0.0002)
        return status

    fake.library.cublasLtMatmulDescSetAttribute = set_and_let_others_run
    problem = replace(PLAIN, bias=True)
    prepared = library.prepare(problem)
    assert prepared is not None
    failures: list[int] = []

    def work(number: int) -> None:
        a, b, d = operands_of(problem)
        bias = Operand(d.dtype, 1, 1, problem.n, problem.n, 0)
        a.array[...], b.array[...], bias.array[...] = 0, 0, number
        for _ in range(50):
            prepared.enqueue(number, [a.address, b.address, d.address, bias.address])
            if (d.array != number).any():
                failures.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> Any:
        raise DeviceError(f"the {name} library was not found", hint="pip install")

    monkeypatch.setattr(cublaslt, "load_library", absent)
    with pytest.raises(DeviceError, match="cublasLt library was not found"):
        CublasLt(FakeDevice())  # type: ignore[arg-type]
