"""The functions of kernels/sm90 on a GPU, over random parameters: what they must give, and what the emulated device does."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Operand
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.backends.cuda.loading.target_sections import sources_of
from tests.emulation.compiler import load
from tests.sm90_cases import barriers, columns, copies, products
from tests.sm90_cases.case import OUT, Case, emulated, random_cases

CASES = [
    *random_cases(copies.load_case, range(15)),
    *random_cases(copies.store_case, range(15)),
    *random_cases(copies.multicast_case, range(6)),
    *random_cases(columns.columns_case, range(12)),
    *random_cases(copies.sending_case, range(8)),
    *random_cases(barriers.ring_case, range(6)),
    *random_cases(barriers.cluster_case, range(6)),
    *random_cases(barriers.matrices_case, range(6)),
    *random_cases(products.product_case, range(48)),
    *random_cases(products.bytes_case, range(30)),
]


@pytest.fixture(scope="module")
def codes(device: Device) -> dict[Kernel, bytes]:
    """All kernels compiled, for the GPU and for the emulated device, by several threads."""
    assert device.arch == 90, "these functions are of sm_90a"
    kernels = list(dict.fromkeys(case.kernel for case in CASES))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        deque(pool.map(load, kernels), maxlen=0)
    return dict(zip(kernels, KernelCache(None).compile_many(sources_of(kernels, device.arch)), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_function(device: Device, stream: Stream, codes: dict[Kernel, bytes], case: Case) -> None:
    found = on_device(device, stream, case, codes[case.kernel])
    case.check(found)
    if case.slack is not None:
        np.testing.assert_array_less(np.abs(found - emulated(case)), case.slack)
    elif case.rtol:  # sums of a matrix unit are rounded in a way of its own
        np.testing.assert_allclose(found, emulated(case), rtol=1e-3, atol=1e-3)
    else:
        np.testing.assert_array_equal(found, emulated(case))


def on_device(device: Device, stream: Stream, case: Case, code: bytes) -> np.ndarray:
    """The result on the GPU."""
    launch = case.launch
    memory = {operand: device.allocate(array.nbytes) for operand, array in case.arrays.items()}
    with device.load(code) as module:
        for operand, array in case.arrays.items():
            stream.copy_to_device(memory[operand].address, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        values: list[Any] = []
        for argument in launch.arguments:
            if isinstance(argument, TensorMap):
                values.append(device.encode(argument, memory[argument.operand].address))
            else:
                values.append(np.uint64(memory[argument].address) if isinstance(argument, Operand) else argument)
        function = module.function(launch.kernel.name)
        function.allow_shared(launch.shared_nbytes)
        stream.launch(function, launch.grid, launch.block, launch.shared_nbytes, pack_parameters(values), launch.attributes)
        found = np.empty_like(case.before)
        stream.copy_to_host(found.ctypes.data, memory[OUT].address, found.nbytes)
        stream.synchronize()
    for one in memory.values():
        one.close()
    return found
