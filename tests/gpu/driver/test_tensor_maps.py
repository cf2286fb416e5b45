"""Bulk copies through tensor maps on sm_90 and newer, compared with numpy over random parameters."""

import math
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.contract.tensor_map import Im2col, MapElement, Swizzle, TensorMap, map_fault
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.module import Module
from miniinfer_cli.backends.cuda.driver.nvrtc import compile_kernel
from miniinfer_cli.backends.cuda.driver.stream import Stream
from tests.gpu.driver.kernels import read

SEEDS = range(40)
_START = """
struct alignas(64) TensorMap { unsigned long long opaque[16]; };
struct Corner { int at[5], offsets[3]; };

__device__ __forceinline__ unsigned address_of(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

"""
# One thread asks for the box, all wait until its bytes are there, and the block writes shared memory out as it is.
_KERNEL = """
extern "C" __global__ void {name}(const __grid_constant__ TensorMap map, Corner c, char* y, int nbytes) {{
  extern __shared__ char room[];
  char* box = room + (-address_of(room) & 1023);  // which swizzles count from
  __shared__ __align__(8) unsigned long long arrived;
  unsigned barrier = address_of(&arrived), target = address_of(box);
  if (threadIdx.x == 0) {{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier));
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(nbytes) : "memory");
    asm volatile("cp.async.bulk.tensor.{rank}d.shared::cluster.global.{mode}mbarrier::complete_tx::bytes"
                 " [%0], [%1, {{{at}}}], [%2]{more};"
                 ::"r"(target), "l"(&map), "r"(barrier), {operands} : "memory");
  }}
  __syncthreads();
  asm volatile("{{\\n.reg .pred done;\\nagain:\\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], 0;\\n"
               "@!done bra again;\\n}}" ::"r"(barrier) : "memory");
  for (int i = threadIdx.x; i < nbytes; i += blockDim.x) y[i] = box[i];
}}
"""


def _kernel(rank: int, *, im2col: bool) -> str:
    count = rank - 2 if im2col else 0
    at = ", ".join(f"%{3 + i}" for i in range(rank))
    more = ", {" + ", ".join(f"%{3 + rank + i}" for i in range(count)) + "}" if count else ""
    operands = [f'"r"(c.at[{i}])' for i in range(rank)] + [f'"h"((short)c.offsets[{i}])' for i in range(count)]
    name, mode = (f"columns{rank}", "im2col.") if im2col else (f"box{rank}", "tile.")
    return _KERNEL.format(name=name, rank=rank, mode=mode, at=at, more=more, operands=", ".join(operands))


TEXT = (
    _START
    + "".join(_kernel(rank, im2col=False) for rank in range(1, 6))
    + "".join(_kernel(rank, im2col=True) for rank in range(3, 6))
)
DTYPES: dict[MapElement, Any] = {
    MapElement.U8: np.uint8,
    MapElement.U16: np.uint16,
    MapElement.I32: np.int32,
    MapElement.U64: np.uint64,
    MapElement.F16: np.float16,
    MapElement.BF16: ml_dtypes.bfloat16,
    MapElement.F32: np.float32,
    MapElement.F64: np.float64,
}


@pytest.fixture(scope="module")
def copies(device: Device) -> Iterator[Module]:
    assert device.arch >= 90, "tensor maps begin with sm_90"
    with device.load(compile_kernel(TEXT, "copies", device.arch, {}).code) as module:
        yield module


