// Products with few rows: each weight is read once, 16 bytes at a time, and meets MI_ROWS rows of a. What is read is the time.
//
// gemv_along_n: b is stored [k, n]. A lane holds the sums of MI_PACK columns, a block's warps share k.
// gemv_along_k: b is stored [n, k]. A warp makes one column, its lanes share k.
// Both take a part of k per blockIdx.y, whose sums go to `partial` where there are several. MI_PACK divides the rows of b as
// stored, MI_PACK_A (1 or MI_PACK) those of a; MI_A, MI_B, MI_D, MI_ACC are types. Blocks are 32 x 8 threads.
#include "product.cuh"
#include "turn.cuh"

#define MI_WARPS 8
#define MI_FLIGHT 4  // loads under way

struct Left {
  long long row, column;
};

MI_DEVICE void mi_emit(
    acc_t sum, MI_D* d, const MI_D* c, const MI_D* bias, acc_t* partial, const Places& at, long long count, long long z, long long m,
    long long n, long long i, long long j, factor_t alpha, factor_t beta, int activation) {
  if (partial)
    partial[((blockIdx.y * count + z) * m + i) * n + j] = sum;
  else
    d[i * at.d_row + j * at.d_column] = narrow<MI_D>(mi_finish(sum, c, bias, at, i, j, alpha, beta, activation));
}

extern "C" __global__ void __launch_bounds__(256) gemv_along_n(
    const MI_A* a, const MI_B* b, MI_D* d, const MI_D* c, const MI_D* bias, acc_t* partial, int m, int n, int k, int k_part, Left left,
    long long ldb, Places at, Batches batches, factor_t alpha, factor_t beta, int activation) {
  mi_take_turn();
  __shared__ acc_t sums[MI_WARPS][MI_PACK][32];
  int lane = threadIdx.x, warp = threadIdx.y;
  long long first = (long long)blockIdx.x * 32 * MI_PACK, column = first + lane * MI_PACK;
  int begin = blockIdx.y * k_part, end = k - begin < k_part ? k : begin + k_part;
  long long count = mi_batch_count(batches);
  for (long long z = blockIdx.z; z < count; z += gridDim.z) {
    const MI_A* x = a + mi_batch_offset(batches, z, MI_OF_A);
    const MI_B* weights = b + mi_batch_offset(batches, z, MI_OF_B) + column;
    acc_t total[MI_ROWS][MI_PACK] = {};
    if (column < n) {
      for (int k0 = begin + warp; k0 < end; k0 += MI_WARPS * MI_FLIGHT) {
        Pack<MI_B, MI_PACK> w[MI_FLIGHT];
#pragma unroll
        for (int f = 0; f < MI_FLIGHT; f++) {
          int depth = k0 + f * MI_WARPS;
          if (depth < end) w[f] = *reinterpret_cast<const Pack<MI_B, MI_PACK>*>(weights + depth * ldb);
        }
#pragma unroll
        for (int f = 0; f < MI_FLIGHT; f++) {
          int depth = k0 + f * MI_WARPS;
          if (depth >= end) break;
#pragma unroll
          for (int i = 0; i < MI_ROWS; i++) {
            if (i >= m) break;
            acc_t factor = (acc_t)widen(x[i * left.row + depth * left.column]);
#pragma unroll
            for (int e = 0; e < MI_PACK; e++) total[i][e] = mi_multiply_add(factor, (acc_t)widen(w[f].d[e]), total[i][e]);
          }
        }
      }
    }
    MI_D* d_matrix = d + mi_batch_offset(batches, z, MI_OF_D);
    const MI_D* c_matrix = c ? c + mi_batch_offset(batches, z, MI_OF_C) : c;
#pragma unroll
    for (int i = 0; i < MI_ROWS; i++) {
      if (i >= m) break;
#pragma unroll
      for (int e = 0; e < MI_PACK; e++) sums[warp][e][lane] = total[i][e];
      __syncthreads();
      for (int j = warp * 32 + lane; j < 32 * MI_PACK && first + j < n; j += 256) {
        acc_t sum = 0;
#pragma unroll
        for (int w = 0; w < MI_WARPS; w++) sum += sums[w][j % MI_PACK][j / MI_PACK];
        mi_emit(sum, d_matrix, c_matrix, bias, partial, at, count, z, m, n, i, first + j, alpha, beta, activation);
      }
      __syncthreads();
    }
  }
}

extern "C" __global__ void __launch_bounds__(256) gemv_along_k(
    const MI_A* a, const MI_B* b, MI_D* d, const MI_D* c, const MI_D* bias, acc_t* partial, int m, int n, int k, int k_part, Left left,
    long long ldb, Places at, Batches batches, factor_t alpha, factor_t beta, int activation) {
  mi_take_turn();
  int lane = threadIdx.x;
  long long column = (long long)blockIdx.x * MI_WARPS + threadIdx.y;
  int begin = blockIdx.y * k_part, end = k - begin < k_part ? k : begin + k_part;
  long long count = mi_batch_count(batches);
  if (column >= n) return;
  for (long long z = blockIdx.z; z < count; z += gridDim.z) {
    const MI_A* x = a + mi_batch_offset(batches, z, MI_OF_A);
    const MI_B* weights = b + mi_batch_offset(batches, z, MI_OF_B) + column * ldb;
    acc_t total[MI_ROWS] = {};
    for (int k0 = begin + lane * MI_PACK; k0 < end; k0 += 32 * MI_PACK * MI_FLIGHT) {
      Pack<MI_B, MI_PACK> w[MI_FLIGHT];
#pragma unroll
      for (int f = 0; f < MI_FLIGHT; f++) {
        int depth = k0 + f * 32 * MI_PACK;
        if (depth < end) w[f] = *reinterpret_cast<const Pack<MI_B, MI_PACK>*>(weights + depth);
      }
#pragma unroll
      for (int f = 0; f < MI_FLIGHT; f++) {
        int depth = k0 + f * 32 * MI_PACK;
        if (depth >= end) break;
#pragma unroll
        for (int i = 0; i < MI_ROWS; i++) {
          if (i >= m) break;
#pragma unroll
          for (int p = 0; p < MI_PACK; p += MI_PACK_A) {
            Pack<MI_A, MI_PACK_A> factors =
                *reinterpret_cast<const Pack<MI_A, MI_PACK_A>*>(x + i * left.row + (depth + p) * left.column);
#pragma unroll
            for (int e = 0; e < MI_PACK_A; e++)
              total[i] = mi_multiply_add((acc_t)widen(factors.d[e]), (acc_t)widen(w[f].d[p + e]), total[i]);
          }
        }
      }
    }
    MI_D* d_matrix = d + mi_batch_offset(batches, z, MI_OF_D);
    const MI_D* c_matrix = c ? c + mi_batch_offset(batches, z, MI_OF_C) : c;
#pragma unroll
    for (int i = 0; i < MI_ROWS; i++) {
      if (i >= m) break;
#pragma unroll
      for (int by = 16; by; by /= 2) total[i] += __shfl_xor_sync(0xffffffffu, total[i], by);
      if (lane == i) mi_emit(total[i], d_matrix, c_matrix, bias, partial, at, count, z, m, n, i, column, alpha, beta, activation);
    }
  }
}
