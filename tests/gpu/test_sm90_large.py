"""The product of many tokens on a GPU: every form against f64, and the same bits on every run."""

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.driver.module import Function
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.backends.cuda.loading.target_sections import sources_of
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import LargeForm
from miniinfer_cli.backends.cuda.tactics.products.narrow_product_sm90 import NarrowForm
from miniinfer_cli.ir import DType
from tests.gpu.test_sm90_product import Placed
from tests.sm90_cases.large import LARGE, NARROW, large, large_case
from tests.sm90_cases.tokens import TOLERANCES, D, Tokens
from tests.sm90_cases.windows import GROUPED_WINDOWS, LARGE_WINDOWS, NARROW_WINDOWS, large_windows_case

_MANY = 132
FOLLOWING: list[dict[str, bool]] = [{}, {"residual": True}, {"relu": True}, {"relu": True, "quick": True}]
CASES = [
    *(large_case(p, form, residual=residual) for p, form in LARGE for residual in (False, True)),
    *(large_case(p, form, relu=True, quick=quick) for p, form in LARGE for quick in (False, True)),
    *(large_windows_case(*listed, residual=residual) for listed in LARGE_WINDOWS for residual in (False, True)),
    *(large_case(p, form, **follows) for p, form in NARROW for follows in FOLLOWING),
    *(large_windows_case(*listed, residual=residual) for listed in NARROW_WINDOWS for residual in (False, True)),
    *(large_windows_case(*listed, residual=residual) for listed in GROUPED_WINDOWS for residual in (False, True)),
    large_case(large(70_000, 64, 320), NarrowForm(128, 6), residual=True, multiprocessors=_MANY),
    *(large_windows_case(*LARGE_WINDOWS[1], dtype=dtype) for dtype in (DType.BF16, DType.F32)),
    large_case(large(3000, 1100, 328), LargeForm(2, 256, 3, 2), residual=True, multiprocessors=_MANY),
    large_case(large(5000, 1000, 328), LargeForm(2, 192, 4, 2), multiprocessors=_MANY),
]
REPLAYS = 200


@pytest.fixture(scope="module")
def functions(device: Device) -> Iterator[dict[Kernel, Function]]:
    assert device.arch == 90, "the kernel is of sm_90a"
    kernels = list(dict.fromkeys(case.launch.kernel for case in CASES))
    codes = KernelCache(None).compile_many(sources_of(kernels, device.arch))
    with ExitStack() as closing:
        yield {
            kernel: closing.enter_context(device.load(code)).function(kernel.name)
            for kernel, code in zip(kernels, codes, strict=True)
        }


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.product} {case.launch.attributes.cluster}")
def test_a_form(device: Device, stream: Stream, functions: dict[Kernel, Function], case: Tokens) -> None:
    placed = Placed(device, stream, case, functions)
    placed.launch(placed.parameters({}))
    assert case.error(placed.read(placed.memory[D].address)) < TOLERANCES[case.product.dtype]
    placed.close()


@pytest.mark.parametrize("case", [case for case in CASES if case.product.count >= 3000], ids=lambda case: str(case.product))
def test_all_runs_give_the_same_bits(device: Device, stream: Stream, functions: dict[Kernel, Function], case: Tokens) -> None:
    placed = Placed(device, stream, case, functions)
    parameters, address = placed.parameters({}), placed.memory[D].address
    found: set[bytes] = set()
    for _ in range(REPLAYS):
        stream.fill(address, 0xFF, case.arrays[D].nbytes)
        placed.launch(parameters, programmatic=len(found) > 0)
        found.add(np.ascontiguousarray(placed.read(address)).tobytes())
    assert len(found) == 1
    placed.close()
