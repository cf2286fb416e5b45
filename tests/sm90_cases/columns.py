"""Cases of copies by im2col maps: pixels of a filter's corner in turn, read beside it, by one block for one or for several.

Of all channels, or of one group.
"""

import numpy as np

from miniinfer_cli.backends.cuda.contract.tensor_map import Im2col, MapElement, Swizzle, TensorMap
from tests.sm90_cases.case import Case, swizzled
from tests.sm90_cases.copies import room_of


def columns_case(rng: np.random.Generator, seed: int) -> Case:
    """Of images with the channels last, a filter of up to 3 x 3 with steps, spread and padding; some pixels lie behind all."""
    images, height, width = (int(n) for n in rng.integers(1, 7, 3))
    channels = 8 * int(rng.integers(1, 10))
    kernel, spread, steps = rng.integers(1, 4, 2), rng.integers(1, 3, 2), rng.integers(1, 3, 2)  # along the width first
    pads = rng.integers(0, 3, 2)
    size = np.array([width, height])
    lower, upper = -pads, pads - spread * (kernel - 1)
    upper = np.maximum(upper, lower - size + 1)
    counts = -(-(size + upper - lower) // steps)
    sharing, pixels, wide = 1 + seed % 3, 8 * int(rng.integers(1, 6)), 64
    groups = int(rng.integers(2, 4)) if seed % 6 == 0 else 1  # by a map with groups behind the images
    group, of_group = int(rng.integers(0, groups)), channels
    channels *= groups
    x = rng.integers(1, 200, (images, height, width, channels)).astype(np.float16)
    places = [(n, j, i) for n in range(images + 40) for j in range(counts[1]) for i in range(counts[0])]
    firsts = [int(rng.integers(0, images * counts[0] * counts[1])) for _ in range(sharing)]
    channel = 8 * int(rng.integers(0, of_group // 8))
    beside = [int(rng.integers(0, k)) * int(d) for k, d in zip(kernel, spread, strict=True)]
    nbytes, expected = pixels * wide * 2, np.zeros((sharing, pixels, wide), np.float16)
    corners = []
    for block, first in enumerate(firsts):
        n, j, i = places[first]
        corners.append((int(lower[0] + i * steps[0]), int(lower[1] + j * steps[1]), n))
        for at, (n, j, i) in enumerate(places[first : first + pixels]):
            down, across = lower[1] + j * steps[1] + beside[1], lower[0] + i * steps[0] + beside[0]
            if n < images and 0 <= down < height and 0 <= across < width:
                there = x[n, down, across, group * of_group :][channel : min(channel + wide, of_group)]
                expected[block, at, : len(there)] = there
    behind = int(groups > 1)
    dims, strides = (of_group, width, height, images, groups), (*x.strides[2::-1], 2 * of_group)
    map_ = TensorMap(
        0, MapElement.F16, dims[: 4 + behind], strides[: 3 + behind], swizzle=Swizzle.B128,
        im2col=Im2col((*map(int, lower), 0)[: 2 + behind], (*map(int, upper), 0)[: 2 + behind], wide, pixels),
        steps=(1, *map(int, steps), 1, 1)[: 4 + behind],
    )  # fmt: skip
    table = ", ".join("{" + ", ".join(map(str, corner)) + "}" for corner in corners)
    place = f"{channel}, c[0], c[1], c[2], {f'{group}, ' * behind}{beside[0]}, {beside[1]}"
    load = f"load_columns(at, map, barrier, {place});"
    if sharing > 1:
        load = f"load_columns_for({(1 << sharing) - 1}, at + rank * {nbytes}, map, barrier, {place});"
    wait = "  arrive_at_cluster();\n  await_cluster();\n" if sharing > 1 else ""
    body = f"""{room_of(nbytes * sharing)}  u32 rank = {"cluster_rank()" if sharing > 1 else "0"};
  const int corners[][3] = {{{table}}};
  const int* c = corners[rank];
  if (threadIdx.x == 0) arrive_expecting(barrier, {nbytes * sharing});
{wait}  if (threadIdx.x == 0) {load}
  await(barrier, 0);
  for (int i = threadIdx.x; i < {nbytes * sharing}; i += 128) result[rank * {nbytes * sharing} + i] = room[i];
{wait}"""
    lines = np.empty(nbytes * sharing, np.uint8)
    lines[swizzled(np.arange(lines.size), 128)] = expected.reshape(-1).view(np.uint8)
    head = "const u8* from, const __grid_constant__ TensorMap map"
    return Case(
        f"columns {map_} for {sharing}", "copies", head, body, (x, map_), np.zeros(lines.size * sharing, np.uint8),
        np.tile(lines, sharing), shared_nbytes=-(-nbytes * sharing // 1024) * 1024 + 8, cluster=sharing,
    )  # fmt: skip
