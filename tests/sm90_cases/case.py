"""One kernel with its operands and what it must give; how it is run on the emulated device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.launch_attributes import LaunchAttributes
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from tests.emulation.compiler import LATE
from tests.sm90_cases.running import emulated_arrays

OUT = Operand.output(0)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """``body`` is the kernel's, with parameters ``head`` in front of its last one, ``result``, which begins as ``before``.

    ``values`` fill the head: arrays in memory, maps over the number of one (-1: the result), or numbers. ``expected`` is all of
    the result; ``rtol`` 0 where that is bits, else of the norm. ``slack``: how far each element may be off on a GPU, where its
    matrix units keep fewer digits of sums than f32 has.
    """

    name: str
    include: str
    head: str
    body: str
    values: tuple[Any, ...]
    before: np.ndarray
    expected: np.ndarray
    block: int = 128
    shared_nbytes: int = 0
    cluster: int = 1
    rtol: float = 0.0
    functions: str = ""
    slack: np.ndarray | None = None

    @property
    def kernel(self) -> Kernel:
        """The whole kernel."""
        head = f"{self.head}, " if self.head else ""
        names = "\n".join(f'#include "sm90/{name}.cuh"' for name in self.include.split())
        limits = f"__launch_bounds__({self.block}, 1)"
        text = f'{names}\n{self.functions}\nextern "C" __global__ void {limits} mi_case({head}u8* result) {{\n{self.body}\n}}\n'
        return Kernel("mi_case", code=text, arch="sm_90a")

    @property
    def launch(self) -> Launch[Operand]:
        """Over operands by number."""
        arguments = tuple(
            Operand.input(number)
            if isinstance(value, np.ndarray)
            else value.over(OUT if value.operand < 0 else Operand.input(value.operand))
            if isinstance(value, TensorMap)
            else value
            for number, value in enumerate(self.values)
        )
        attributes = LaunchAttributes((self.cluster, 1, 1))
        return Launch(self.kernel, (self.cluster,), (self.block,), (*arguments, OUT), self.shared_nbytes, attributes)

    @property
    def arrays(self) -> dict[Operand, np.ndarray]:
        """What lies in memory before the launch."""
        found = {Operand.input(n): v for n, v in enumerate(self.values) if isinstance(v, np.ndarray)}
        return {**found, OUT: self.before}

    def check(self, found: np.ndarray) -> None:
        """Raises AssertionError where ``found`` is not what it must be."""
        if not self.rtol:
            np.testing.assert_array_equal(found, self.expected)
            return
        difference = np.linalg.norm(found.astype(np.float64) - self.expected)
        assert difference <= self.rtol * np.linalg.norm(self.expected), f"{self.name}: {difference}"


def emulated(case: Case, seed: int = LATE) -> np.ndarray:
    """The result on the emulated device."""
    return emulated_arrays(case.launch, case.arrays, seed)[OUT]


def swizzled(address: Any, swizzle: int) -> Any:
    """Where the byte at an address lies that is swizzled."""
    return address ^ ((address >> 7) & (swizzle // 16 - 1)) << 4 if swizzle else address


def random_cases(make: Callable[[np.random.Generator, int], Case], seeds: Sequence[int]) -> list[Case]:
    """A case for each seed."""
    return [make(np.random.default_rng(seed), seed) for seed in seeds]
