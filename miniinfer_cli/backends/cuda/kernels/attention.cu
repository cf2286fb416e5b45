// Attention in one pass over keys and values: scores, softmax and sums of values stay in registers (Dao 2022, 2023).
//
// Rows of a block are queries of all heads that share one head of keys and values: row = head in group * queries + query. A
// warp has 16 of them and a part of the keys of each step; two steps of keys and values are in shared memory, one of them on
// its way. Head sizes are padded with zeros there, and so are keys behind the last.
// MI_T: f32, f16 or bf16. MI_SIZE, MI_VALUE: padded head sizes of keys and values. MI_ROW_WARPS x MI_KEY_WARPS warps. MI_KEYS:
// keys a step. MI_WHOLE: 1 where rows begin and end at multiples of 16 bytes. MI_EXACT: 1 for f32 that is not to be rounded
// to TF32. MI_SPLIT: 1 where grid.y parts of the keys are summed by attention_combine.
#include "attention.cuh"
#include "mma.cuh"

// Between batches, heads and queries (keys).
struct Strides { i64 q[3], k[3], v[3], y[3]; };

MI_DEVICE i64 y_row(const Strides& strides, i64 batch, i64 head, i64 query) {
  return batch * strides.y[0] + head * strides.y[1] + query * strides.y[2];
}

#ifdef MI_SIZE
#define MI_ROWS (16 * MI_ROW_WARPS)
#define MI_WARPS (MI_ROW_WARPS * MI_KEY_WARPS)
#define MI_OWN_KEYS (MI_KEYS / MI_KEY_WARPS)

constexpr int NBYTES = sizeof(MI_T), CELL = 16 / NBYTES;  // elements of 16 bytes
// Bytes between rows: such that no two of the lanes that read together meet in a bank.
constexpr int K_ROW = MI_SIZE * NBYTES + (MI_SIZE * NBYTES % 128 ? 0 : 64), V_ROW = MI_VALUE * NBYTES + 16;
constexpr int STAGE = MI_KEYS * (K_ROW + V_ROW);
constexpr float LOG2E = 1.4426950408889634f;

struct Words { u32 d[4]; };
MI_DEVICE Words words_at(const unsigned char* p) {
  Pack<u32, 4> read = *reinterpret_cast<const Pack<u32, 4>*>(p);
  return {read.d[0], read.d[1], read.d[2], read.d[3]};
}

// A cell of 16 bytes from `from`, which has `left` elements; zeros behind them.
MI_DEVICE void fetch_cell(unsigned char* to, const MI_T* from, int left) {
#if MI_WHOLE
  copy_async(to, from, left > 0);
#else
  Pack<MI_T, CELL> cell = {};
#pragma unroll
  for (int e = 0; e < CELL; e++)
    if (e < left) cell.d[e] = from[e];
  *reinterpret_cast<Pack<MI_T, CELL>*>(to) = cell;
#endif
}

// MI_KEYS rows from row `first`, of which `count` are there.
template <int COLUMNS, int ROW> MI_DEVICE void fetch_rows(unsigned char* to, const MI_T* from, i64 step, int first, int count, int size) {
  constexpr int CELLS = COLUMNS / CELL;
#pragma unroll 4
  for (int i = threadIdx.x; i < MI_KEYS * CELLS; i += 32 * MI_WARPS) {
    int row = i / CELLS, column = i % CELLS * CELL, left = row < count ? size - column : 0;
    fetch_cell(to + row * ROW + column * NBYTES, left > 0 ? from + (first + row) * step + column : from, left);
  }
}

// sums += p v, of 16 rows and the warp's keys. p lies as scores do; that its columns are not in the order of a's words does no
// harm where b takes the same keys.
template <class T> MI_DEVICE void add_values(float (&sums)[MI_VALUE / 8][4], const float (&p)[MI_OWN_KEYS / 8][4], const unsigned char* v, T* type) {
#pragma unroll
  for (int j = 0; j < MI_OWN_KEYS / 16; j++) {
    const float(&x)[4] = p[2 * j], (&y)[4] = p[2 * j + 1];
    u32 a[4] = {word_of(x[0], x[1], type), word_of(x[2], x[3], type), word_of(y[0], y[1], type), word_of(y[2], y[3], type)};
#pragma unroll
    for (int n = 0; n < MI_VALUE / 16; n++) {
      u32 b[4];
      load_turned(b, v + j * 16 * V_ROW + n * 32, V_ROW);
      u32 low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
      mma(sums[2 * n], a, low, type);
      mma(sums[2 * n + 1], a, high, type);
    }
  }
}
MI_DEVICE void add_values(float (&sums)[MI_VALUE / 8][4], const float (&p)[MI_OWN_KEYS / 8][4], const unsigned char* v, f32* type) {
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int j = 0; j < MI_OWN_KEYS / 8; j++) {
    u32 a[4] = {__float_as_uint(p[j][0]), __float_as_uint(p[j][2]), __float_as_uint(p[j][1]), __float_as_uint(p[j][3])};
    const unsigned char* row = v + (j * 8 + 2 * t) * V_ROW + g * 4;
#pragma unroll
    for (int n = 0; n < MI_VALUE / 8; n++) {
      u32 b[2] = {*reinterpret_cast<const u32*>(row + n * 32), *reinterpret_cast<const u32*>(row + V_ROW + n * 32)};
      multiply_add<MI_EXACT>(sums[n], a, b, type);
    }
  }
}

