// Attention in steps: scores to probabilities in place, between two matrix products; and what makes a mask fit for cuDNN.
#include "attention.cuh"
#include "group.cuh"

#ifdef MI_C  // the type of scores; MI_W: the type softmax is computed in, MI_P: the type it is rounded to; MI_T: of `kept`
MI_DEVICE float tanh_of(float x) { return tanhf(x); }
MI_DEVICE double tanh_of(double x) { return tanh(x); }
MI_DEVICE float exp_of(float x) { return expf(x); }
MI_DEVICE double exp_of(double x) { return exp(x); }
MI_DEVICE MI_W rounded(MI_W x) { return (MI_W)widen(narrow<MI_P>(x)); }

// A block per row of scores [batch, heads, queries, keys]. kept: what is handed out of it, null for nothing; mode: of which
// stage (0 as it comes, 1 capped, 2 masked, 3 the probabilities). may_be_empty: a query that sees no key gives zeros.
extern "C" __global__ void masked_softmax(
    MI_C* scores, MI_T* kept, const MI_MASK_T* mask, const i64* nonpad, Sight sight, i64 rows, i64 heads, MI_C cap, int mode,
    int may_be_empty) {
  for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
    i64 query = row % sight.queries, head = row / sight.queries % heads, batch = row / sight.queries / heads;
    Span span = visible_keys(sight, nonpad, batch, query);
    i64 at = mask_row(sight, batch, head, query);
    MI_C* line = scores + row * sight.keys;
    MI_T* out = kept ? kept + row * sight.keys : kept;
    MI_W highest = -mi_infinity();
    for (int key = threadIdx.x; key < (int)sight.keys; key += blockDim.x) {
      MI_C x = line[key];
      if (out && mode == 0) out[key] = narrow<MI_T>(x);
      if (cap != (MI_C)0) x = tanh_of(x / cap) * cap;
      if (out && mode == 1) out[key] = narrow<MI_T>(x);
      bool seen = key >= span.first && key <= span.last;
      x = seen ? masked(x, mask, at, sight, key) : (MI_C)-mi_infinity();
      if (out && mode == 2) out[key] = narrow<MI_T>(x);
      line[key] = x;
      highest = max(highest, rounded((MI_W)x));
    }
    highest = group_combine(highest, MaxOf());
    if (may_be_empty && highest == (MI_W)-mi_infinity()) highest = 0;
    MI_W sum = 0;
    for (int key = threadIdx.x; key < (int)sight.keys; key += blockDim.x) sum += exp_of(rounded((MI_W)line[key]) - highest);
    sum = group_combine(sum, AddOf());
    MI_W scale = may_be_empty && sum == (MI_W)0 ? (MI_W)1 : (MI_W)1 / sum;
    for (int key = threadIdx.x; key < (int)sight.keys; key += blockDim.x) {
      MI_W p = rounded(exp_of(rounded((MI_W)line[key]) - highest) * scale);
      if (out && mode == 3) out[key] = narrow<MI_T>((MI_C)p);
      line[key] = (MI_C)p;
    }
  }
}
#else
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

// Zeros for each query of y that dense_mask found to see no key. A block per query and head of y.
extern "C" __global__ void clear_empty(
    MI_T* y, const u8* empty, i64 rows, i64 heads, i64 queries, i64 size, Longs<3> strides, Longs<2> of_empty) {
  for (i64 row = blockIdx.x * (i64)blockDim.y + threadIdx.y; row < rows; row += (i64)gridDim.x * blockDim.y) {
    i64 query = row % queries, head = row / queries % heads, batch = row / queries / heads;
    if (!empty[batch * of_empty.d[0] + head * of_empty.d[1] + query]) continue;
    MI_T* line = y + batch * strides.d[0] + head * strides.d[1] + query * strides.d[2];
    for (i64 i = threadIdx.x; i < size; i += blockDim.x) line[i] = MI_T{};
  }
}
#endif
