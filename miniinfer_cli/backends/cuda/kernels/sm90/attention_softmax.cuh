// The softmax of attention.cu: what a thread of a warpgroup does to its scores of two rows, g and g + 8 of its warp's 16.
//
// MI_KEYS: of a step. MI_CAPPED, MI_MASK_ROWS, MI_MASK_PAIRS: attention.cu has them.
#pragma once
#include "attention.cuh"
#if MI_FLOATS
#include "mma.cuh"
#endif
#include "sm90/attention_items.cuh"
#include "sm90/halves.cuh"

constexpr float LOG2E = 1.4426950408889634f;
constexpr bool RAW = MI_MASK != MI_ADDED_MASK && !MI_CAPPED;     // scores are scaled together with the power that is taken of them
constexpr bool POWERS = MI_MASK == MI_ADDED_MASK && !MI_CAPPED;  // scores and what is added to them are made powers of two first

MI_DEVICE float over_row(float x, bool add) {  // among the four lanes that share a row
#pragma unroll
  for (int by = 1; by < 4; by *= 2) {
    float other = __shfl_xor_sync(0xffffffffu, x, by);
    x = add ? x + other : fmaxf(x, other);
  }
  return x;
}

// What the mask has for this thread's keys of a step: key0 + 8 n and the next one.
struct Held { Pack<MI_MASK_T, 2> d[MI_MASK_ROWS][MI_KEYS / 8]; };
MI_DEVICE void load_mask(Held& held, const MI_MASK_T* mask, const i64 (&rows)[2], const Seeing& s, const MaskStrides& by, int key0) {
  if (MI_MASK == MI_NO_MASK) return;
#pragma unroll
  for (int i = 0; i < MI_MASK_ROWS; i++)
#pragma unroll
    for (int n = 0; n < MI_KEYS / 8; n++) {
      int key = key0 + 8 * n;
      Pack<MI_MASK_T, 2> pair = {};
#if MI_MASK_PAIRS
      if (key < s.mask_keys) pair = *reinterpret_cast<const Pack<MI_MASK_T, 2>*>(mask + rows[i] + key);
#else
      if (key < s.mask_keys) pair.d[0] = mask[rows[i] + key * by.d[3]];
      if (key + 1 < s.mask_keys) pair.d[1] = mask[rows[i] + (key + 1) * by.d[3]];
#endif
      held.d[i][n] = pair;
    }
}

// What a thread knows of its two rows: the keys that each may see and where its mask lies; the highest score so far, and the sum of
// this thread's exponentials below it.
struct Rows {
  Span spans[2];
  i64 masks[2];
  float top[2], total[2];
};

MI_DEVICE Rows rows_of(const Item& item, const Tiling& t, const Seeing& s, const MaskStrides& by, int query0, int head0, int row0) {
  Rows rows;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    int row = row0 + 8 * i, query = query0 + (row & ((1 << t.shift) - 1)), head = head0 + (row >> t.shift);
    bool there = query < s.queries && head < t.group;
    rows.spans[i] = seen_from(s, query, item.position0, item.end);
    rows.masks[i] = 0;
    if (MI_MASK != MI_NO_MASK && there)
      rows.masks[i] = item.batch * by.d[0] + (item.kv_head * t.group + head) * by.d[1] + query * by.d[2];
    rows.top[i] = -mi_infinity();
    rows.total[i] = 0;
  }
  return rows;
}

// exp of a score less the highest one; factor: factor_of(scale).
MI_DEVICE float factor_of(float scale) { return RAW || POWERS ? scale * LOG2E : LOG2E; }
MI_DEVICE float power(float x, float top, float factor) {
  return power_of_two(RAW ? fmaf(x, factor, -top * factor) : POWERS ? x - top : (x - top) * factor);
}
MI_DEVICE float finite_or_zero(float top) { return top == -mi_infinity() ? 0.0f : top; }

// What is added to a score, as a power of two; the lowest numbers stay numbers.
MI_DEVICE float power_added(f16 mask) { return widen(mask) * LOG2E; }
template <class T> MI_DEVICE float power_added(T mask) {
  float x = (float)widen(mask), y = x * LOG2E;
  return y == -mi_infinity() && x != y ? -3.4028235e38f : y;
}

