// Transposition through shared memory: both sides are read and written in runs.
#include "types.cuh"

#define MI_THREADS 256

// y[batch, column, row] = x[batch, row, column] under any strides, a tile of MI_TILE * MI_TILE per block. MI_LOAD elements
// are read at once along a row, which wants x_column == 1; MI_STORE are written at once down a column, for y_row == 1.
extern "C" __global__ void __launch_bounds__(MI_THREADS)
    transpose(const MI_T* __restrict__ x, MI_T* __restrict__ y, index_t rows, index_t columns, index_t x_row, index_t x_column,
              index_t y_row, index_t y_column, index_t row_tiles, index_t column_tiles, Indices<MI_RANK> sizes,
              Indices<MI_RANK> x_strides, Indices<MI_RANK> y_strides) {
  // An odd pitch: neighbours in a column lie in different banks.
  __shared__ MI_T tile[MI_TILE][MI_TILE + 1];
  index_t block = blockIdx.x;
  index_t column = block % column_tiles * MI_TILE;
  block /= column_tiles;
  index_t row = block % row_tiles * MI_TILE;
  block /= row_tiles;
#pragma unroll
  for (int d = MI_RANK - 1; d >= 0; d--) {
    index_t at = block % sizes.d[d];
    block /= sizes.d[d];
    x += at * x_strides.d[d];
    y += at * y_strides.d[d];
  }
#pragma unroll
  for (int k = 0; k < MI_TILE * MI_TILE / MI_LOAD / MI_THREADS; k++) {
    const int slot = threadIdx.x + k * MI_THREADS;
    int r = slot / (MI_TILE / MI_LOAD), c = slot % (MI_TILE / MI_LOAD) * MI_LOAD;
    if (row + r < rows && column + c < columns) {
      auto pack = *reinterpret_cast<const Pack<MI_T, MI_LOAD>*>(x + (row + r) * x_row + (column + c) * x_column);
#pragma unroll
      for (int v = 0; v < MI_LOAD; v++) tile[r][c + v] = pack.d[v];
    }
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < MI_TILE * MI_TILE / MI_STORE / MI_THREADS; k++) {
    const int slot = threadIdx.x + k * MI_THREADS;
    int c = slot / (MI_TILE / MI_STORE), r = slot % (MI_TILE / MI_STORE) * MI_STORE;
    if (row + r < rows && column + c < columns) {
      Pack<MI_T, MI_STORE> pack;
#pragma unroll
      for (int v = 0; v < MI_STORE; v++) pack.d[v] = tile[r + v][c];
      *reinterpret_cast<Pack<MI_T, MI_STORE>*>(y + (row + r) * y_row + (column + c) * y_column) = pack;
    }
  }
}
