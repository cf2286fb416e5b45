// Rows of 8-bit integers made signed and summed, before a product.
#include "types.cuh"

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
