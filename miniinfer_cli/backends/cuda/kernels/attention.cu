// Attention in one pass over keys and values: scores, softmax and sums of values stay in registers (Dao 2022, 2023).
//
// Rows of a block are queries of all heads that share one head of keys and values: row = head in group * queries + query. A
// warp has 16 of them and a part of the keys of each step; two steps of keys and values are in shared memory, one of them on
// its way. Head sizes are padded with zeros there, and so are keys behind the last.
// MI_SPLIT: 1 where grid.y parts of the keys are summed by attention_combine. The other macros: attention_tile.cuh.
#include "attention.cuh"
#include "attention_tile.cuh"

MI_DEVICE float over_row(float x, bool add) {  // among the four lanes that share a row
#pragma unroll
  for (int by = 1; by < 4; by *= 2) {
    float other = __shfl_xor_sync(0xffffffffu, x, by);
    x = add ? x + other : fmaxf(x, other);
  }
  return x;
}
// exp(x - base); the product and the difference in one where a little less accuracy will do. It will not where a mask is
// added: a row that it hides by the lowest finite number has this as its base, whose product is infinite, or off by powers of 2.
MI_DEVICE float power(float x, float base) {
  return quick_exp2(MI_EXACT || MI_MASK == MI_ADDED_MASK ? (x - base) * LOG2E : fmaf(x, LOG2E, -base * LOG2E));
}
MI_DEVICE float finite_or_zero(float highest) { return highest == -mi_infinity() ? 0.0f : highest; }

// partial: sums of values and then, behind all of them, highest score and sum of exponentials of each part and row.
extern "C" __global__ void __launch_bounds__(32 * MI_WARPS) attention(
    const MI_T* q, const MI_T* k, const MI_T* v, MI_T* y, float* partial, const MI_MASK_T* mask, const i64* nonpad, Sight sight,
    Strides strides, float scale, float cap, int group, int kv_heads, int size, int v_size, int tiles, int part_keys) {
  MI_SHARED(unsigned char, shared);
  unsigned char* own_q = shared;
  unsigned char* stages = shared + MI_ROWS * K_ROW;
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, warp = threadIdx.x / 32;
  int row_warp = warp % MI_ROW_WARPS, key_warp = warp / MI_ROW_WARPS;
  int queries = (int)sight.queries, rows = group * queries;
  int row0 = (tiles - 1 - (int)blockIdx.x % tiles) * MI_ROWS;  // the rows that see most keys of a causal mask come first
  i64 shared_head = blockIdx.x / tiles, batch = shared_head / kv_heads, kv_head = shared_head % kv_heads;
  const MI_T* keys = k + batch * strides.k[0] + kv_head * strides.k[1];
  const MI_T* values = v + batch * strides.v[0] + kv_head * strides.v[1];

  for (int i = threadIdx.x; i < MI_ROWS * (MI_SIZE / CELL); i += 32 * MI_WARPS) {
    int row = row0 + i / (MI_SIZE / CELL), column = i % (MI_SIZE / CELL) * CELL;
    int head = row / queries, query = row - head * queries, left = row < rows ? size - column : 0;
    const MI_T* from = q + batch * strides.q[0] + (kv_head * group + head) * strides.q[1] + query * strides.q[2] + column;
    fetch_cell(own_q + (row - row0) * K_ROW + column * NBYTES, left > 0 ? from : q, left);
  }

  // What this lane's two rows see, and what any row of the block may see.
  Span spans[2];
  i64 mask_rows[2], outputs[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    int row = row0 + row_warp * 16 + g + i * 8, head = row / queries, query = row - head * queries;
    spans[i].first = 0;
    spans[i].last = -1;
    mask_rows[i] = outputs[i] = 0;
    if (row < rows) {
      spans[i] = visible_keys(sight, nonpad, batch, query);
      mask_rows[i] = mask_row(sight, batch, kv_head * group + head, query);
      outputs[i] = MI_SPLIT ? ((i64)blockIdx.y * (gridDim.x / tiles) + shared_head) * rows + row
                            : y_row(strides, batch, kv_head * group + head, query);
    }
  }
  int end_row = row0 + MI_ROWS < rows ? row0 + MI_ROWS : rows;
  bool one_head = row0 / queries == (end_row - 1) / queries;
  int begin = visible_keys(sight, nonpad, batch, one_head ? row0 % queries : 0).first;
  int end = visible_keys(sight, nonpad, batch, one_head ? (end_row - 1) % queries : queries - 1).last + 1;
#if MI_SPLIT
  int part = (int)blockIdx.y * part_keys;
  begin = max(begin, part);
  end = min(end, part + part_keys);
#endif
  // Neither row's span goes beyond this block's keys: those behind them are another part's, or zeros.
  spans[0].last = min(spans[0].last, end - 1);
  spans[1].last = min(spans[1].last, end - 1);
  int all_first = max(spans[0].first, spans[1].first), all_last = min(spans[0].last, spans[1].last);

  Sums sums = {};
  float highest[2] = {-mi_infinity(), -mi_infinity()}, total[2] = {0, 0};
  if (begin < end) {
    fetch_rows<MI_SIZE, K_ROW>(stages, keys, strides.k[2], begin, end - begin, size);
    fetch_rows<MI_VALUE, V_ROW>(stages + MI_KEYS * K_ROW, values, strides.v[2], begin, end - begin, v_size);
  }
  close_copies();
  for (int key0 = begin, stage = 0; key0 < end; key0 += MI_KEYS, stage ^= 1) {
    int next = key0 + MI_KEYS;
    if (next < end) {
      unsigned char* to = stages + (stage ^ 1) * STAGE;
      fetch_rows<MI_SIZE, K_ROW>(to, keys, strides.k[2], next, end - next, size);
      fetch_rows<MI_VALUE, V_ROW>(to + MI_KEYS * K_ROW, values, strides.v[2], next, end - next, v_size);
    }
    close_copies();
    await_copies<1>();
    __syncthreads();
    const unsigned char* step = stages + stage * STAGE;
    Scores scores;
    score(scores, own_q + row_warp * 16 * K_ROW, step + key_warp * MI_OWN_KEYS * K_ROW);
    float top[2] = {highest[0], highest[1]};
    int own_key0 = key0 + key_warp * MI_OWN_KEYS;
    if (MI_MASK == MI_NO_MASK && cap == 0.0f && own_key0 >= all_first && own_key0 + MI_OWN_KEYS - 1 <= all_last) {
#pragma unroll
      for (int n = 0; n < MI_OWN_KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          scores[n][e] *= scale;
          top[e / 2] = fmaxf(top[e / 2], scores[n][e]);
        }
    } else {
#pragma unroll
      for (int n = 0; n < MI_OWN_KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          int key = own_key0 + n * 8 + 2 * t + e % 2, i = e / 2;
          float x = scores[n][e] * scale;
          if (cap != 0.0f) x = tanhf(x / cap) * cap;
          bool seen = key >= spans[i].first && key <= spans[i].last;
          x = seen ? masked(x, mask, mask_rows[i], sight, key) : -mi_infinity();
          scores[n][e] = x;
          top[i] = fmaxf(top[i], x);
        }
    }
    float base[2], fade[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      top[i] = over_row(top[i], false);
      base[i] = finite_or_zero(top[i]);
      fade[i] = power(highest[i], base[i]);
      total[i] *= fade[i];
      highest[i] = top[i];
    }
#pragma unroll
    for (int n = 0; n < MI_OWN_KEYS / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        scores[n][e] = power(scores[n][e], base[e / 2]);
        total[e / 2] += scores[n][e];
      }
#pragma unroll
    for (int n = 0; n < MI_VALUE / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) sums[n][e] *= fade[e / 2];
    add_values(sums, scores, step + MI_KEYS * K_ROW + key_warp * MI_OWN_KEYS * V_ROW, (MI_T*)0);
    __syncthreads();
  }
  total[0] = over_row(total[0], true);
  total[1] = over_row(total[1], true);

#if MI_KEY_WARPS > 1
  // What the other warps of these rows have, through the memory of the steps, lane by lane.
  constexpr int KEPT = MI_VALUE / 2 + 4;
  float* kept = reinterpret_cast<float*>(shared);
  await_copies<0>();
  __syncthreads();
  if (key_warp > 0) {
    float* mine = kept + ((key_warp - 1) * MI_ROW_WARPS + row_warp) * KEPT * 32 + lane;
#pragma unroll
    for (int n = 0; n < MI_VALUE / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) mine[(n * 4 + e) * 32] = sums[n][e];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      mine[(MI_VALUE / 2 + i) * 32] = highest[i];
      mine[(MI_VALUE / 2 + 2 + i) * 32] = total[i];
    }
  }
  __syncthreads();
  if (key_warp > 0) return;
  for (int other = 0; other < MI_KEY_WARPS - 1; other++) {
    const float* theirs = kept + (other * MI_ROW_WARPS + row_warp) * KEPT * 32 + lane;
    float ours[2], weight[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float their_top = theirs[(MI_VALUE / 2 + i) * 32], top = fmaxf(highest[i], their_top), base = finite_or_zero(top);
      ours[i] = power(highest[i], base);
      weight[i] = power(their_top, base);
      total[i] = total[i] * ours[i] + theirs[(MI_VALUE / 2 + 2 + i) * 32] * weight[i];
      highest[i] = top;
    }
#pragma unroll
    for (int n = 0; n < MI_VALUE / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) sums[n][e] = sums[n][e] * ours[e / 2] + theirs[(n * 4 + e) * 32] * weight[e / 2];
  }
