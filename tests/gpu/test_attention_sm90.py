"""Attention by the kernel for sm_90a on a GPU: every cut and mask against f64, and the same bits whenever kernels begin."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.parameters import Parameters, pack_parameters
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Operand
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.driver.module import Function
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.backends.cuda.loading.target_sections import sources_of
from tests.sm90_cases.heads import CASES, MASKS, TOLERANCES, TURNED, Heads, Y, heads_case, masked_cut

LINKS, REPLAYS = 20, 100
ALL = [*(heads_case(p, cut) for p, cut in (*CASES, *TURNED)), *(heads_case(p, masked_cut(p)) for p in MASKS)]


@pytest.fixture(scope="module")
def functions(device: Device) -> Iterator[dict[Kernel, Function]]:
    assert device.arch == 90, "the kernel is of sm_90a"
    kernels = list(dict.fromkeys(case.launch.kernel for case in ALL))
    codes = KernelCache(None).compile_many(sources_of(kernels, device.arch))
    with ExitStack() as closing:
        yield {
            kernel: closing.enter_context(device.load(code)).function(kernel.name)
            for kernel, code in zip(kernels, codes, strict=True)
        }


class Placed:
    """A case in the device's memory. A context."""

    def __init__(self, device: Device, stream: Stream, case: Heads, functions: dict[Kernel, Function]) -> None:
        self.device, self.stream, self.case = device, stream, case
        self.function = functions[case.launch.kernel]
        self.function.allow_shared(case.launch.shared_nbytes)
        self.memory = {operand: device.allocate(array.nbytes) for operand, array in case.arrays.items()}
        for operand, array in case.arrays.items():
            stream.copy_to_device(self.memory[operand].address, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        stream.synchronize()

    def __enter__(self) -> "Placed":
        return self

    def __exit__(self, *exception: object) -> None:
        for memory in self.memory.values():
            memory.close()

    def _at(self, operand: Operand) -> int:
        return self.memory[replace(operand, offset=0)].address + operand.offset

    def parameters(self) -> Parameters:
        values: list[Any] = []
        for argument in self.case.launch.arguments:
            if isinstance(argument, TensorMap):
                values.append(self.device.encode(argument, self._at(argument.operand)))
            else:
                values.append(np.uint64(self._at(argument)) if isinstance(argument, Operand) else argument)
        return pack_parameters(values)

    def launch(self, parameters: Parameters, *, programmatic: bool = False) -> None:
        action = self.case.launch
        attributes = replace(action.attributes, programmatic=programmatic)
        self.stream.launch(self.function, action.grid, action.block, action.shared_nbytes, parameters, attributes)

    def read(self) -> np.ndarray:
        found = np.empty_like(self.case.arrays[Y])
        self.stream.copy_to_host(found.ctypes.data, self._at(Y), found.nbytes)
        self.stream.synchronize()
        return found


@pytest.mark.parametrize("case", ALL, ids=lambda case: str(case.problem))
def test_a_case(device: Device, stream: Stream, functions: dict[Kernel, Function], case: Heads) -> None:
    with Placed(device, stream, case, functions) as placed:
        placed.launch(placed.parameters())
        assert case.error(placed.read()) < TOLERANCES[case.problem.dtype]


@pytest.mark.parametrize("number", [1, 3, 6])
def test_the_same_bits_whenever_it_begins(device: Device, stream: Stream, functions: dict[Kernel, Function], number: int) -> None:
    with Placed(device, stream, ALL[number], functions) as placed:
        parameters = placed.parameters()
        placed.launch(parameters)
        wanted = placed.read().tobytes()
        stream.begin_capture()
        for link in range(LINKS):
            placed.launch(parameters, programmatic=link > 0)
        with stream.end_capture() as graph:
            for _ in range(REPLAYS):
                stream.fill(placed.memory[Y].address, 0xFF, len(wanted))
                stream.launch_graph(graph)
                assert placed.read().tobytes() == wanted
