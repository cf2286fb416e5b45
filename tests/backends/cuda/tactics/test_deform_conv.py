"""DeformConv."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import LibraryCall, Lowered
from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.tactics import lowered as lowered_module
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.cuda.tactics.lowered import lower_op

TOLERANCES = {"float32": 2e-5, "float64": 1e-10, "float16": 1e-2, "bfloat16": 4e-2}


def operands(size, kernel, n=2, channels=4, features=6, group=1, offset_group=1, bias=True, mask=True, dtype=np.float32, **attrs):
    r = np.random.default_rng(0)
    axes = len(size)
    step, gap, pad = attrs.get("strides", [1] * axes), attrs.get("dilations", [1] * axes), attrs.get("pads", [0] * 2 * axes)
    out = [
        (s + pad[i] + pad[axes + i] - gap[i] * (k - 1) - 1) // step[i] + 1
        for i, (s, k) in enumerate(zip(size, kernel, strict=True))
    ]
    taps = int(np.prod(kernel))
    given = [
        r.standard_normal((n, channels, *size)),
        r.standard_normal((features, channels // group, *kernel)) / taps**0.5,
        r.standard_normal((n, offset_group * taps * axes, *out)) * 2,
        r.standard_normal(features) if bias else None,
        r.random((n, offset_group * taps, *out)) if mask else None,
    ]
    return [None if a is None else a.astype(dtype) for a in given]


def check(*args, dtype=np.float32, **options):
    given = operands(*args, dtype=dtype, **options)
    attrs = {k: v for k, v in options.items() if k in ("group", "offset_group", "strides", "dilations", "pads")}
    check_op("DeformConv", *given, kernel_shape=list(args[1]), tolerance=TOLERANCES[np.dtype(dtype).name], **attrs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_every_type(dtype):
    check((7, 8), (3, 3), dtype=dtype, pads=[1, 1, 1, 1])


@pytest.mark.parametrize(
    "options",
    [
        {"group": 2, "offset_group": 2},
        {"group": 2, "bias": False, "mask": False},
        {"offset_group": 4, "bias": False},
        {"strides": [2, 1], "dilations": [1, 2], "mask": False},
    ],
)
def test_geometry(options):
    check((7, 8), (3, 2), **options)


@pytest.mark.parametrize(("size", "kernel"), [((9,), (3,)), ((4, 5, 6), (2, 2, 3))])
def test_other_ranks(size, kernel):
    check(size, kernel, channels=2)


def test_offsets_far_outside():
    x, w, offset, *_ = operands((5, 5), (2, 2))
    offset[0, 0, 0], offset[0, 1, 1, 1] = 1e9, -1e9
    check_op("DeformConv", x, w, offset, kernel_shape=[2, 2], tolerance=2e-5)


def test_wide_indices(wide_indices):
    check((5, 5), (2, 2))


def test_the_library_multiplies_columns_of_the_element_type(monkeypatch):
    monkeypatch.setattr(lowered_module, "Target", lambda: Target(supports=lambda problem: True))
    x, w, offset, bias, mask = operands((7, 8), (3, 3), dtype=np.float16)
    lowered = lower_op("DeformConv", x, w, offset, bias, mask)
    assert isinstance(lowered, Lowered)
    columns, *calls, add_bias = lowered.actions
    assert calls and all(isinstance(c, LibraryCall) for c in calls)
    assert ("MI_S", "f16") in columns.kernel.defines and add_bias.kernel.name == "add_bias"


def test_columns_of_one_feature_each_are_not_the_librarys(monkeypatch):
    monkeypatch.setattr(lowered_module, "Target", lambda: Target(supports=lambda problem: True))
    x, w, offset, bias, mask = operands((7, 8), (3, 3), channels=4, features=4, group=4, dtype=np.float16)
    lowered = lower_op("DeformConv", x, w, offset, bias, mask, group=4)
    assert isinstance(lowered, Lowered)
    assert "gemv" in lowered.tactic and not any(isinstance(c, LibraryCall) for c in lowered.actions)
    assert ("MI_S", "f32") in lowered.actions[0].kernel.defines
    assert "add_bias" not in [a.kernel.name for a in lowered.actions]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_every_tactic_convolves_when_it_is_forced(dtype):
    tolerance = 5e-3 if dtype is np.float16 else 2e-5
    keys = check_every_tactic(
        *("DeformConv", *operands((6, 6), (3, 3), group=2, dtype=dtype)), group=2, target=Library().target(), tolerance=tolerance
    )
    assert keys == [f"columns, {way}" for way in ("cublaslt", "gemv_along_n", "gemm 64x64", "gemm 128x128")]
