// Zero points taken from the totals of a product of 8-bit integers.
#include "types.cuh"

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
