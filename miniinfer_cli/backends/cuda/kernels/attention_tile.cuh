// The products of attention.cu: rows of queries, keys and values in shared memory, and what warps make of them.
//
// MI_T: f32, f16 or bf16. MI_SIZE, MI_VALUE: padded head sizes of keys and values. MI_ROW_WARPS x MI_KEY_WARPS warps. MI_KEYS:
// keys a step. MI_WHOLE: 1 where rows begin and end at multiples of 16 bytes. MI_EXACT: 1 for f32 that is not to be rounded
// to TF32.
#pragma once
#include "mma.cuh"

#define MI_ROWS (16 * MI_ROW_WARPS)
#define MI_WARPS (MI_ROW_WARPS * MI_KEY_WARPS)
#define MI_OWN_KEYS (MI_KEYS / MI_KEY_WARPS)

constexpr int NBYTES = sizeof(MI_T), CELL = 16 / NBYTES;  // elements of 16 bytes
// Bytes between rows: such that no two of the lanes that read together meet in a bank.
constexpr int K_ROW = MI_SIZE * NBYTES + (MI_SIZE * NBYTES % 128 ? 0 : 64), V_ROW = MI_VALUE * NBYTES + 16;
constexpr int STAGE = MI_KEYS * (K_ROW + V_ROW);
constexpr float LOG2E = 1.4426950408889634f;

// What a lane has of 16 rows: of a tile of 8 columns rows g and g + 8, columns 2t and 2t + 1 (mma.cuh).
typedef float Scores[MI_OWN_KEYS / 8][4];
typedef float Sums[MI_VALUE / 8][4];

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
template <int COLUMNS, int ROW>
MI_DEVICE void fetch_rows(unsigned char* to, const MI_T* from, i64 step, int first, int count, int size) {
  constexpr int CELLS = COLUMNS / CELL;
#pragma unroll 4
  for (int i = threadIdx.x; i < MI_KEYS * CELLS; i += 32 * MI_WARPS) {
    int row = i / CELLS, column = i % CELLS * CELL, left = row < count ? size - column : 0;
    fetch_cell(to + row * ROW + column * NBYTES, left > 0 ? from + (first + row) * step + column : from, left);
  }
}

// sums += p v, of 16 rows and the warp's keys. p lies as scores do; that its columns are not in the order of a's words does no
// harm where b takes the same keys.
template <class T>
MI_DEVICE void add_values(Sums& sums, const Scores& p, const unsigned char* v, T* type) {
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
MI_DEVICE void add_values(Sums& sums, const Scores& p, const unsigned char* v, f32* type) {
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
MI_DEVICE void score(Scores& scores, const unsigned char* q, const unsigned char* k) {
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int n = 0; n < MI_OWN_KEYS / 8; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) scores[n][e] = 0;
#pragma unroll(MI_EXACT ? 1 : 4)
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
