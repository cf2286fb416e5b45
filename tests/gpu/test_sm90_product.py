"""The product of few tokens, and those of bytes, on a GPU: every form against f64, and the same bits whenever kernels begin."""

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
from miniinfer_cli.backends.cuda.tactics.products.token_forms import Form, TokenProduct
from miniinfer_cli.ir import DType
from tests.sm90_cases.byte_products import BYTE_FORMS, MANY, byte_case, many_case
from tests.sm90_cases.tokens import FORMS, TOLERANCES, D, Tokens, X, tokens_case
from tests.sm90_cases.windows import WINDOWS, windows_case

LINKS, REPLAYS = 20, 500
# As many features as k, so that each result is the next one's tokens.
CHAINS = [Form(128, 3, 1, 4, 1, 2), Form(32, 2, 1, 6), Form(64, 1, 2, 4), Form(64, 4, 1, 3, 1, 2)]


def _chain(form: Form) -> Tokens:
    return tokens_case(TokenProduct(128, 768, 768, DType.F16, DType.F16, 768, 768), form)


_TOKENS = [*(tokens_case(p, form) for p, form in FORMS), tokens_case(*FORMS[2], residual=True)]
_BYTES = [*(byte_case(*c) for c in BYTE_FORMS), *(many_case(*c) for c in MANY)]
CASES = [*_TOKENS, *(windows_case(*w) for w in WINDOWS), *_BYTES, *map(_chain, CHAINS)]


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


class Placed:
    """A case in the device's memory."""

    def __init__(self, device: Device, stream: Stream, case: Tokens, functions: dict[Kernel, Function]) -> None:
        self.device, self.stream, self.case = device, stream, case
        self.function = functions[case.launch.kernel]
        self.function.allow_shared(case.launch.shared_nbytes)
        self.memory = {operand: device.allocate(array.nbytes) for operand, array in case.arrays.items()}
        for operand, array in case.arrays.items():
            stream.copy_to_device(self.memory[operand].address, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        stream.synchronize()

    def parameters(self, at: dict[Operand, int]) -> Parameters:
        """With other addresses than the case's own for some operands."""
        addresses = {**{operand: memory.address for operand, memory in self.memory.items()}, **at}
        values: list[Any] = []
        for argument in self.case.launch.arguments:
            if isinstance(argument, TensorMap):
                values.append(self.device.encode(argument, addresses[argument.operand]))
            else:
                values.append(np.uint64(addresses[argument]) if isinstance(argument, Operand) else argument)
        return pack_parameters(values)

    def launch(self, parameters: Parameters, *, programmatic: bool = False) -> None:
        action = self.case.launch
        attributes = replace(action.attributes, programmatic=programmatic)
        self.stream.launch(self.function, action.grid, action.block, action.shared_nbytes, parameters, attributes)

    def read(self, address: int) -> np.ndarray:
        found = np.empty_like(self.case.arrays[D])
        self.stream.copy_to_host(found.ctypes.data, address, found.nbytes)
        self.stream.synchronize()
        return found

    def close(self) -> None:
        for memory in self.memory.values():
            memory.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.product} {case.launch.attributes.cluster}")
def test_a_form(device: Device, stream: Stream, functions: dict[Kernel, Function], case: Tokens) -> None:
    placed = Placed(device, stream, case, functions)
    placed.launch(placed.parameters({}))
    assert case.error(placed.read(placed.memory[D].address)) < TOLERANCES[case.product.dtype]
    placed.close()


@pytest.mark.parametrize("form", CHAINS, ids=str)
def test_a_chain_gives_the_same_bits_whenever_its_kernels_begin(
    device: Device, stream: Stream, functions: dict[Kernel, Function], form: Form
) -> None:
    """Ten thousand links as programmatic launches, each of which reads what the one before has made."""
    (case,) = (c for c in CASES[-len(CHAINS) :] if c.launch.kernel == _chain(form).launch.kernel)
    placed = Placed(device, stream, case, functions)
    ends = placed.memory[X].address, placed.memory[D].address

    def replayed(times: int, *, programmatic: bool) -> np.ndarray:
        results = None
        parameters = [placed.parameters({X: ends[n % 2], D: ends[1 - n % 2]}) for n in range(LINKS)]
        x = np.ascontiguousarray(case.arrays[X])
        stream.begin_capture()
        for number, one in enumerate(parameters):
            placed.launch(one, programmatic=programmatic and number > 0)
        with stream.end_capture() as graph:
            for _ in range(times):
                stream.copy_to_device(ends[0], x.ctypes.data, x.nbytes)
                stream.launch_graph(graph)
                found = placed.read(ends[0])
                assert results is None or results.tobytes() == found.tobytes()
                results = found
        assert results is not None and np.isfinite(results.astype(np.float32)).all()
        return results

    plain = replayed(2, programmatic=False)
    assert replayed(REPLAYS, programmatic=True).tobytes() == plain.tobytes()
    placed.close()
