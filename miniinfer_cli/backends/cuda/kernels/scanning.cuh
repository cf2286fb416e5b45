// Prefixes over the threads of a warp or a block.
#pragma once
#include "types.cuh"

// op over the values of this lane and those before it.
template <class C, class Op> MI_DEVICE C warp_inclusive(C x, Op op) {
  int lane = threadIdx.x & 31;
  for (int by = 1; by < 32; by *= 2) {
    C before = __shfl_up_sync(0xffffffffu, x, by);
    if (lane >= by) x = op(before, x);
  }
  return x;
}

// op over the values of the lanes before this one; `total` over all of the warp's.
template <class C, class Op> MI_DEVICE C warp_exclusive(C x, C neutral, Op op, C& total) {
  C inclusive = warp_inclusive(x, op);
  C before = __shfl_up_sync(0xffffffffu, inclusive, 1);
  total = __shfl_sync(0xffffffffu, inclusive, 31);
  return (threadIdx.x & 31) == 0 ? neutral : before;
}

// op over the values of the threads before this one of a block (x only, whole warps); `total` over all of the block's.
template <class C, class Op> MI_DEVICE C block_exclusive(C x, C neutral, Op op, C& total) {
  __shared__ C totals[32];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  C mine;
  C before = warp_exclusive(x, neutral, op, mine);
  if (lane == 0) totals[warp] = mine;
  __syncthreads();
  if (warp == 0) {
    C whole;
    C offset = warp_exclusive(lane < warps ? totals[lane] : neutral, neutral, op, whole);
    __syncwarp();
    totals[lane] = lane == 0 ? whole : offset;  // the first warp needs no offset
  }
  __syncthreads();
  total = totals[0];
  if (warp > 0) before = op(totals[warp], before);
  __syncthreads();
  return before;
}
