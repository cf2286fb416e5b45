// Unique, behind the sort. Places are those of the sorted items; a group is a run of equal items, named by the number of
// groups before it.
#include "compaction.cuh"
#include "sorting.cuh"

#if MI_SLICES
#include "ordered_keys.cuh"
// Items are numbers of slices along an axis of x [outer, n, inner]; -1 fills up and comes last. Slices are compared element by
// element, equal ones by their numbers.
typedef int Item;
struct Slices {
  const MI_T* x;
  index_t outer, n, inner;
  MI_DEVICE int compare(Item a, Item b) const {
    for (index_t o = 0; o < outer; o++)
      for (index_t i = 0; i < inner; i++) {
        auto ka = ordered_key(x[(o * n + a) * inner + i]), kb = ordered_key(x[(o * n + b) * inner + i]);
        if (ka != kb) return ka < kb ? -1 : 1;
      }
    return 0;
  }
  MI_DEVICE bool operator()(Item a, Item b) const {
    if (a < 0 || b < 0) return a >= 0;
    int order = compare(a, b);
    return order < 0 || (order == 0 && a < b);
  }
};
MI_DEVICE index_t number_of(Item item) { return item; }

extern "C" __global__ void __launch_bounds__(1024)
unique_sort(const MI_T* x, Item* runs, index_t outer, index_t n, index_t inner, int run) {
  MI_SHARED(Item, shared);
  index_t first = (index_t)blockIdx.x * run;
  for (int t = threadIdx.x; t < run; t += blockDim.x) shared[t] = first + t < n ? (int)(first + t) : -1;
  __syncthreads();
  bitonic_sort(shared, run, run, Slices{x, outer, n, inner});
  for (int t = threadIdx.x; t < run; t += blockDim.x) runs[first + t] = shared[t];
}

extern "C" __global__ void unique_merge(const MI_T* x, const Item* items, Item* merged, index_t outer, index_t n, index_t inner,
                                        int runs, int run, int keep, int tiles) {
  int tile = blockIdx.x % tiles, pair = blockIdx.x / tiles, number = 2 * pair;
  const Item* a = items + (index_t)number * run;
  merge_tile(a, run, a + run, number + 1 < runs ? run : 0, merged + (index_t)pair * keep, keep, tile, -1,
             Slices{x, outer, n, inner});
}
struct Starts {
  const Item* items;
  Slices slices;
  MI_DEVICE bool operator()(index_t i) const { return i == 0 || slices.compare(items[i - 1], items[i]) != 0; }
};
MI_DEVICE Starts starts_of(const MI_T* x, const Item* items, index_t outer, index_t n, index_t inner) {
  return Starts{items, Slices{x, outer, n, inner}};
}
#else
#include "sort_items.cuh"
struct Starts {
  const Item* items;
  MI_DEVICE bool operator()(index_t i) const { return i == 0 || !Items::same_key(items[i - 1], items[i]); }
};
MI_DEVICE index_t number_of(Item item) { return Items::index(item); }
MI_DEVICE Starts starts_of(const MI_T*, const Item* items, index_t, index_t, index_t) { return Starts{items}; }
#endif

// Counts the groups among n items.
extern "C" __global__ void unique_count(const MI_T* x, const Item* items, index_t outer, index_t n, index_t inner,
                                        index_t* counts) {
  count_selected(n, counts, starts_of(x, items, outer, n, inner));
}

// groups: the group of each place; starts: the first place of each group; firsts, where given: 1 for each element (by its
// number) that is the first of its group, 0 for the others.
extern "C" __global__ void unique_groups(const MI_T* x, const Item* items, index_t outer, index_t n, index_t inner,
                                         const index_t* offsets, index_t* groups, index_t* starts, u8* firsts) {
  visit_compacted(n, offsets, starts_of(x, items, outer, n, inner), [=](index_t i, bool starts_group, index_t place) {
    groups[i] = starts_group ? place : place - 1;
    if (starts_group) starts[place] = i;
    if (firsts) firsts[number_of(items[i])] = starts_group;
  });
}

// The outputs, each of which may be null, and `chosen`: the numbers of the elements that the values are. Groups are in their own
// order, or in that of `ranks` where given.
extern "C" __global__ void unique_write(const MI_T* x, const Item* items, index_t n, const index_t* groups, const index_t* starts,
                                        const i64* total, const index_t* ranks, MI_T* values, index_t* chosen, i64* indices,
                                        i64* inverse, i64* counts) {
  index_t last = (index_t)*total - 1;
  for (index_t i = mi_first(); i < n; i += mi_step()) {
    index_t group = groups[i], start = starts[group], first = number_of(items[start]), place = ranks ? ranks[first] : group;
    if (inverse) inverse[number_of(items[i])] = place;
    if (i != start) continue;
    if (values) values[place] = x[first];
    if (chosen) chosen[place] = first;
    if (indices) indices[place] = first;
    if (counts) counts[place] = (group < last ? starts[group + 1] : n) - start;
  }
}
