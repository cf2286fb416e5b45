// Attention by cuDNN: what makes a mask fit for it, and what queries that see no key give.
#include "attention.cuh"

// y [batches, heads, queries, keys]: what is added to the scores, with hidden keys at minus infinity. empty: 1 for each row
// that shows no key. A block per row.
extern "C" __global__ void dense_mask(
    MI_T* y, u8* empty, const MI_MASK_T* mask, const i64* nonpad, Sight sight, i64 rows, i64 heads) {
  for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
    i64 query = row % sight.queries, head = row / sight.queries % heads, batch = row / sight.queries / heads;
    Span span = visible_keys(sight, nonpad, batch, query);
    i64 at = mask_row(sight, batch, head, query);
    int shows = 0;
    for (int key = threadIdx.x; key < (int)sight.keys; key += blockDim.x) {
      float x = key >= span.first && key <= span.last ? masked(0.0f, mask, at, sight, key) : -mi_infinity();
      MI_T rounded = narrow<MI_T>(x);
      y[row * sight.keys + key] = rounded;
      if (widen(rounded) != -mi_infinity()) shows = 1;
    }
    shows = __syncthreads_or(shows);
    if (threadIdx.x == 0) empty[row] = (u8)!shows;
  }
}

// Zeros (or NaN) for each query of y that dense_mask found to see no key. A block per query and head of y.
extern "C" __global__ void clear_empty(
    MI_T* y, const u8* empty, i64 rows, i64 heads, i64 queries, i64 size, Longs<3> strides, Longs<2> of_empty) {
  for (i64 row = blockIdx.x * (i64)blockDim.y + threadIdx.y; row < rows; row += (i64)gridDim.x * blockDim.y) {
    i64 query = row % queries, head = row / queries % heads, batch = row / queries / heads;
    if (!empty[batch * of_empty.d[0] + head * of_empty.d[1] + query]) continue;
    MI_T* line = y + batch * strides.d[0] + head * strides.d[1] + query * strides.d[2];
    for (i64 i = threadIdx.x; i < size; i += blockDim.x) line[i] = narrow<MI_T>(MI_NAN_ROWS == MI_NAN_KEEP ? mi_nan() : 0.0f);
  }
}
