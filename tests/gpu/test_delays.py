"""The same bits whatever warp comes first: kernels for sm_90a whose warps are held up by chance at every barrier."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.driver.module import Function
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.backends.cuda.loading.target_sections import sources_of
from tests.gpu import test_attention_sm90, test_sm90_large, test_sm90_product
from tests.sm90_cases.delays import with_delays
from tests.sm90_cases.heads import Y
from tests.sm90_cases.tokens import D

RUNS = 10_000
"""Of each kernel, over all of its cases."""
_MOST_NBYTES = 2 << 20
"""Of a case: those with larger results would take minutes."""


@pytest.fixture(scope="module")
def prepared(device: Device) -> Iterator[dict[Kernel, tuple[Function, Function]]]:
    """Each kernel as it is, and with delays."""
    kernels = list(dict.fromkeys(case.launch.kernel for cases in _CASES.values() for case in cases))
    sources = sources_of(kernels, device.arch)
    codes = KernelCache(None).compile_many([*sources, *map(with_delays, sources)])
    with ExitStack() as closing:
        found = [
            closing.enter_context(device.load(code)).function(kernel.name)
            for kernel, code in zip([*kernels, *kernels], codes, strict=True)
        ]
        yield dict(zip(kernels, zip(found[: len(kernels)], found[len(kernels) :], strict=True), strict=True))


def _small(cases: Sequence[Any], result: Any) -> list[Any]:
    return [case for case in cases if case.arrays[result].nbytes <= _MOST_NBYTES]


_CASES = {
    "few tokens": _small(test_sm90_product.CASES, D),
    "many tokens": _small(test_sm90_large.CASES, D),
    "attention": _small(test_attention_sm90.ALL, Y),
}


@pytest.mark.parametrize("family", ["few tokens", "many tokens"])
def test_products(device: Device, stream: Stream, prepared: dict[Kernel, tuple[Function, Function]], family: str) -> None:
    cases = _CASES[family]
    for case in cases:
        results = set()
        for number, runs in enumerate((1, -(-RUNS // len(cases)))):
            placed = test_sm90_product.Placed(device, stream, case, {k: f[number] for k, f in prepared.items()})
            parameters, address = placed.parameters({}), placed.memory[D].address
            for _ in range(runs):
                stream.fill(address, 0xFF, case.arrays[D].nbytes)
                placed.launch(parameters)
                results.add(placed.read(address).tobytes())
            placed.close()
        assert len(results) == 1, case.product


def test_attention(device: Device, stream: Stream, prepared: dict[Kernel, tuple[Function, Function]]) -> None:
    cases = _CASES["attention"]
    for case in cases:
        results = set()
        for number, runs in enumerate((1, -(-RUNS // len(cases)))):
            functions = {kernel: both[number] for kernel, both in prepared.items()}
            with test_attention_sm90.Placed(device, stream, case, functions) as placed:
                parameters, result = placed.parameters(), placed.memory[Y]
                for _ in range(runs):
                    stream.fill(result.address, 0xFF, case.arrays[Y].nbytes)
                    placed.launch(parameters)
                    results.add(placed.read().tobytes())
        assert len(results) == 1, case.problem
