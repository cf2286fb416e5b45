"""Cases of barriers, of stores to other blocks, of matrices stored from registers, and of registers that change hands."""

import numpy as np

from tests.sm90_cases.case import Case


def ring_case(rng: np.random.Generator, seed: int) -> Case:
    """A warp hands numbers through a ring to two warpgroups with more registers, which add them up and meet."""
    stages, rounds = int(rng.integers(1, 5)), int(rng.integers(1, 20))
    body = f"""  MI_TILES(room);
  int* values = reinterpret_cast<int*>(room);
  u32 full = shared_address(room) + {4 * 256 * stages}, free = full + {8 * stages};
  if (threadIdx.x == 0) {{
    for (int i = 0; i < {stages}; i++) {{
      make_barrier(full + 8 * i, 128);
      make_barrier(free + 8 * i, 8);
    }}
    fence_barriers();
  }}
  __syncthreads();
  if (threadIdx.x >= 256) {{
    give_registers<24>();
    for (int i = 0; i < {rounds}; i++) {{
      int stage = i % {stages};
      if (i >= {stages}) await(free + 8 * stage, (i / {stages} - 1) & 1);
      for (int j = threadIdx.x - 256; j < 256; j += 128) values[stage * 256 + j] = i * 1000 + j;
      arrive(full + 8 * stage);
    }}
  }} else {{
    take_registers<160>();
    int sum = 0;
    for (int i = 0; i < {rounds}; i++) {{
      int stage = i % {stages};
      await(full + 8 * stage, i / {stages} & 1);
      sum += values[stage * 256 + threadIdx.x];
      __syncwarp();
      if (threadIdx.x % 32 == 0) arrive(free + 8 * stage);
    }}
    meet(3, 256);
    values[threadIdx.x] = sum;
    if (threadIdx.x < 128) {{
      come_to(5, 256);
      reinterpret_cast<int*>(result)[threadIdx.x] = sum;
    }} else {{
      meet(5, 256);
      reinterpret_cast<int*>(result)[threadIdx.x] = values[threadIdx.x - 128];
    }}
  }}"""
    sums = 1000 * rounds * (rounds - 1) // 2 + rounds * np.arange(256)
    expected = np.concatenate([sums[:128], sums[:128]]).astype(np.int32)
    room = 4 * 256 * stages + 16 * stages
    return Case(
        f"ring of {stages}, {rounds} rounds", "barriers", "", body, (), np.zeros(256, np.int32), expected,
        block=384, shared_nbytes=room,
    )  # fmt: skip


def cluster_case(rng: np.random.Generator, seed: int) -> Case:
    """Blocks write into each other's memory, twice, with the cluster's barrier between."""
    count = int(rng.integers(2, 9))
    step = int(rng.integers(1, count))
    body = f"""  MI_TILES(room);
  float4* mine = reinterpret_cast<float4*>(room);
  u32 rank = cluster_rank(), to = address_in_block(shared_address(mine + threadIdx.x), (rank + {step}) % {count});
  float start = (float)(rank * 1000 + threadIdx.x);
  mine[threadIdx.x] = make_float4(start, 0, 0, 0);
  for (int turn = 0; turn < 2; turn++) {{
    arrive_at_cluster();
    await_cluster();
    float4 v = mine[threadIdx.x];
    arrive_at_cluster();
    await_cluster();
    store_to_block(to, make_float4(v.x + 1, v.y + rank, v.z + 2, v.w + 3));
  }}
  arrive_at_cluster();
  await_cluster();
  reinterpret_cast<float4*>(result)[rank * 128 + threadIdx.x] = mine[threadIdx.x];"""
    expected = np.empty((count, 128, 4), np.float32)
    for rank in range(count):
        one, two = (rank - step) % count, (rank - 2 * step) % count
        expected[rank] = np.stack([two * 1000 + np.arange(128) + 2, *(np.full(128, n) for n in (one + two, 4, 6))], axis=1)
    return Case(
        f"{count} blocks, {step} on", "barriers", "", body, (), np.zeros_like(expected), expected,
        shared_nbytes=2048, cluster=count,
    )  # fmt: skip


def matrices_case(rng: np.random.Generator, seed: int) -> Case:
    """One, two or four matrices of 8 x 8 from each of four warps, rows in a random order."""
    count = (1, 2, 4)[seed % 3]
    turned = bool(seed // 3 % 2)
    words = rng.integers(0, 1 << 32, (128, count), np.uint32)
    rows = rng.permutation(4 * 8 * count).astype(np.int32).reshape(4, -1)
    name = "store_matrices_turned" if turned else "store_matrices"
    body = f"""  MI_TILES(room);
  u32 w[{count}];
  for (int i = 0; i < {count}; i++) w[i] = words[threadIdx.x * {count} + i];
  int row = rows[threadIdx.x / 32 * {8 * count} + threadIdx.x % 32 % {8 * count}];
  {name}(shared_address(room + 16 * row), w);
  __syncthreads();
  for (int i = threadIdx.x; i < {4 * 8 * count * 16}; i += 128) result[i] = room[i];"""
    expected = np.empty((4 * 8 * count, 8), np.uint16)
    for thread in range(128):
        lane = thread % 32
        for matrix in range(count):
            for e in range(2):
                row, column = lane // 4, lane % 4 * 2 + e
                row, column = (column, row) if turned else (row, column)
                expected[rows[thread // 32, matrix * 8 + row], column] = words[thread, matrix] >> np.uint32(16 * e) & 0xFFFF
    return Case(
        f"{name} {count}", "shared", "const u32* words, const int* rows", body, (words, rows),
        np.zeros_like(expected), expected, shared_nbytes=4 * 8 * count * 16,
    )  # fmt: skip
