// Which keys a query of attention may see, and what a mask does to its scores.
// MI_MASK: 0 no mask input, 1 bool (true: may be seen), 2 added to the scores; MI_MASK_T: its type.
#pragma once
#include "types.cuh"

// MI_NAN_ROWS: what a query gives whose probabilities are NaN: zeros where all keys are hidden, always, or never.
#define MI_NAN_HIDDEN 0
#define MI_NAN_ZERO 1
#define MI_NAN_KEEP 2

#define MI_NO_MASK 0
#define MI_BOOL_MASK 1
#define MI_ADDED_MASK 2

// Query i stands at position offset + i among the keys, or at nonpad[batch] - queries + i where lengths are given.
// Keys from mask_keys on are hidden. left, right: how far a query sees, -1 for no bound. Then the mask's strides.
struct Sight {
  i64 queries, keys, mask_keys, offset, causal, left, right;
  i64 mask_batch, mask_head, mask_query, mask_key;
};

// The keys of one query, mask input apart: first <= key <= last.
struct Span { int first, last; };

MI_DEVICE Span visible_keys(const Sight& sight, const i64* nonpad, i64 batch, i64 query) {
  i64 position = query + (nonpad ? nonpad[batch] - sight.queries : sight.offset);
  i64 first = 0, last = sight.mask_keys - 1;
  if (sight.left >= 0 && position - sight.left > first) first = position - sight.left;
  if (sight.causal && position < last) last = position;
  if (sight.right >= 0 && position + sight.right < last) last = position + sight.right;
  if (nonpad && nonpad[batch] - 1 < last) last = nonpad[batch] - 1;
  Span span;
  span.first = (int)(first < sight.keys ? first : sight.keys);
  span.last = (int)(last >= 0 ? last : -1);
  return span;
}

MI_DEVICE i64 mask_row(const Sight& sight, i64 batch, i64 head, i64 query) {
  return batch * sight.mask_batch + head * sight.mask_head + query * sight.mask_query;
}

// A visible key's score behind the mask; `row` is what mask_row gives.
template <class C> MI_DEVICE C masked(C score, const MI_MASK_T* mask, i64 row, const Sight& sight, i64 key) {
#if MI_MASK == MI_BOOL_MASK
  return mask[row + key * sight.mask_key] ? score : (C)-mi_infinity();
#elif MI_MASK == MI_ADDED_MASK
  return score + (C)widen(mask[row + key * sight.mask_key]);
#else
  return score;
#endif
}

// What zeros for probabilities give: the sum of 0 times each value of a column, which is NaN where one of them is not finite.
template <class T> MI_DEVICE float weighed_by_zero(const T* column, i64 stride, i64 keys) {
  float sum = 0;
  for (i64 key = 0; key < keys; key++) sum += 0.0f * (float)widen(column[key * stride]);
  return sum;
}

// Between batches, heads and queries (keys).
struct Strides { i64 q[3], k[3], v[3], y[3]; };

MI_DEVICE i64 y_row(const Strides& strides, i64 batch, i64 head, i64 query) {
  return batch * strides.y[0] + head * strides.y[1] + query * strides.y[2];
}
