// TopK, and sorting for who needs it: the first elements of each row by MI_ORDER, equal ones by increasing index.
// A row is n elements of MI_T, `inner` apart.
#include "sort_items.cuh"
#include "sorting.cuh"

#define ASCENDING 0
#define DESCENDING 1           // NaN first
#define DESCENDING_NAN_LAST 2

MI_DEVICE Item item_of(MI_T x, u32 index) {
  Key key = ordered_key(x);
  if (MI_ORDER == DESCENDING || (MI_ORDER == DESCENDING_NAN_LAST && key != (Key)~(Key)0)) key = ~key;
  return Items::make(key, index);
}

MI_DEVICE void write_output(const MI_T* x, MI_T* values, i64* indices, index_t row, u32 index, int place, int n, index_t inner,
                            int keep) {
  index_t outer = row / inner, column = row - outer * inner, target = (outer * keep + place) * inner + column;
  values[target] = x[(outer * n + (index_t)index) * inner + column];
  indices[target] = index;
}

// Each segment (a power of two) of a block's shared memory sorts one of the `chunks` of a row: up to `chunk` of the row's n
// elements of x, or of the n items of `lists` where given. Its first `keep` go to `kept`, or to the outputs where that is null.
extern "C" __global__ void __launch_bounds__(1024)
topk_sort(const MI_T* x, const Item* lists, Item* kept, MI_T* values, i64* indices, index_t segments, int chunks, int chunk,
          int n, int size, index_t inner, int keep, int log_segment, int log_segments) {
  MI_SHARED(Item, shared);
  int segment = 1 << log_segment, count = segment << log_segments;
  bool across = inner > 1 && !lists;  // neighbouring rows are then neighbours in memory
  index_t first = (index_t)blockIdx.x << log_segments;
  for (int t = threadIdx.x; t < count; t += blockDim.x) {
    int s = across ? t & ((1 << log_segments) - 1) : t >> log_segment;
    int j = across ? t >> log_segments : t & (segment - 1);
    index_t g = first + s, row = chunks == 1 ? g : g / chunks;
    int place = (int)(g - row * chunks) * chunk + j;
    Item item = last_item();
    if (g < segments && j < chunk && place < n) {
      if (lists) item = lists[row * n + place];
      else if (inner == 1) item = item_of(x[row * n + place], place);
      else item = item_of(x[(row / inner * n + place) * inner + row % inner], place);
    }
    shared[(s << log_segment) + j] = item;
  }
  __syncthreads();
  bitonic_sort(shared, count, segment, Less());
  across = inner > 1 && !kept;
  for (int t = threadIdx.x; t < keep << log_segments; t += blockDim.x) {
    int s = across ? t & ((1 << log_segments) - 1) : t / keep, j = across ? t >> log_segments : t - s * keep;
    index_t g = first + s;
    if (g >= segments) continue;
    Item item = shared[(s << log_segment) + j];
    if (kept) kept[g * keep + j] = item;
    else write_output(x, values, indices, g, Items::index(item), j, size, inner, keep);
  }
}

// Merges pairs of the sorted runs of each row: `runs` of `run` items become half as many of `keep`.
extern "C" __global__ void topk_merge(const Item* items, Item* merged, int runs, int run, int keep, int tiles) {
  int pairs = (runs + 1) / 2, tile = blockIdx.x % tiles;
  index_t pair = blockIdx.x / tiles, row = pair / pairs;
  int number = 2 * (int)(pair - row * pairs);
  const Item* a = items + (row * runs + number) * run;
  merge_tile(a, run, a + run, number + 1 < runs ? run : 0, merged + pair * keep, keep, tile, last_item(), Less());
}

// The outputs of sorted rows of `run` items, of which the first `keep` count.
extern "C" __global__ void topk_write(const Item* items, const MI_T* x, MI_T* values, i64* indices, index_t count, int run,
                                      int size, index_t inner, int keep) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t row = i / keep;
    int place = (int)(i - row * keep);
    write_output(x, values, indices, row, Items::index(items[row * run + place]), place, size, inner, keep);
  }
}

// The k of an output whose size is it, within [0, size].
extern "C" __global__ void topk_count(const i64* k, i64* values, i64* indices, i64 size) {
  i64 count = *k < 0 ? 0 : *k > size ? size : *k;
  *values = count;
  *indices = count;
}
