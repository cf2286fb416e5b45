// What a block of attention.cu computes: MI_GROUPS tiles of the queries that share a head of keys, and which keys these see.
//
// MI_HIDES: 0 where nothing but the mask hides keys, so that all queries see the same; 1 where keys ahead of a query may be hidden, 2
// where those far behind it may be, too.
#pragma once
#include "attention.cuh"

// A query at position p sees keys from p - left to p + right, of the first `keys`; `lengths` are given for each of the batch, else
// query i is at position offset + i.
struct Seeing { int queries, keys, mask_keys, offset, left, right; };
typedef Longs<4> MaskStrides;  // between batches, heads, queries and keys
struct Tiling { int tiles, across, shift, group; };  // tiles of a head of keys, `across` of them at the same places

MI_DEVICE Span seen_from(const Seeing& s, int query, int position0, int end) {
  Span keys = {0, end - 1};
#if MI_HIDES
  int position = position0 + query;
  if (MI_HIDES > 1) keys.first = min(max(position - s.left, 0), s.keys);
  keys.last = min(position + s.right, end - 1);
#endif
  return keys;
}

struct Item {
  int batch, kv_head, tile;
  int position0, end;  // where its first query stands among the keys; behind the last key that any query of the batch may see
};
MI_DEVICE Item item_of(const Seeing& s, const i64* lengths) {
  Item item;
  item.batch = (int)blockIdx.z;
  item.kv_head = (int)blockIdx.y;
  item.tile = (int)(gridDim.x - 1 - blockIdx.x) * MI_GROUPS;  // those that see most keys of a causal mask first
  item.position0 = s.offset;
  item.end = s.mask_keys;
#if MI_HIDES
  if (lengths) {
    int length = (int)lengths[item.batch];
    item.position0 = length - s.queries;
    item.end = min(item.end, length);
  }
#endif
  return item;
}

MI_DEVICE int place_of(const Tiling& t, int tile) { return t.across == 1 ? tile : tile / t.across; }

// The keys that some query of the tiles from `first` to `last` may see.
MI_DEVICE Span seen_by(const Item& item, const Tiling& t, const Seeing& s, int first, int last) {
  Span keys = {0, item.end - 1};
#if MI_HIDES
  int to = min(((place_of(t, last) + 1) << t.shift) - 1, s.queries - 1);
  keys.first = seen_from(s, place_of(t, first) << t.shift, item.position0, item.end).first & ~7;
  keys.last = seen_from(s, to, item.position0, item.end).last;
#endif
  return keys;
}
