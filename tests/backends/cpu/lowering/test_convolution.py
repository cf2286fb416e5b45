"""ConvNHWC and Conv on the CPU beside their references."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.ops import convolve, convolve_winograd
from miniinfer_cli.ops.registry import OURS
from tests.backends.cpu.lowering.one_node import check_op
from tests.backends.cpu.lowering.test_matmul import normal


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("constants", [(), (1, 2)])
def test_every_float(dtype: Any, constants: tuple[int, ...]) -> None:
    x, w, b = normal(2, 6, 5, 8, dtype=dtype), normal(10, 3, 3, 8, dtype=dtype), normal(10, dtype=dtype)
    check_op("ConvNHWC", x, w, b, domain=OURS, constants=constants, pads=[1, 1, 1, 1], tolerance=2e-2, tactic="conv as gemm")


@pytest.mark.parametrize(
    ("x", "w", "attrs", "tactic"),
    [
        ((2, 7, 8, 4), (6, 3, 3, 4), {"strides": [2, 2], "pads": [0, 1, 2, 1]}, "conv as gemm"),
        ((2, 9, 8, 4), (6, 3, 2, 4), {"dilations": [2, 3]}, "conv as gemm"),
        ((2, 7, 8, 4), (6, 1, 1, 4), {}, "conv as gemm"),
        ((2, 7, 8, 4), (6, 3, 3, 4), {"auto_pad": "SAME_LOWER"}, "conv as gemm"),
        ((2, 9, 4), (6, 3, 4), {}, "conv as gemm"),
        ((1, 4, 5, 6, 3), (6, 2, 2, 2, 3), {}, "conv as gemm"),
        ((2, 7, 8, 6), (4, 3, 3, 3), {"group": 2}, "grouped conv"),
        ((2, 7, 8, 6), (6, 3, 3, 1), {"group": 6}, "grouped conv"),
        ((0, 7, 8, 4), (6, 3, 3, 4), {}, "conv as gemm"),
    ],
)
def test_every_geometry(x: tuple[int, ...], w: tuple[int, ...], attrs: dict[str, Any], tactic: str) -> None:
    check_op("ConvNHWC", normal(*x), normal(*w), domain=OURS, tolerance=1e-5, tactic=tactic, **attrs)


@pytest.mark.parametrize(
    ("x", "w", "attrs"),
    [
        ((2, 12, 14, 32), (40, 3, 3, 32), {"pads": [1, 1, 1, 1]}),
        ((1, 13, 11, 32), (32, 3, 3, 32), {"pads": [1, 0, 1, 2]}),
        ((1, 13, 17, 36), (33, 3, 3, 36), {}),
        ((1, 12, 9, 32), (32, 3, 3, 32), {"pads": [3, 2, 0, 5]}),
        ((1, 12, 12, 32), (32, 3, 3, 32), {"auto_pad": "SAME_LOWER"}),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 30])
def test_fewer_multiplications(x: Any, w: Any, attrs: dict[str, Any], chunk: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(convolve_winograd, "_CHUNK_NBYTES", chunk)
    monkeypatch.setattr(convolve_winograd, "_LEAST_ROWS", 1)
    for dtype, tolerance in ((np.float32, 2e-4), (np.float64, 1e-12)):
        operands = normal(*x, dtype=dtype), normal(*w, dtype=dtype), normal(w[0], dtype=dtype)
        check_op("ConvNHWC", *operands, domain=OURS, constants=(1, 2), tactic="winograd", tolerance=tolerance, **attrs)


def test_fewer_multiplications_are_as_exact() -> None:
    x, w = normal(1, 20, 20, 64), normal(64, 3, 3, 64)
    geometry = convolve.Geometry((1, 1), (1, 1), (1, 1), (1, 1))
    exact = convolve.conv_channels_last(x.astype(np.float64), w.astype(np.float64), None, geometry)
    out = np.empty_like(exact, np.float32)
    scratch = np.empty(convolve_winograd.scratch_elements(1, (20, 20), 64, 64, 4, 1), np.float32)
    turned = convolve_winograd.turned_weights(w)
    convolve_winograd.prepare_winograd(x, turned, (1, 1), out=out, scratch=scratch, for_each=None, follow=None)()
    assert np.linalg.norm(out - exact) < 1e-6 * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("w", "attrs", "constants"),
    [
        ((32, 3, 3, 32), {"pads": [1, 1, 1, 1]}, ()),  # weights that a run gives
        ((32, 3, 3, 32), {"strides": [2, 2]}, (1,)),
        ((32, 3, 3, 32), {"dilations": [2, 2], "pads": [1, 1, 1, 1]}, (1,)),
        ((32, 3, 2, 32), {}, (1,)),
        ((12, 3, 3, 32), {}, (1,)),  # few features
    ],
)
def test_what_is_multiplied_out(w: Any, attrs: dict[str, Any], constants: tuple[int, ...]) -> None:
    x = normal(1, 24, 24, 32)
    check_op("ConvNHWC", x, normal(*w), domain=OURS, constants=constants, tolerance=1e-4, tactic="conv as gemm", **attrs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("x", "w", "attrs", "tactic"),
    [
        ((2, 6, 5, 7), (4, 6, 1, 1), {}, "conv as gemm"),
        ((3, 6, 9), (4, 6, 1), {}, "conv as gemm"),
        ((0, 6, 9), (4, 6, 1), {}, "conv as gemm"),
        ((2, 6, 9), (0, 6, 1), {}, "conv as gemm"),
        ((2, 6, 5, 7), (4, 6, 1, 1), {"strides": [2, 1]}, "turned conv"),
        ((2, 6, 5, 7), (4, 3, 3, 2), {"group": 2, "pads": [1, 0, 1, 1]}, "turned conv"),
        ((1, 3, 9), (4, 3, 3), {"dilations": [2]}, "turned conv"),
    ],
)
def test_channels_first(x: Any, w: Any, attrs: dict[str, Any], tactic: str, dtype: Any) -> None:
    operands = normal(*x, dtype=dtype), normal(*w, dtype=dtype), normal(w[0], dtype=dtype)
    for constants in ((), (1, 2)):
        check_op("Conv", *operands, constants=constants, tolerance=1e-5, tactic=tactic, **attrs)
    check_op("Conv", *operands[:2], tolerance=1e-5, tactic=tactic, **attrs)


def test_halves_with_the_channels_first_are_left_to_the_reference() -> None:
    check_op("Conv", normal(1, 3, 5, dtype=np.float16), normal(4, 3, 1, dtype=np.float16), tactic="reference")