def swizzled(rows: np.ndarray, swizzle: Swizzle) -> np.ndarray:
    """Bytes of rows as long as the swizzle, as shared memory holds them: 16-byte pieces exchanged by the number of the line."""
    flat = rows.reshape(-1, 16)
    where = np.arange(len(flat))
    pieces = max(swizzle.value // 16, 1)  # 16-byte pieces that are exchanged; a line of shared memory has eight
    other = where ^ ((where // 8) % pieces)
    made = np.empty_like(flat)
    made[other] = flat
    return made.reshape(-1)


def copied(
    device: Device, stream: Stream, module: Module, name: str, tensor: TensorMap[int], corner: Any, nbytes: int
) -> np.ndarray:
    """The bytes that one bulk copy leaves in shared memory."""
    function = module.function(name)
    with device.allocate(nbytes) as target:
        parameters = pack_parameters(
            [device.encode(tensor, tensor.operand), np.array(corner, np.int32), np.uint64(target.address), np.int32(nbytes)]
        )
        room = nbytes + 1024
        function.allow_shared(room)
        stream.launch(function, (1,), (128,), room, parameters)
        return read(stream, target.address, nbytes, np.uint8)


def random_tensor(rng: np.random.Generator, rank: int, element: MapElement, *, inner: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """A tensor in memory, outermost first, whose rows begin at multiples of 16 bytes; and its sizes, innermost first."""
    dims = (int(rng.integers(inner // 2 + 1, 2 * inner + 2)), *(int(n) for n in rng.integers(1, 9, rank - 1)))
    pitch = -(-dims[0] * element.nbytes // 16) * 16 // element.nbytes + int(rng.integers(0, 2)) * 16 // element.nbytes
    raw = rng.integers(0, 200, (*reversed(dims[1:]), pitch))
    return raw.astype(DTYPES[element]), dims


def outside(element: MapElement, *, nan: bool) -> Any:
    return DTYPES[element]("nan") if nan else DTYPES[element](0)


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes(device: Device, stream: Stream, copies: Module, seed: int):
    rng = np.random.default_rng(seed)
    print(f"seed {seed}")
    rank = 1 + seed % 5
    element = list(DTYPES)[int(rng.integers(len(DTYPES)))]
    swizzle = list(Swizzle)[int(rng.integers(4))] if rank > 1 else Swizzle.NONE
    inner = (swizzle.value or 16 * int(rng.integers(1, 5))) // element.nbytes
    array, dims = random_tensor(rng, rank, element, inner=inner)
    steps = (1, *(int(n) for n in rng.integers(1, 4, rank - 1)))
    taken = (inner, *(int(n) for n in rng.integers(1, 5, rank - 1)))
    box = tuple(n * s for n, s in zip(taken, steps, strict=True))
    nan = element.is_float and bool(rng.integers(2))
    strides = tuple(array.strides[::-1][1:])
    whole = 16 // element.nbytes  # a copy begins at a multiple of 16 bytes of the innermost dimension
    first = whole * int(rng.integers(-inner // whole, (dims[0] + 1) // whole + 1))
    at = (first, *(int(rng.integers(-n, d + 2)) for n, d in zip(taken[1:], dims[1:], strict=True)))
    with device.allocate(array.nbytes) as memory:
        stream.copy_to_device(memory.address, array.ctypes.data, array.nbytes)
        stream.synchronize()
        tensor = TensorMap(memory.address, element, dims, strides, box, swizzle, steps=steps, nan_outside=nan)
        corner = [*at, *[0] * (8 - rank)]
        found = copied(device, stream, copies, f"box{rank}", tensor, corner, math.prod(taken) * element.nbytes)
    expected = np.full(taken[::-1], outside(element, nan=nan), DTYPES[element])
    for where in np.ndindex(*taken[::-1]):
        place = tuple(a + s * w for a, s, w in zip(at, steps, where[::-1], strict=True))
        if all(0 <= p < d for p, d in zip(place, dims, strict=True)):
            expected[where] = array[place[::-1]]
    compare(found, swizzled(expected.reshape(-1).view(np.uint8), swizzle), element)


@pytest.mark.parametrize("seed", SEEDS)
def test_columns(device: Device, stream: Stream, copies: Module, seed: int):
    """Pixel by pixel along width, height, depth and batch between the corners; each read as far beside as the offsets say."""
    rng = np.random.default_rng(1000 + seed)
    print(f"seed {1000 + seed}")
    rank = 3 + seed % 3
    element = (MapElement.F16, MapElement.F32, MapElement.U8)[int(rng.integers(3))]
    swizzle = list(Swizzle)[int(rng.integers(4))]
    channels = (swizzle.value or 16 * int(rng.integers(1, 5))) // element.nbytes
    array, dims = random_tensor(rng, rank, element, inner=channels)
    space = dims[1:-1]
    steps = (1, *(int(n) for n in rng.integers(1, 3, rank - 2)), 1)
    lower = tuple(int(n) for n in rng.integers(-2, 1, rank - 2))
    upper = tuple(int(max(n, low - size + 1)) for n, low, size in zip(rng.integers(-2, 3, rank - 2), lower, space, strict=True))
    pixels, offsets = int(rng.integers(1, 17)), tuple(int(n) for n in rng.integers(0, 4, rank - 2))
    # The places from which a filter's corner is read, in the order in which the copy takes them.
    sides = [range(low, size + high, step) for low, high, size, step in zip(lower, upper, space, steps[1:-1], strict=True)]
    places = [(n, *reversed(p)) for n in range(dims[-1] + 20) for p in np.ndindex(*(len(s) for s in reversed(sides)))]
    first = int(rng.integers(0, max(len(places) - 20 * math.prod(len(s) for s in sides), 1)))
    first_channel = int(rng.integers(-3, 3)) * 16 // element.nbytes
    start = places[first]
    corner = [first_channel, *(s[i] for s, i in zip(sides, start[1:], strict=True)), start[0]]
    with device.allocate(array.nbytes) as memory:
        stream.copy_to_device(memory.address, array.ctypes.data, array.nbytes)
        stream.synchronize()
        columns = Im2col(lower, upper, channels, pixels)
        strides = tuple(array.strides[::-1][1:])
        tensor = TensorMap(memory.address, element, dims, strides, swizzle=swizzle, im2col=columns, steps=steps)
        assert map_fault(tensor, memory.address) is None
        given = [*corner, *[0] * (5 - rank), *offsets, *[0] * (3 - len(offsets))]
        found = copied(device, stream, copies, f"columns{rank}", tensor, given, pixels * channels * element.nbytes)
    expected = np.zeros((pixels, channels), DTYPES[element])
    for number, (image, *inside) in enumerate(places[first : first + pixels]):
        where = [s[i] + o for s, i, o in zip(sides, inside, offsets, strict=True)]
        if image < dims[-1] and all(0 <= w < size for w, size in zip(where, space, strict=True)):
            for k in range(channels):
                if 0 <= first_channel + k < dims[0]:
                    expected[number, k] = array[(image, *reversed(where), first_channel + k)]
    compare(found, swizzled(expected.reshape(-1).view(np.uint8), swizzle), element)


def compare(found: np.ndarray, expected: np.ndarray, element: MapElement) -> None:
    """Equal, NaN where NaN is meant: its bits are the device's."""
    got, want = (np.ascontiguousarray(a).view(DTYPES[element]) for a in (found, expected))
    if element.is_float:
        got, want = got.astype(np.float64), want.astype(np.float64)
    np.testing.assert_array_equal(got, want)


def test_tf32_rounds_to_nearest_and_f32_is_left_alone(device: Device, stream: Stream, copies: Module):
    values = np.random.default_rng(3).standard_normal(64).astype(np.float32)
    with device.allocate(values.nbytes) as memory:
        stream.copy_to_device(memory.address, values.ctypes.data, values.nbytes)
        stream.synchronize()
        exact, rounded = (
            copied(device, stream, copies, "box1", TensorMap(memory.address, e, (64,), (), (64,)), [0] * 8, 256).view(np.float32)
            for e in (MapElement.F32, MapElement.TF32)
        )
    np.testing.assert_array_equal(exact, values)
    assert (exact != rounded).mean() > 0.9
    # Half of the last place that TF32's 10 bits of mantissa keep.
    assert (np.abs(rounded - values) <= 2.0 ** (np.floor(np.log2(np.abs(values))) - 11)).all()


def test_rows_that_overlap_make_one_map(device: Device, stream: Stream, copies: Module):
    """Strides below the rows' length: the manual asks for more, and the stem of a convolution for this."""
    values = np.arange(256, dtype=np.float16)
    with device.allocate(values.nbytes) as memory:
        stream.copy_to_device(memory.address, values.ctypes.data, values.nbytes)
        stream.synchronize()
        tensor = TensorMap(memory.address, MapElement.F16, (32, 20), (16,), (32, 8))
        found = copied(device, stream, copies, "box2", tensor, [0, 3, *[0] * 6], 512).view(np.float16).reshape(8, 32)
    np.testing.assert_array_equal(found, [values[8 * (3 + j) : 8 * (3 + j) + 32] for j in range(8)])


def test_a_captured_launch_keeps_its_map(device: Device, stream: Stream, copies: Module):
    function = copies.function("box1")
    with device.allocate(64) as source, device.allocate(64) as target:
        map_ = device.encode(TensorMap(source.address, MapElement.U8, (64,), (), (64,)), source.address)
        parameters = pack_parameters([map_, np.zeros(8, np.int32), np.uint64(target.address), np.int32(64)])
        stream.begin_capture()
        stream.launch(function, (1,), (32,), 2048, parameters)
        graph = stream.end_capture()
        del parameters, map_
        with graph:
            for byte in (3, 250):
                stream.fill(source.address, byte, 64)
                stream.launch_graph(graph)
                assert read(stream, target.address, 64, np.uint8).tolist() == [byte] * 64
