// Totals of a product of 8-bit integers, requantized.
#include "types.cuh"

// y = total * (a_scale * b_scale / y_scale), rounded to even, plus y_zero, saturated. Each operand has its own strides.
struct Walk {
  long long sizes[MI_RANK], strides[4][MI_RANK];
};
extern "C" __global__ void requantize(
    const i32* total, const MI_SCALE_A* a_scale, const MI_SCALE_B* b_scale, const MI_SCALE_Y* y_scale, const MI_T* y_zero, MI_T* y,
    index_t count, Walk walk) {
  for (index_t e = mi_first(); e < count; e += mi_step()) {
    index_t rest = e, at[4] = {};
#pragma unroll
    for (int axis = MI_RANK - 1; axis >= 0; axis--) {
      index_t size = (index_t)walk.sizes[axis], place = axis ? rest % size : rest;
      if (axis) rest /= size;
#pragma unroll
      for (int o = 0; o < 4; o++) at[o] += place * (index_t)walk.strides[o][axis];
    }
    float scale = __fdiv_rn(__fmul_rn(widen(a_scale[at[0]]), widen(b_scale[at[1]])), widen(y_scale[at[2]]));
    float value = rintf(__fmul_rn((float)total[e], scale)) + (float)y_zero[at[3]];
    float least = (MI_T)-1 < (MI_T)0 ? -128.0f : 0.0f;
    y[e] = (MI_T)(int)(value < least ? least : value > least + 255.0f ? least + 255.0f : value);
  }
}
