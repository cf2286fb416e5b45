// Attention in steps: scores to probabilities in place, between two matrix products. MI_C: the type of scores; MI_W: the type
// softmax is computed in; MI_P: the type it is rounded to; MI_T: of `kept`.
#include "attention.cuh"
#include "group.cuh"

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
    if (MI_NAN_ROWS != MI_NAN_KEEP && may_be_empty && highest == (MI_W)-mi_infinity()) highest = 0;
    MI_W sum = 0;
    for (int key = threadIdx.x; key < (int)sight.keys; key += blockDim.x) sum += exp_of(rounded((MI_W)line[key]) - highest);
    sum = group_combine(sum, AddOf());
    bool lost = MI_NAN_ROWS == MI_NAN_ZERO && sum != sum;
    MI_W scale = may_be_empty && sum == (MI_W)0 ? (MI_W)1 : (MI_W)1 / sum;
    for (int key = threadIdx.x; key < (int)sight.keys; key += blockDim.x) {
      MI_W p = lost ? (MI_W)0 : rounded(exp_of(rounded((MI_W)line[key]) - highest) * scale);
      if (out && mode == 3) out[key] = narrow<MI_T>((MI_C)p);
      line[key] = (MI_C)p;
    }
  }
}