// scores of 16 rows of q and the warp's keys. The order of a head's elements does not matter as long as it is the same for
// both: a lane takes 16 bytes that are two words for each of two products.
MI_DEVICE void score(float (&scores)[MI_OWN_KEYS / 8][4], const unsigned char* q, const unsigned char* k) {
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int n = 0; n < MI_OWN_KEYS / 8; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) scores[n][e] = 0;
#pragma unroll 4
  for (int chunk = 0; chunk < MI_SIZE * NBYTES / 64; chunk++) {
    int column = chunk * 64 + t * 16;
    Words upper = words_at(q + g * K_ROW + column), lower = words_at(q + (g + 8) * K_ROW + column);
    u32 a[4] = {upper.d[0], lower.d[0], upper.d[1], lower.d[1]}, c[4] = {upper.d[2], lower.d[2], upper.d[3], lower.d[3]};
#pragma unroll
    for (int n = 0; n < MI_OWN_KEYS / 8; n++) {
      Words key = words_at(k + (n * 8 + g) * K_ROW + column);
      u32 b[2] = {key.d[0], key.d[1]}, d[2] = {key.d[2], key.d[3]};
      multiply_add<MI_EXACT>(scores[n], a, b, (MI_T*)0);
      multiply_add<MI_EXACT>(scores[n], c, d, (MI_T*)0);
    }
  }
}

MI_DEVICE float over_row(float x, bool add) {  // among the four lanes that share a row
#pragma unroll
  for (int by = 1; by < 4; by *= 2) {
    float other = __shfl_xor_sync(0xffffffffu, x, by);
    x = add ? x + other : fmaxf(x, other);
  }
  return x;
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

  float sums[MI_VALUE / 8][4] = {}, highest[2] = {-mi_infinity(), -mi_infinity()}, total[2] = {0, 0};
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
    float scores[MI_OWN_KEYS / 8][4];
    score(scores, own_q + row_warp * 16 * K_ROW, step + key_warp * MI_OWN_KEYS * K_ROW);
    float top[2] = {highest[0], highest[1]};
#pragma unroll
    for (int n = 0; n < MI_OWN_KEYS / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        int key = key0 + key_warp * MI_OWN_KEYS + n * 8 + 2 * t + e % 2, i = e / 2;
        float x = scores[n][e] * scale;
        if (cap != 0.0f) x = tanhf(x / cap) * cap;
        bool seen = key >= spans[i].first && key <= spans[i].last && key < end;
        x = seen ? masked(x, mask, mask_rows[i], sight, key) : -mi_infinity();
        scores[n][e] = x;
        top[i] = fmaxf(top[i], x);
      }
    float base[2], fade[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      top[i] = over_row(top[i], false);
      base[i] = finite_or_zero(top[i]);
      fade[i] = exp2f((highest[i] - base[i]) * LOG2E);
      total[i] *= fade[i];
      highest[i] = top[i];
    }
#pragma unroll
    for (int n = 0; n < MI_OWN_KEYS / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        scores[n][e] = exp2f((scores[n][e] - base[e / 2]) * LOG2E);
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
      ours[i] = exp2f((highest[i] - base) * LOG2E);
      weight[i] = exp2f((their_top - base) * LOG2E);
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
    float factor = total[i] == 0.0f ? 0.0f : 1.0f / total[i];  // no key was seen
#endif
#pragma unroll
    for (int n = 0; n < MI_VALUE / 8; n++) {
      int column = n * 8 + 2 * t;
      auto* at = to + column;
      float low = sums[n][2 * i] * factor, high = sums[n][2 * i + 1] * factor;
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
#else
// The sums of all parts of the keys: y from what `attention` left in partial. rows: of all batches and heads.
extern "C" __global__ void attention_combine(
    const float* partial, MI_T* y, Strides strides, int parts, i64 rows, int queries, int heads, int v_size) {
  const float* about = partial + parts * rows * v_size;
  for (i64 i = mi_first(); i < rows * v_size; i += (i64)gridDim.x * blockDim.x) {
    i64 row = i / v_size;
    float highest = -mi_infinity();
    for (int p = 0; p < parts; p++) highest = fmaxf(highest, about[(p * rows + row) * 2]);
    float base = highest == -mi_infinity() ? 0.0f : highest, total = 0, sum = 0;
    for (int p = 0; p < parts; p++) {
      float weight = expf(about[(p * rows + row) * 2] - base);
      total += weight * about[(p * rows + row) * 2 + 1];
      sum += weight * partial[(p * rows + row) * v_size + i % v_size];
    }
    // Rows of one batch and head of keys follow each other as group * queries, so heads do too.
    i64 query = row % queries, head = row / queries % heads, batch = row / queries / heads;
    y[y_row(strides, batch, head, query) + i % v_size] = narrow<MI_T>(total == 0.0f ? 0.0f : sum / total);
  }
}
#endif
