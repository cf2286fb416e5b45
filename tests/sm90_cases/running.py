"""A launch on the emulated device: its operands in memory that is watched, a schedule, and what lies there afterwards."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Operand
from tests.backends.cuda.performing import Buffer, launch
from tests.emulation.compiler import LATE, scheduled

Arrays = Mapping[Operand, np.ndarray]


def emulated_arrays(
    action: Launch[Operand], arrays: Arrays, seed: int = LATE, kernel: Kernel | None = None
) -> dict[Operand, np.ndarray]:
    """The arrays after the launch, by the schedule of ``seed``, and by ``kernel`` where one is given: the same with another text.

    Raises AssertionError for what the emulated device sees: what nobody may write, deadlocks, misuse of its functions.
    """
    if kernel is not None:
        action = replace(action, kernel=replace(kernel, defines=action.kernel.defines, arch=action.kernel.arch))
    buffers = {operand: Buffer(array.nbytes) for operand, array in arrays.items()}
    for operand, array in arrays.items():
        buffers[operand].view(array.dtype, array.shape)[...] = array
    with scheduled(seed):
        launch(action, lambda operand: buffers[replace(operand, offset=0)].address + operand.offset)
    for buffer in buffers.values():
        buffer.check()
    return {operand: buffers[operand].view(array.dtype, array.shape).copy() for operand, array in arrays.items()}
