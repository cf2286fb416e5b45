// The sums over parts of k added up, in order, and finished.
#include "product.cuh"
#include "turn.cuh"

extern "C" __global__ void add_parts(
    const acc_t* partial, MI_D* d, const MI_D* c, const MI_D* bias, int parts, int m, int n, Places at, Batches batches, factor_t alpha,
    factor_t beta, int activation) {
  mi_take_turn();
  long long size = (long long)m * n, count = mi_batch_count(batches) * size;
  for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < count; e += (long long)gridDim.x * blockDim.x) {
    acc_t sum = partial[e];
    for (int p = 1; p < parts; p++) sum += partial[p * count + e];
    long long z = e / size, i = e % size / n, j = e % n;
    const MI_D* c_matrix = c ? c + mi_batch_offset(batches, z, MI_OF_C) : c;
    d[mi_batch_offset(batches, z, MI_OF_D) + i * at.d_row + j * at.d_column] =
        narrow<MI_D>(mi_finish(sum, c_matrix, bias, at, i, j, alpha, beta, activation));
  }
}
