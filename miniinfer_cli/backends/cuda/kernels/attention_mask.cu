// Attention by cuDNN: what makes a mask fit for it, and what queries that see no key give.
#include "attention.cuh"

// What a row is that the library does not compute as it should.
#define MI_ROW_EMPTY 1  // it shows no key
#define MI_ROW_LEVEL 2  // its highest number is so low that every score added to it is lost: equal weights where it stands

// The library multiplies what it exponentiates and its highest by log2(e) apart from each other: from here on down the difference
// is off by powers of 2, and infinite for the lowest numbers. Scores below 32 are lost beside it in f32.
#define MI_LEVEL -5e8f
#define MI_LOWEST_F16 -65504.0f

// The highest of x in the block, +infinity where one is NaN; for all threads.
MI_DEVICE float highest_of_block(float x) {
  __shared__ float of_warp[32];
  x = x != x ? mi_infinity() : x;
  for (int by = 16; by; by /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, by));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  float highest = of_warp[0];
  for (int warp = 1; warp < (int)(blockDim.x + 31) / 32; warp++) highest = fmaxf(highest, of_warp[warp]);
  __syncthreads();
  return highest;
}

// y [batches, heads, queries, keys]: what is added to the scores, with hidden keys at minus infinity. odd: for each row, see
// above; a row of the second kind is 0 where its highest number stands. A block per row, of whole warps.
extern "C" __global__ void dense_mask(
    MI_T* y, u8* odd, const MI_MASK_T* mask, const i64* nonpad, Sight sight, i64 rows, i64 heads) {
  for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
    i64 query = row % sight.queries, head = row / sight.queries % heads, batch = row / sight.queries / heads;
    Span span = visible_keys(sight, nonpad, batch, query);
    i64 at = mask_row(sight, batch, head, query);
    float highest = -mi_infinity();
    for (int key = threadIdx.x; key < (int)sight.keys; key += blockDim.x) {
      float x = key >= span.first && key <= span.last ? masked(0.0f, mask, at, sight, key) : -mi_infinity();
      y[row * sight.keys + key] = narrow<MI_T>(x);
      highest = x != x ? mi_infinity() : fmaxf(highest, x);
    }
    highest = highest_of_block(highest);
    int level = highest > -mi_infinity() && highest <= MI_LEVEL;
    // What is beyond the numbers of MI_T is moved among them: the same is taken from all scores of the row.
    if (level || (highest > -mi_infinity() && highest < MI_LOWEST_F16)) {
      for (int key = span.first + threadIdx.x; key <= span.last; key += blockDim.x) {
        float x = masked(0.0f, mask, at, sight, key);
        y[row * sight.keys + key] = narrow<MI_T>(!level ? x - highest : x == highest ? 0.0f : -mi_infinity());
      }
    }
    if (threadIdx.x == 0) odd[row] = (u8)(level ? MI_ROW_LEVEL : highest == -mi_infinity() ? MI_ROW_EMPTY : 0);
  }
}

// Of each query of y whose row dense_mask found to be odd: zeros (or NaN) where it sees no key, and the mean of the values that it
// weighs alike. A warp per query and head of y.
extern "C" __global__ void mend_rows(
    MI_T* y, const u8* odd, const MI_T* mask, const MI_T* v, i64 rows, i64 heads, i64 queries, i64 keys, i64 size, i64 group,
    Longs<3> strides, Longs<3> of_v, Longs<2> of_odd) {
  for (i64 row = blockIdx.x * (i64)blockDim.y + threadIdx.y; row < rows; row += (i64)gridDim.x * blockDim.y) {
    i64 query = row % queries, head = row / queries % heads, batch = row / queries / heads;
    i64 mask_row = batch * of_odd.d[0] + head * of_odd.d[1] + query;
    if (!odd[mask_row]) continue;
    MI_T* line = y + batch * strides.d[0] + head * strides.d[1] + query * strides.d[2];
    const MI_T* values = v + batch * of_v.d[0] + head / group * of_v.d[1];
    for (i64 i = threadIdx.x; i < size; i += blockDim.x) {
      float result = MI_NAN_ROWS == MI_NAN_KEEP ? mi_nan() : 0.0f;
      if (odd[mask_row] == MI_ROW_LEVEL) {
        float sum = 0, count = 0;
        for (i64 key = 0; key < keys; key++) {
          if (widen(mask[mask_row * keys + key]) != 0.0f) continue;
          sum += widen(values[key * of_v.d[2] + i]);
          count += 1;
        }
        result = sum / count;
      }
      line[i] = narrow<MI_T>(result);
    }
  }
}
