// DynamicQuantizeLinear: the range of x, and the scale and zero point for it.
#include "arithmetic.cuh"

struct Range { float low, high; };

MI_DEVICE Range join(Range a, Range b) { return {math::minimum(a.low, b.low), math::maximum(a.high, b.high)}; }

// The range of what all threads of a block hold, in thread 0.
MI_DEVICE Range join_block(Range r) {
  __shared__ Range warps[32];
  for (int offset = 16; offset; offset /= 2)
    r = join(r, Range{__shfl_xor_sync(0xffffffffu, r.low, offset), __shfl_xor_sync(0xffffffffu, r.high, offset)});
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = r;
  __syncthreads();
  if (threadIdx.x == 0)
    for (unsigned w = 1; w < blockDim.x / 32; w++) r = join(r, warps[w]);
  return r;
}

// ranges[block] = the least and the largest of the elements that the block looks at, and 0.
extern "C" __global__ void find_ranges(const float* x, Range* ranges, index_t count) {
  Range r = {0.0f, 0.0f};
  const index_t vectors = count / 4, step = mi_step();
#pragma unroll 4
  for (index_t i = mi_first(); i < vectors; i += step) {
    Pack<float, 4> p = *((const Pack<float, 4>*)x + i);
#pragma unroll
    for (int e = 0; e < 4; e++) r = join(r, Range{p.d[e], p.d[e]});
  }
  for (index_t i = vectors * 4 + mi_first(); i < count; i += step) r = join(r, Range{x[i], x[i]});
  r = join_block(r);
  if (threadIdx.x == 0) ranges[blockIdx.x] = r;
}

// One block: a scale of 255 steps for the whole range, 1 for an empty one, and the step at which 0 lies.
extern "C" __global__ void choose_scale(const Range* ranges, int parts, float* scale, u8* zero) {
  Range r = {0.0f, 0.0f};
  for (int i = (int)threadIdx.x; i < parts; i += (int)blockDim.x) r = join(r, ranges[i]);
  r = join_block(r);
  if (threadIdx.x != 0) return;
  float s = r.high > r.low ? (r.high - r.low) / 255.0f : 1.0f;
  *scale = s;
  *zero = convert<u8>(math::minimum(math::maximum(rintf(-r.low / s), 0.0f), 255.0f));
}
