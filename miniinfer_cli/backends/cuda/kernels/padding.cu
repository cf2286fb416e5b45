// Pad and CenterCropPad: MI_MODE 0 puts a constant around, 1 repeats the edge, 2 reflects, 3 wraps around.
#include "copying.cuh"

// The coordinate in an axis of `size` elements that place p of the padded axis shows; outside [0, size) for the constant.
MI_DEVICE index_t shown(index_t p, index_t size) {
  if (MI_MODE == 1) return p < 0 ? 0 : p < size ? p : size - 1;
  if (MI_MODE >= 2 && (p < 0 || p >= size)) {
    index_t period = MI_MODE == 3 ? size : size > 1 ? 2 * (size - 1) : 1;
    p %= period;
    p = p < 0 ? p + period : p;
    return p < size ? p : period - p;
  }
  return p;
}

// Units of MI_WIDTH elements; `value` is null for zero.
extern "C" __global__ void pad(const Pack<MI_T, MI_WIDTH>* __restrict__ x, Pack<MI_T, MI_WIDTH>* __restrict__ y,
                               const MI_T* __restrict__ value, index_t count, Indices<MI_RANK> sizes, Dividers<MI_RANK> by,
                               Indices<MI_RANK> before, Indices<MI_RANK> inner, Indices<MI_RANK> strides) {
  typedef Pack<MI_T, MI_WIDTH> Unit;
  Unit border;
  MI_T single = value ? *value : MI_T{};
#pragma unroll
  for (int v = 0; v < MI_WIDTH; v++) border.d[v] = single;
  move_all<Unit>(
      count,
      [&](index_t i) {
        index_t offset = 0;
        bool inside = true;
#pragma unroll
        for (int d = MI_RANK - 1; d >= 0; d--) {
          index_t rest = d ? divide(i, sizes.d[d], by, d) : 0;
          index_t p = shown(i - rest * sizes.d[d] - before.d[d], inner.d[d]);
          inside = inside && p >= 0 && p < inner.d[d];
          offset += p * strides.d[d];
          i = rest;
        }
        return inside ? x[offset] : border;
      },
      [&](index_t i, Unit unit) { y[i] = unit; });
}
