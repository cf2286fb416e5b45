"""Cases of bulk copies: boxes in and out by random maps, to several blocks, plain bytes, and what blocks of a cluster send."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.tensor_map import MapElement, Swizzle, TensorMap
from tests.sm90_cases.case import Case, swizzled

DTYPES = {MapElement.U8: np.uint8, MapElement.F16: np.float16, MapElement.I32: np.int32, MapElement.F32: np.float32}
_START = """  MI_TILES(room);
  u32 at = shared_address(room), barrier = at + ROOM;
  if (threadIdx.x == 0) {
    make_barrier(barrier, 1);
    fence_barriers();
  }
  __syncthreads();
"""


class _Boxes:
    """A random tensor with its map, a corner, and the box there as an array."""

    def __init__(self, rng: np.random.Generator, rank: int, *, steps: bool) -> None:
        element = list(DTYPES)[int(rng.integers(len(DTYPES)))]
        self.swizzle = list(Swizzle)[int(rng.integers(4))] if rank > 1 else Swizzle.NONE
        size = element.nbytes
        inner = (self.swizzle.value or 16 * int(rng.integers(1, 5))) // size
        self.dims = (int(rng.integers(inner // 2 + 1, 2 * inner + 2)), *(int(n) for n in rng.integers(1, 9, rank - 1)))
        pitch = -(-self.dims[0] * size // 16) * 16 // size + int(rng.integers(0, 2)) * 16 // size
        self.array = rng.integers(1, 200, (*reversed(self.dims[1:]), pitch)).astype(DTYPES[element])
        self.every = (1, *(int(n) if steps else 1 for n in rng.integers(1, 3, rank - 1)))
        self.taken = (inner, *(int(n) for n in rng.integers(1, 9 if rank < 4 else 4, rank - 1)))
        box = tuple(n * s for n, s in zip(self.taken, self.every, strict=True))
        self.map = TensorMap(
            0, element, self.dims, tuple(self.array.strides[::-1][1:]), box, self.swizzle, steps=self.every if steps else ()
        )
        whole = 16 // size  # a copy begins at a multiple of 16 bytes of the innermost dimension
        first = whole * int(rng.integers(-inner // whole, (self.dims[0] + 1) // whole + 1))
        self.at = (first, *(int(rng.integers(-n, d + 1)) for n, d in zip(self.taken[1:], self.dims[1:], strict=True)))
        self.nbytes = math.prod(self.taken) * size

    @property
    def corner(self) -> str:
        """As arguments of a call."""
        return ", ".join(map(str, self.at))

    def places(self, *, whole: bool = False) -> list[tuple[tuple[int, ...], tuple[int, ...] | None]]:
        """Indices within the box, outermost first, and those within the tensor; None outside of it.

        ``whole``: rows end at a multiple of 16 bytes, as they do for stores.
        """
        found = []
        unit = 16 // self.map.element.nbytes if whole else 1
        dims = (-(-self.dims[0] // unit) * unit, *self.dims[1:])
        for where in np.ndindex(*self.taken[::-1]):
            place = tuple(a + s * w for a, s, w in zip(self.at, self.every, where[::-1], strict=True))
            inside = all(0 <= p < d for p, d in zip(place, dims, strict=True))
            found.append((where, place[::-1] if inside else None))
        return found

    def lines(self) -> np.ndarray:
        """The box as it lies in shared memory, from a multiple of 1024 on."""
        box = np.zeros(self.taken[::-1], self.array.dtype)
        for where, place in self.places():
            if place is not None:
                box[where] = self.array[place]
        flat = box.reshape(-1).view(np.uint8)
        lines = np.empty_like(flat)
        lines[swizzled(np.arange(flat.size), self.swizzle.value)] = flat
        return lines


def room_of(nbytes: int) -> str:
    """The beginning of a kernel with so many bytes of shared memory, ``at``, and a barrier behind them."""
    return _START.replace("ROOM", str(-(-nbytes // 1024) * 1024))


def load_case(rng: np.random.Generator, seed: int) -> Case:
    """A box of any rank into shared memory, written out as it lies there."""
    boxes = _Boxes(rng, 1 + seed % 5, steps=True)
    body = f"""{room_of(boxes.nbytes)}  if (threadIdx.x == 0) {{
    fetch_map(map);
    arrive_expecting(barrier, {boxes.nbytes});
    load_box(at, map, barrier, {boxes.corner});
  }}
  await(barrier, 0);
  for (int i = threadIdx.x; i < {boxes.nbytes}; i += 128) result[i] = room[i];"""
    expected = boxes.lines()
    head = "const u8* from, const __grid_constant__ TensorMap map"
    room = -(-boxes.nbytes // 1024) * 1024 + 8
    return Case(
        f"load {boxes.map}", "copies", head, body, (boxes.array, boxes.map), np.zeros(boxes.nbytes, np.uint8), expected,
        shared_nbytes=room,
    )  # fmt: skip


def store_case(rng: np.random.Generator, seed: int) -> Case:
    """A box out of shared memory; what lies behind the tensor is left out, and what lies beside the box is left alone."""
    boxes = _Boxes(rng, 1 + seed % 5, steps=False)
    boxes.at = tuple(max(n, 0) for n in boxes.at)
    lines = rng.integers(1, 200, boxes.nbytes).astype(np.uint8)
    body = f"""  MI_TILES(room);
  for (int i = threadIdx.x; i < {boxes.nbytes}; i += 128) room[i] = lines[i];
  fence_for_copies();
  __syncthreads();
  if (threadIdx.x == 0) {{
    store_box(shared_address(room), map, {boxes.corner});
    close_stores();
    await_stores_read<0>();
    await_stores<0>();
  }}"""
    plain = lines[swizzled(np.arange(lines.size), boxes.swizzle.value)].view(boxes.array.dtype).reshape(boxes.taken[::-1])
    expected = boxes.array.copy()
    for where, place in boxes.places(whole=True):
        if place is not None:
            expected[place] = plain[where]
    head = "const u8* lines, const __grid_constant__ TensorMap map"
    to_result = TensorMap(*(-1, boxes.map.element, boxes.map.dims, boxes.map.strides, boxes.map.box, boxes.map.swizzle))
    return Case(
        f"store {boxes.map}", "copies", head, body, (lines, to_result), boxes.array.view(np.uint8), expected.view(np.uint8),
        shared_nbytes=boxes.nbytes,
    )  # fmt: skip


def multicast_case(rng: np.random.Generator, seed: int) -> Case:
    """Each block of a cluster loads a box for some of them."""
    count = int(rng.integers(2, 5))
    values = rng.integers(0, 1000, (8 * count, 32)).astype(np.float16)
    masks = [int(rng.integers(1, 1 << count)) for _ in range(count)]
    pairs = seed % 2 == 1  # boxes of two places along a third axis
    rows = 4 * count if pairs else 8 * count
    dims, strides, box = ((32, rows, 2), (64, 64 * rows), (32, 4, 2)) if pairs else ((32, rows), (64,), (32, 8))
    map_ = TensorMap(0, MapElement.F16, dims, strides, box, Swizzle.B64)
    place = "0, (int)rank * 4, 0" if pairs else "0, (int)rank * 8"
    body = f"""{room_of(512 * count)}  u32 rank = cluster_rank(), n = 0;
  const u32 masks[] = {{{", ".join(map(str, masks))}}};
  for (u32 other = 0; other < {count}; other++) n += masks[other] >> rank & 1;
  if (threadIdx.x == 0) arrive_expecting(barrier, n * 512);
  for (int i = threadIdx.x; i < {512 * count}; i += 128) room[i] = 0;
  fence_for_copies();
  arrive_at_cluster();
  await_cluster();
  if (threadIdx.x == 0) load_box_for(masks[rank], at + rank * 512, map, barrier, {place});
  await(barrier, 0);
  for (int i = threadIdx.x; i < {512 * count}; i += 128) result[rank * {512 * count} + i] = room[i];
  arrive_at_cluster();
  await_cluster();"""
    expected = np.zeros((count, count, 512), np.uint8)
    order = swizzled(np.arange(512), 64)
    for source, mask in enumerate(masks):
        for rank in range(count):
            if mask >> rank & 1:
                moved = (
                    values.reshape(2, rows, 32)[:, 4 * source : 4 * source + 4] if pairs else values[8 * source : 8 * source + 8]
                )
                expected[rank, source, order] = moved.reshape(-1).view(np.uint8)
    head = "const u8* from, const __grid_constant__ TensorMap map"
    return Case(
        f"boxes for {masks}", "copies", head, body, (values, map_), np.zeros(expected.size, np.uint8), expected.reshape(-1),
        shared_nbytes=-(-512 * count // 1024) * 1024 + 8, cluster=count,
    )  # fmt: skip


def sending_case(rng: np.random.Generator, seed: int) -> Case:
    """Blocks copy plain bytes in, send them on to the next two blocks in two ways, and read of a third one directly."""
    count, nbytes = int(rng.integers(2, 9)), 16 * int(rng.integers(8, 65))
    values = rng.integers(0, 255, (count, nbytes)).astype(np.uint8)
    body = f"""{room_of(3 * nbytes)}  u32 rank = cluster_rank(), next = (rank + 1) % cluster_size(), later = (rank + 2) % {count};
  u32 arrived = barrier + 8, read = barrier + 16;
  if (threadIdx.x == 0) {{
    make_barrier(arrived, 1);
    make_barrier(read, 4);
    fence_barriers();
    arrive_expecting(barrier, {nbytes});
    copy_in(at, from + rank * {nbytes}, {nbytes}, barrier);
    arrive_expecting(arrived, 2 * {nbytes});
  }}
  __syncthreads();
  await(barrier, 0);
  arrive_at_cluster();
  await_cluster();
  if (threadIdx.x == 0) copy_to_block(address_in_block(at + {nbytes}, next), at, {nbytes}, address_in_block(arrived, next));
  for (int i = threadIdx.x; i < {nbytes // 16}; i += 128)
    send_to_block(
        address_in_block(at + 2 * {nbytes} + 16 * i, later), reinterpret_cast<const float4*>(room)[i],
        address_in_block(arrived, later));
  await_in_cluster(arrived, 0);
  for (int i = threadIdx.x; i < 3 * {nbytes}; i += 128) result[rank * 4 * {nbytes} + i] = room[i];
  u32 other = (rank + 3) % {count};
  for (int i = threadIdx.x; i < {nbytes // 16}; i += 128)
    reinterpret_cast<float4*>(result + (rank * 4 + 3) * {nbytes})[i] = load_from_block(address_in_block(at + 16 * i, other));
  // Four warps of another block have read this one's memory before it may end.
  __syncwarp();
  if (threadIdx.x % 32 == 0) arrive_in_cluster(address_in_block(read, other));
  await_in_cluster(read, 0);
  arrive_at_cluster();
  await_cluster();"""
    expected = np.stack([values[[r, (r - 1) % count, (r - 2) % count, (r + 3) % count]] for r in range(count)])
    return Case(
        f"{count} blocks send {nbytes} bytes", "copies", "const u8* from", body, (values,),
        np.zeros(expected.size, np.uint8), expected.reshape(-1), shared_nbytes=-(-3 * nbytes // 1024) * 1024 + 24, cluster=count,
    )  # fmt: skip