#endif

#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (row0 + row_warp * 16 + g + i * 8 >= rows) continue;
#if MI_SPLIT
    float* to = partial + outputs[i] * v_size;
    float factor = 1.0f;
    if (t == 0) {
      float* about = partial + (i64)gridDim.y * (gridDim.x / tiles) * rows * v_size + outputs[i] * 2;
      about[0] = highest[i];
      about[1] = total[i];
    }
#else
    MI_T* to = y + outputs[i];
    float factor = total[i] == 0.0f && MI_NAN_ROWS != MI_NAN_KEEP ? 0.0f : 1.0f / total[i];  // no key was seen
#endif
#pragma unroll
    for (int n = 0; n < MI_VALUE / 8; n++) {
      int column = n * 8 + 2 * t;
      auto* at = to + column;
      float low = sums[n][2 * i] * factor, high = sums[n][2 * i + 1] * factor;
#if !MI_SPLIT && MI_NAN_ROWS == MI_NAN_ZERO
      if (total[i] != total[i]) {
        if (column < v_size) low = weighed_by_zero(values + column, strides.v[2], sight.keys);
        if (column + 1 < v_size) high = weighed_by_zero(values + column + 1, strides.v[2], sight.keys);
      }
#endif
#if MI_SPLIT
      if (column < v_size) at[0] = low;
      if (column + 1 < v_size) at[1] = high;
#elif MI_WHOLE
      if (column < v_size) *reinterpret_cast<Pack<MI_T, 2>*>(at) = {narrow<MI_T>(low), narrow<MI_T>(high)};
#else
      if (column < v_size) at[0] = narrow<MI_T>(low);
      if (column + 1 < v_size) at[1] = narrow<MI_T>(high);
#endif
    }
  }
}
