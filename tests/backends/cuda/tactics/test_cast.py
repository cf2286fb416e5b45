"""Cast, CastLike and BitCast on the emulated device: between all types, roundings, what leaves the range."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Copy
from miniinfer_cli.ir import DType, numpy_dtype
from miniinfer_cli.ops.type_codes import code_of_dtype
from tests.backends.cuda.harness import check_op, run_op
from tests.backends.cuda.tactics.lowered import lower_op
from tests.backends.cuda.tactics.pointwise_bodies import body_of_calls, check_calls, numbers, run_body
from tests.backends.nodes import reference

TYPES = [d for d in DType if d not in (DType.STR, DType.C64, DType.C128)]
FP8 = (DType.F8E4M3FN, DType.F8E4M3FNUZ, DType.F8E5M2, DType.F8E5M2FNUZ)


def samples(dtype: DType):
    """Every number of a small type, and of larger ones many that lie within the range of most others, halves included."""
    kind = numpy_dtype(dtype)
    if dtype is DType.BOOL:
        return np.array([True, False, True])
    if dtype.bits <= 8 and dtype.is_float:
        return np.arange(1 << dtype.bits, dtype=np.uint8).view(kind)
    if dtype.is_float:
        few = np.concatenate([np.arange(-24, 25) / 8, np.arange(-60, 61), [126.5, 448, 464, 465, 1e-3, 2.0**-9, 2.0**-17]])
        return few.astype(kind)
    if dtype.bits < 8:
        return np.arange(-(1 << dtype.bits) // 2, (1 << dtype.bits) // 2).astype(np.int8).astype(kind)
    return numbers(kind, (97,))


@pytest.mark.parametrize("source", TYPES)
def test_every_type_to_every_other(source):
    x = samples(source)
    targets = [t for t in TYPES if not (source.is_float and t.value.startswith("u") and t.bits >= 32)]
    if source.is_float:  # numpy's answers for NaN and infinity are its processor's
        finite = np.isfinite(x.astype(np.float32))
        x = np.where(finite, x.astype(np.float32), 0).astype(x.dtype)
    check_calls([x], [("Cast", (0,), {"to": code_of_dtype(t)}) for t in targets])


@pytest.mark.parametrize("source", [DType.F64, DType.F32, DType.F16, DType.BF16])
def test_special_values_to_small_floats(source):
    special = [np.nan, np.inf, -np.inf, -0.0, 1e5, -1e5, 449.0, 2.0**-10, 2.0**-30, 60000.0, 63000.0, 6.9, 0.25, 0.75]
    with np.errstate(over="ignore"):
        x = np.array(special, numpy_dtype(source))
    calls = [("Cast", (0,), {"to": code_of_dtype(t), "saturate": s}) for t in FP8 for s in (0, 1)]
    modes = [{"round_mode": m, "saturate": s} for m in ("up", "down", "nearest") for s in (0, 1)]
    calls += [("Cast", (0,), {"to": code_of_dtype(DType.F8E8M0), **m}) for m in modes]
    others = (DType.F4E2M1, DType.F16, DType.BF16, DType.F32, DType.BOOL, DType.I32, DType.I64, DType.I8, DType.I16)
    check_calls([x], [*calls, *(("Cast", (0,), {"to": code_of_dtype(t)}) for t in others)])


def test_floats_to_unsigned_integers_within_their_range():
    x = np.array([0, 1.9, 255, 65535, 3e9, 1e19, 1.8e19], np.float64)
    limits = {DType.U8: 255, DType.U16: 65535, DType.U32: 1 << 32, DType.U64: 1 << 64}
    for t, limit in limits.items():
        check_op("Cast", x[x < limit], to=code_of_dtype(t))
        check_op("Cast", x[x < limit].astype(np.float32), to=code_of_dtype(t))


def test_a_cast_rounds_within_a_chain():
    x = numbers(np.float32, (50,))
    body = body_of_calls([x], [])
    narrow = body.add("Cast", body.inputs[0], to=code_of_dtype(DType.F16))
    body.set_outputs([body.add("Cast", narrow, to=code_of_dtype(DType.F32))])
    (got,) = run_body(body, [x])
    np.testing.assert_array_equal(got, x.astype(np.float16).astype(np.float32))


def test_the_type_of_another_tensor():
    check_op("CastLike", numbers(np.float32, (3, 5)), np.zeros((7,), np.float16), instead=["Cast"])
    small = np.zeros((0,), ml_dtypes.float8_e5m2)
    check_op("CastLike", numbers(np.float32, (3, 5)), small, saturate=0, instead=["Cast"])


@pytest.mark.parametrize(
    ("source", "target"),
    [(DType.F32, DType.I32), (DType.I16, DType.BF16), (DType.U8, DType.F8E5M2), (DType.C64, DType.F64), (DType.F16, DType.U16)],
)
def test_bits_of_whole_bytes_are_copied(source, target):
    x = np.arange(1, 49, dtype=np.uint8).view(numpy_dtype(source))
    (got,) = run_op("BitCast", x, to=code_of_dtype(target))
    np.testing.assert_array_equal(got.view(np.uint8), x.view(np.uint8))
    lowered = lower_op("BitCast", x, to=code_of_dtype(target))
    assert [type(a) for a in lowered.actions] == [Copy]


@pytest.mark.parametrize("source", [DType.I4, DType.U4, DType.F4E2M1, DType.I2, DType.U2])
def test_bits_below_a_byte(source):
    targets = [d for d in (DType.I4, DType.U4, DType.F4E2M1, DType.I2, DType.U2) if d.bits == source.bits]
    x = samples(source)
    check_calls([x], [("BitCast", (0,), {"to": code_of_dtype(t)}) for t in targets])


def test_bits_within_a_chain():
    x = numbers(np.float16, (33,))
    y = numbers(np.float32, (33,))
    calls = [("BitCast", (0,), {"to": code_of_dtype(DType.I16)}), ("BitCast", (1,), {"to": code_of_dtype(DType.U32)})]
    got = run_body(body_of_calls([x, y], calls), [x, y])
    for g, a, (op, _, attrs) in zip(got, (x, y), calls, strict=True):
        np.testing.assert_array_equal(g, reference(op, a, **attrs)[0])


def test_strings_stay_on_the_host():
    assert lower_op("Cast", np.zeros(3, np.float32), to=code_of_dtype(DType.STR)) is None
