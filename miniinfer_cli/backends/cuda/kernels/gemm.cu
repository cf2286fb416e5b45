// d = activation(alpha * a @ b + beta * c + bias) in tiles: any transposition, any element type, batches, parts of k.
//
// A block of 256 threads makes a tile of MI_TILE x MI_TILE from slices of 16 along k, which lie in shared memory in the type
// computed in while the next slice is on its way in registers. A thread holds (MI_TILE / 16)^2 sums.
// MI_A, MI_B, MI_D, MI_ACC: types. MI_TRANSPOSE_A, _B: 1 where it is stored transposed. MI_PACK_A, _B: elements per load, which
// divide what lies side by side in memory. MI_ZERO_POINTS: 1 where a and b are less their zero points.
#include "product.cuh"

#define MI_SLICE 16
#define MI_SIDE (MI_TILE / 16)

// A slice of ROWS (along m or n) by MI_SLICE (along k), of a matrix of which either lies side by side.
template <class T, int PACK, bool ALONG_K> struct Loader {
  static constexpr int WIDTH = ALONG_K ? MI_SLICE : MI_TILE;
  static constexpr int PACKS = MI_TILE * MI_SLICE / PACK;
  static constexpr int COUNT = (PACKS + 255) / 256;
  Pack<T, PACK> held[COUNT];

  // From row `first` of `rows`, from `k0` of those before `k`; `ld` elements between what does not lie side by side.
  MI_DEVICE void load(const T* from, long long ld, int first, int rows, int k0, int k, int thread) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int pack = thread + i * 256, outer = pack / (WIDTH / PACK), inner = pack % (WIDTH / PACK) * PACK;
      int row = first + (ALONG_K ? outer : inner), depth = k0 + (ALONG_K ? inner : outer);
      if (pack < PACKS && row < rows && depth < k)
        held[i] = *reinterpret_cast<const Pack<T, PACK>*>(from + (ALONG_K ? row * ld + depth : depth * ld + row));
      else
        held[i] = Pack<T, PACK>{};
    }
  }
  // Into `slice`, by k and then by row. `zero`: the zero points by row, null for none; what lies outside stays zero.
  template <class Z>
  MI_DEVICE void store(acc_t (*slice)[MI_TILE + 4], const Z* zero, long long step, int first, int rows, int k0, int k, int thread) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int pack = thread + i * 256, outer = pack / (WIDTH / PACK), inner = pack % (WIDTH / PACK) * PACK;
      if (pack >= PACKS) break;
#pragma unroll
      for (int e = 0; e < PACK; e++) {
        int row = ALONG_K ? outer : inner + e, depth = ALONG_K ? inner + e : outer;
        acc_t value = (acc_t)widen(held[i].d[e]);
#if MI_ZERO_POINTS
        if (zero && first + row < rows && k0 + depth < k) value -= (acc_t)zero[(first + row) * step];
#endif
        slice[depth][row] = value;
      }
    }
  }
};

extern "C" __global__ void __launch_bounds__(256) gemm(
    const MI_A* a, const MI_B* b, MI_D* d, const MI_D* c, const MI_D* bias, acc_t* partial, const MI_A* a_zero, const MI_B* b_zero,
    int m, int n, int k, int k_part, long long lda, long long ldb, Places at, Batches batches, factor_t alpha, factor_t beta,
    int activation) {
  __shared__ __align__(16) acc_t left[MI_SLICE][MI_TILE + 4];
  __shared__ __align__(16) acc_t right[MI_SLICE][MI_TILE + 4];
  int thread = threadIdx.x, tx = thread % 16, ty = thread / 16;
  int tiles = (n + MI_TILE - 1) / MI_TILE;
  int row0 = blockIdx.x / tiles * MI_TILE, column0 = blockIdx.x % tiles * MI_TILE;
  int begin = blockIdx.y * k_part, end = k - begin < k_part ? k : begin + k_part;
  long long count = mi_batch_count(batches);
  for (long long z = blockIdx.z; z < count; z += gridDim.z) {
    const MI_A* a_matrix = a + mi_batch_offset(batches, z, MI_OF_A);
    const MI_B* b_matrix = b + mi_batch_offset(batches, z, MI_OF_B);
    const MI_A* a_zeros = a_zero ? a_zero + mi_batch_offset(batches, z, MI_OF_A_ZERO) : a_zero;
    const MI_B* b_zeros = b_zero ? b_zero + mi_batch_offset(batches, z, MI_OF_B_ZERO) : b_zero;
    Loader<MI_A, MI_PACK_A, !MI_TRANSPOSE_A> load_a;
    Loader<MI_B, MI_PACK_B, MI_TRANSPOSE_B> load_b;
    acc_t sums[MI_SIDE][MI_SIDE] = {};
    if (begin < end) {
      load_a.load(a_matrix, lda, row0, m, begin, end, thread);
      load_b.load(b_matrix, ldb, column0, n, begin, end, thread);
    }
    for (int k0 = begin; k0 < end; k0 += MI_SLICE) {
      load_a.store(left, a_zeros, at.a_zero_row, row0, m, k0, end, thread);
      load_b.store(right, b_zeros, at.b_zero_column, column0, n, k0, end, thread);
      __syncthreads();
      if (k0 + MI_SLICE < end) {
        load_a.load(a_matrix, lda, row0, m, k0 + MI_SLICE, end, thread);
        load_b.load(b_matrix, ldb, column0, n, k0 + MI_SLICE, end, thread);
      }
#pragma unroll
      for (int s = 0; s < MI_SLICE; s++) {
        acc_t x[MI_SIDE], y[MI_SIDE];
#pragma unroll
        for (int i = 0; i < MI_SIDE; i++) {  // groups of four side by side, so that a load takes 16 bytes
          x[i] = left[s][i / 4 * 64 + ty * 4 + i % 4];
          y[i] = right[s][i / 4 * 64 + tx * 4 + i % 4];
        }
#pragma unroll
        for (int i = 0; i < MI_SIDE; i++)
#pragma unroll
          for (int j = 0; j < MI_SIDE; j++) sums[i][j] = mi_multiply_add(x[i], y[j], sums[i][j]);
      }
      __syncthreads();
    }
    MI_D* d_matrix = d + mi_batch_offset(batches, z, MI_OF_D);
    const MI_D* c_matrix = c ? c + mi_batch_offset(batches, z, MI_OF_C) : c;
    // Every fourth row of the tile by way of shared memory, so that neighbours write neighbours.
#pragma unroll
    for (int i = 0; i < MI_SIDE; i++) {
#pragma unroll
      for (int j = 0; j < MI_SIDE; j++) left[ty][j / 4 * 64 + tx * 4 + j % 4] = sums[i][j];
      __syncthreads();
#pragma unroll 1
      for (int e = thread; e < MI_SLICE * MI_TILE; e += 256) {
        long long row = row0 + i / 4 * 64 + e / MI_TILE * 4 + i % 4, column = column0 + e % MI_TILE;
        if (row >= m || column >= n) continue;
        acc_t sum = left[e / MI_TILE][e % MI_TILE];
        if (partial)
          partial[((blockIdx.y * count + z) * m + row) * n + column] = sum;
        else
          d_matrix[row * at.d_row + column * at.d_column] =
              narrow<MI_D>(mi_finish(sum, c_matrix, bias, at, row, column, alpha, beta, activation));
      }
      __syncthreads();
    }
  }
}
