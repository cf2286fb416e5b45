// Around products of 8-bit integers: rows made signed and summed, zero points taken from totals afterwards, requantization.
#include "types.cuh"

#if defined(MI_SIGNED_ROWS)
// sums[i] = the sum of row i of x, its elements less 128 where they are unsigned; those go to y. A warp for each row.
// MI_T: i8 or u8. MI_PACK divides k.
extern "C" __global__ void sum_rows(const MI_T* x, i8* y, i32* sums, long long rows, int k) {
  for (long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += (long long)gridDim.x * blockDim.y) {
    i32 sum = 0;
    for (int at = threadIdx.x * MI_PACK; at < k; at += 32 * MI_PACK) {
      Pack<MI_T, MI_PACK> from = *reinterpret_cast<const Pack<MI_T, MI_PACK>*>(x + row * k + at);
      Pack<i8, MI_PACK> to;
#pragma unroll
      for (int e = 0; e < MI_PACK; e++) {
        to.d[e] = (i8)((MI_T)-1 < (MI_T)0 ? (int)from.d[e] : (int)from.d[e] - 128);
        sum += to.d[e];
      }
      if (y) *reinterpret_cast<Pack<i8, MI_PACK>*>(y + row * k + at) = to;
    }
#pragma unroll
    for (int by = 16; by; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
    if (threadIdx.x == 0) sums[row] = sum;
  }
}
#endif

#if defined(MI_ZERO_POINTS)
// d[i, j] -= a_zero[i] * column_sums[j] + b_zero[j] * row_sums[i] - k * a_zero[i] * b_zero[j], wrapping around; zero points less
// `a_shift` and `b_shift` (128 where an operand was made signed). A null pointer is a zero point of 0, or sums nobody needs.
extern "C" __global__ void take_zero_points(
    i32* d, const i32* row_sums, const i32* column_sums, const MI_A* a_zero, const MI_B* b_zero, int a_step, int b_step, int a_shift,
    int b_shift, long long m, int n, int k) {
  for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < m * n; e += (long long)gridDim.x * blockDim.x) {
    long long i = e / n, j = e % n;
    u32 za = (u32)((a_zero ? (int)a_zero[i * a_step] : 0) - a_shift), zb = (u32)((b_zero ? (int)b_zero[j * b_step] : 0) - b_shift);
    u32 taken = (column_sums ? za * (u32)column_sums[j] : 0) + (row_sums ? zb * (u32)row_sums[i] : 0) - (u32)k * za * zb;
    d[e] = (i32)((u32)d[e] - taken);
  }
}
#endif

#if defined(MI_SCALE_A)
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
#endif