// Scores of a step, behind scale, cap and masks; hidden ones are minus infinity. key0: the first key of the step that this thread has.
// SPANS: whether any key of the step may lie out of the span of a row.
template <bool SPANS>
MI_DEVICE void hide(
    float (&scores)[MI_KEYS / 2], float (&highest)[2], const Rows& rows, const Held& held, int key0, float scale, float cap) {
#pragma unroll
  for (int i = 0; i < MI_KEYS / 2; i++) {
    int e = i % 2, row = i / 2 % 2, key = i / 4 * 8 + e;  // from key0 on
    float x = RAW || POWERS ? scores[i] : scores[i] * scale;
#if MI_CAPPED
    x = tanhf(x / cap) * cap;
#endif
    bool hidden = SPANS && (key > rows.spans[row].last - key0 || (MI_HIDES > 1 && key < rows.spans[row].first - key0));
#if MI_MASK == MI_BOOL_MASK
    hidden |= !held.d[row % MI_MASK_ROWS][i / 4].d[e];
#elif MI_MASK == MI_ADDED_MASK
    auto added = held.d[row % MI_MASK_ROWS][i / 4].d[e];
    x = POWERS ? fmaf(x, factor_of(scale), power_added(added)) : x + (float)widen(added);
#endif
    scores[i] = hidden ? -mi_infinity() : x;
    highest[row] = fmaxf(highest[row], scores[i]);
  }
}

// Probabilities of a step, not yet divided by their sum, as words of the next product; fade: what sums so far are to be scaled by.
MI_DEVICE void soften(
    u32 (&shares)[MI_KEYS * sizeof(MI_T) / 32][4], float (&fade)[2], float (&scores)[MI_KEYS / 2], Rows& rows, const Held& held,
    int key0, float scale, float cap) {
  float highest[2] = {rows.top[0], rows.top[1]}, bottom[2], factor = factor_of(scale);
  int first = max(rows.spans[0].first, rows.spans[1].first), last = min(rows.spans[0].last, rows.spans[1].last);
  if (key0 >= first && key0 + MI_KEYS - 7 <= last) hide<false>(scores, highest, rows, held, key0, scale, cap);
  else hide<true>(scores, highest, rows, held, key0, scale, cap);
#pragma unroll
  for (int i = 0; i < 2; i++) {
    highest[i] = over_row(highest[i], false);
    bottom[i] = finite_or_zero(highest[i]);
    fade[i] = power(rows.top[i], bottom[i], factor);
    rows.total[i] *= fade[i];
    rows.top[i] = highest[i];
  }
#pragma unroll
  for (int i = 0; i < MI_KEYS / 2; i += 2) {
    int row = i / 2 % 2;
    float low = power(scores[i], bottom[row], factor), high = power(scores[i + 1], bottom[row], factor);
    rows.total[row] += low + high;
#if MI_FLOATS
    shares[i / 4][row] = tf32_of(__float_as_uint(low));
    shares[i / 4][2 + row] = tf32_of(__float_as_uint(high));
#else
    shares[i / 8][i / 2 % 4] = pair_of(low, high, (MI_T*)0);
#endif
  }
}

#if MI_PARTS > 1
constexpr int KEPT = MI_VALUE / 2 + 4;  // of a thread: sums, highest scores and totals; 128 floats lie between them

MI_DEVICE void keep(float* kept, const float (&sums)[MI_VALUE / 2], const Rows& rows) {
#pragma unroll
  for (int i = 0; i < MI_VALUE / 2; i++) kept[i * 128] = sums[i];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    kept[(MI_VALUE / 2 + i) * 128] = rows.top[i];
    kept[(MI_VALUE / 2 + 2 + i) * 128] = rows.total[i];
  }
}

// Adds what another part of the keys has.
MI_DEVICE void add_kept(const float* kept, float (&sums)[MI_VALUE / 2], Rows& rows, float factor) {
  float ours[2], theirs[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float top = kept[(MI_VALUE / 2 + i) * 128], highest = fmaxf(rows.top[i], top), bottom = finite_or_zero(highest);
    ours[i] = power(rows.top[i], bottom, factor);
    theirs[i] = power(top, bottom, factor);
    rows.total[i] = rows.total[i] * ours[i] + kept[(MI_VALUE / 2 + 2 + i) * 128] * theirs[i];
    rows.top[i] = highest;
  }
#pragma unroll
  for (int i = 0; i < MI_VALUE / 2; i++) sums[i] = sums[i] * ours[i / 2 % 2] + kept[i * 128] * theirs[i / 2 % 2];
}
#endif
