"""DequantizeLinear of constants of 4 bits on the emulated device; test_quantize.py has all others."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize(
    ("stored", "shape", "axis", "block", "zeros"),
    [
        (ml_dtypes.int4, (200, 72), 0, 64, False),
        (ml_dtypes.uint4, (160, 33), 0, 16, True),
        (ml_dtypes.int4, (40, 160), 1, 32, True),
        (ml_dtypes.uint4, (230, 24), 1, 0, True),
        (ml_dtypes.int4, (63, 128), 0, 0, False),
    ],
)
def test_constants_of_4_bits_are_read_as_products_of_few_tokens_read_them(
    dtype: Any, stored: Any, shape: tuple[int, int], axis: int, block: int, zeros: bool
) -> None:
    rng = np.random.default_rng(sum(shape))
    low = -8 if stored is ml_dtypes.int4 else 0
    groups = [-(-n // block) if block and i == axis else n for i, n in enumerate(shape)] if block else [shape[axis]]
    operands = [rng.integers(low, low + 16, shape).astype(stored), rng.uniform(0.1, 2, groups).astype(dtype)]
    operands += [rng.integers(low, low + 16, groups).astype(stored)] if zeros else []
    attrs: dict[str, Any] = {"axis": axis, **({"block_size": block} if block else {})}
    for target, by in ((Target(), "packed"), (Target(arch=80), "pointwise")):
        check_op("DequantizeLinear", *operands, constants=(0, 1, 2)[: len(operands)], target=target, by=by, tolerance=0, **attrs)
