// Sorting in shared memory by a bitonic network, and merging of sorted runs in global memory.
// less(a, b) orders the items strictly, except for items that fill up a row and come last.
#pragma once
#include "types.cuh"

// Sorts count items of shared memory in segments, both powers of two. Ends with a barrier; the caller begins with one.
template <class Item, class Less> MI_DEVICE void bitonic_sort(Item* items, int count, int segment, Less less) {
  for (int size = 2; size <= segment; size *= 2)
    for (int stride = size / 2; stride > 0; stride /= 2) {
      for (int p = threadIdx.x; p < count / 2; p += blockDim.x) {
        int i = 2 * p - (p & (stride - 1)), j = i + stride;
        bool up = (i & size & (segment - 1)) == 0;  // the last round of a segment runs upwards everywhere
        Item a = items[i], b = items[j];
        if (less(b, a) == up) { items[i] = b; items[j] = a; }
      }
      // With strides up to 32, a warp's pairs lie within the 64 items that are its own.
      int next = stride > 1 ? stride / 2 : size;
      if (stride > 32 || next > 32) __syncthreads(); else __syncwarp();
    }
  __syncthreads();
}

// How many of the first d items of the merged run come from a; equal items come from a first.
template <class Item, class Less> MI_DEVICE int merged_from_a(const Item* a, int la, const Item* b, int lb, int d, Less less) {
  int low = d > lb ? d - lb : 0, high = d < la ? d : la;
  while (low < high) {
    int middle = (low + high) / 2;
    if (less(b[d - 1 - middle], a[middle])) high = middle; else low = middle + 1;
  }
  return low;
}

// One block writes the elements [tile * MERGE_TILE, ...) of the first `keep` of a and b merged; `last` where there are none.
#define MERGE_TILE 1024
template <class Item, class Less>
MI_DEVICE void merge_tile(const Item* a, int la, const Item* b, int lb, Item* out, int keep, int tile, Item last, Less less) {
  __shared__ Item staged[MERGE_TILE];
  int begin = tile * MERGE_TILE, end = keep - begin < MERGE_TILE ? keep : begin + MERGE_TILE, all = la + lb;
  int from = begin < all ? begin : all, to = end < all ? end : all;
  int a0 = merged_from_a(a, la, b, lb, from, less), a1 = merged_from_a(a, la, b, lb, to, less);
  int na = a1 - a0, nb = to - from - na, b0 = from - a0;
  for (int t = threadIdx.x; t < na + nb; t += blockDim.x) staged[t] = t < na ? a[a0 + t] : b[b0 + t - na];
  __syncthreads();
  for (int t = threadIdx.x; t < end - begin; t += blockDim.x) {
    if (t >= na + nb) { out[begin + t] = last; continue; }
    bool of_a = t < na;
    Item item = staged[t];
    int low = of_a ? na : 0, first = low, high = of_a ? na + nb : na;  // its place among the other run's
    while (low < high) {
      int middle = (low + high) / 2;
      bool before = of_a ? less(staged[middle], item) : !less(item, staged[middle]);
      if (before) low = middle + 1; else high = middle;
    }
    out[begin + (of_a ? t : t - na) + low - first] = item;
  }
}
