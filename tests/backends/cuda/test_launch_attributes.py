"""What a launch may ask for: the limits of a device, and the order in which the emulated one runs clusters."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.launch_attributes import NO_ATTRIBUTES, LaunchAttributes, LaunchLimits, launch_fault
from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Operand, Repeat, moved
from tests.backends.cuda.performing import Buffer, launch
from tests.emulation.device import EmulatedDevice, EmulatedFunctions

HOPPER = LaunchLimits(90, 227 << 10, range(-5, 1))
# Each block notes its number behind those of the blocks that ran before it.
ORDER = Kernel(
    "note_order",
    code="""
extern "C" __global__ void note_order(i32* y) {
  i32 number = (i32)(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
  y[1 + atomicAdd(y, 1)] = number;
}
""",
)
OUT = Operand.output(0)


def fault(
    grid: tuple[int, ...] = (8,),
    block: tuple[int, ...] = (32,),
    shared_nbytes: int = 0,
    limits: LaunchLimits = HOPPER,
    **attributes: object,
) -> str | None:
    return launch_fault(grid, block, shared_nbytes, LaunchAttributes(**attributes), limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"grid": ((1 << 31) - 1, 65535, 65535), "block": (16, 16, 4), "shared_nbytes": 227 << 10},
        {"cluster": (8,)},
        {"cluster": (1, 8), "grid": (3, 16)},
        {"cluster": (2, 2, 2), "grid": (4, 2, 6)},
        {"cluster": (3, 1, 1), "grid": (9,)},
        {"programmatic": True, "priority": -5},
        {"priority": 0, "limits": LaunchLimits(80, 163 << 10, range(-5, 1))},
    ],
)
def test_what_a_device_does(asked: dict):
    assert fault(**asked) is None


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"grid": (0,)}, "a grid has up to three sizes, from 1 to 2147483647x65535x65535"),
        ({"grid": (1, 65536)}, "a grid has up to three sizes, from 1 to 2147483647x65535x65535"),
        ({"block": (1, 1, 65)}, "a block has up to three sizes, from 1 to 1024x1024x64"),
        ({"block": (1, 1, 1, 1)}, "a block has up to three sizes, from 1 to 1024x1024x64"),
        ({"block": (33, 32)}, "a block has 1024 threads at most, not 1056"),
        ({"shared_nbytes": (227 << 10) + 1}, "a block has 232448 bytes of shared memory at most"),
        ({"cluster": (16,), "grid": (16,)}, "a cluster has 8 blocks at most, not 16"),
        ({"cluster": (2, 0, 1)}, "a cluster has up to three sizes, from 1 on, not 2x0x1"),
        ({"cluster": ()}, "a cluster has up to three sizes, from 1 on, not "),
        ({"cluster": (4,), "grid": (6,)}, "a grid of 6 blocks does not divide into clusters of 4"),
        ({"cluster": (1, 2), "grid": (8,)}, "a grid of 8 blocks does not divide into clusters of 1x2"),
        (
            {"cluster": (2,), "limits": LaunchLimits(89, 99 << 10, range(1))},
            "clusters and programmatic launches begin with sm_90, and this is sm_89",
        ),
        (
            {"programmatic": True, "limits": LaunchLimits(80, 99 << 10, range(1))},
            "clusters and programmatic launches begin with sm_90, and this is sm_80",
        ),
        ({"priority": -6}, "priorities are from -5 to 0 here, not -6"),
        ({"priority": 1}, "priorities are from -5 to 0 here, not 1"),
    ],
)
def test_what_a_device_does_not(asked: dict, why: str):
    assert fault(**asked) == why


def test_attributes_stay_with_a_launch_that_gets_its_places():
    asked = LaunchAttributes(cluster=(2,), priority=-1)
    action = Launch(ORDER, (4,), (1,), (OUT,), attributes=asked)
    placed = moved(Repeat(2, (action,)), lambda operand: operand.number)
    assert placed == Repeat(2, (Launch(ORDER, (4,), (1,), (0,), attributes=asked),))
    assert Launch(ORDER, (4,), (1,), (OUT,)).attributes is NO_ATTRIBUTES


def order(grid: tuple[int, ...], cluster: tuple[int, ...]) -> list[int]:
    """The numbers of the blocks in the order in which they ran."""
    count = int(np.prod(grid))
    y = Buffer(4 * (count + 1))
    y.bytes[:] = 0
    launch(Launch(ORDER, grid, (1,), (OUT,), attributes=LaunchAttributes(cluster)), lambda operand: y.address)
    y.check()
    done, *numbers = y.view(np.int32, (count + 1,)).tolist()
    assert done == count
    return numbers


def test_the_emulated_device_runs_a_cluster_before_the_next_one():
    assert order((4, 4), (2, 2)) == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert order((2, 2, 2), (1, 1, 2)) == [0, 4, 1, 5, 2, 6, 3, 7]
    assert order((6,), (3,)) == order((6,), (1, 1, 1)) == list(range(6))  # and forgets the last launch's clusters


def test_a_captured_launch_keeps_its_clusters():
    device, functions = EmulatedDevice(), EmulatedFunctions()
    functions.prepare([ORDER])
    device.make_current()
    with device.allocate(4 * 17) as memory, device.create_stream() as stream:
        stream.fill(memory.address, 0, memory.nbytes)
        parameters = pack_parameters([np.uint64(memory.address)])
        stream.begin_capture()
        stream.launch(functions.get(ORDER), (4, 4), (1,), 0, parameters, attributes=LaunchAttributes((2, 2)))
        with stream.end_capture() as graph:
            stream.launch_graph(graph)
            stream.synchronize()
        assert memory.array.view(np.int32)[1:6].tolist() == [0, 1, 4, 5, 2]
        with pytest.raises(AssertionError, match="a cluster has 8 blocks at most"):
            stream.launch(functions.get(ORDER), (9,), (1,), 0, parameters, attributes=LaunchAttributes((9,)))
