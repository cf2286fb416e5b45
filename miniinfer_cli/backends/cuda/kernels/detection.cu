// NonMaxSuppression behind the sort of each class by score.
#include "compaction.cuh"
#include "sort_items.cuh"

typedef computed<MI_T> C;
#define TILE 256  // boxes that a block looks at together

// Rounded each for itself, as numpy does: whether an overlap is above the threshold must not depend on fused operations.
MI_DEVICE float rounded_product(float a, float b) { return __fmul_rn(a, b); }
MI_DEVICE double rounded_product(double a, double b) { return __dmul_rn(a, b); }
MI_DEVICE float rounded_sum(float a, float b) { return __fadd_rn(a, b); }
MI_DEVICE double rounded_sum(double a, double b) { return __dadd_rn(a, b); }
// With NaN where one is NaN.
MI_DEVICE C smaller(C a, C b) { return a < b || a != a ? a : b; }
MI_DEVICE C larger(C a, C b) { return a > b || a != a ? a : b; }

struct Box { C low_y, high_y, low_x, high_x, area; };

MI_DEVICE Box box_at(const MI_T* boxes, i64 number, int center_point_box) {
  const MI_T* at = boxes + 4 * number;
  C a = widen(at[0]), b = widen(at[1]), c = widen(at[2]), d = widen(at[3]);
  Box box;
  if (center_point_box) {
    C half_height = d / 2, half_width = c / 2;
    box.low_y = b - half_height; box.high_y = b + half_height;
    box.low_x = a - half_width; box.high_x = a + half_width;
  } else {
    box.low_y = smaller(a, c); box.high_y = larger(a, c);
    box.low_x = smaller(b, d); box.high_x = larger(b, d);
  }
  box.area = rounded_product(box.high_y - box.low_y, box.high_x - box.low_x);
  return box;
}

// Whether `kept` lets `box` go on.
MI_DEVICE bool apart(const Box& kept, const Box& box, C overlap) {
  C height = smaller(kept.high_y, box.high_y) - larger(kept.low_y, box.low_y);
  C width = smaller(kept.high_x, box.high_x) - larger(kept.low_x, box.low_x);
  C shared = rounded_product(larger(height, 0), larger(width, 0));
  C all = shared > 0 ? rounded_sum(rounded_sum(kept.area, box.area), -shared) : 1;
  return shared / all <= overlap;
}

// A block for each class of each image: `kept` [rows, most] gets the boxes that stay, best first, counts [rows] how many.
// A tile of candidates is compared with all kept before, then among itself, in the order of their scores.
extern "C" __global__ void __launch_bounds__(TILE)
nms_keep(const MI_T* boxes, const MI_T* scores, const Item* items, int classes, int n, int run, const i64* limit,
         const MI_T* overlap, const MI_T* least, int center_point_box, int most, int* kept, int* counts) {
  __shared__ Box staged[TILE];
  __shared__ u32 masks[TILE][TILE / 32];  // which candidates of the tile go when this one is kept
  __shared__ u32 open[TILE / 32];
  __shared__ int chosen[TILE];
  __shared__ int found;
  int t = threadIdx.x, row = blockIdx.x;
  i64 image = row / classes;
  i64 wanted = limit ? *limit : 0;
  int room = wanted < 0 ? 0 : wanted < most ? (int)wanted : most;
  C threshold = overlap ? widen(*overlap) : (C)0;
  int total = 0;
  for (int base = 0; base < n && total < room; base += TILE) {
    int number = -1;
    Box mine;
    bool alive = false;
    if (base + t < n) {
      number = (int)Items::index(items[(i64)row * run + base + t]);
      alive = !least || widen(scores[(i64)row * n + number]) > widen(*least);
      if (alive) mine = box_at(boxes, image * n + number, center_point_box);
    }
    if (!__syncthreads_or(alive)) break;  // scores fall, so none is left
    for (int from = 0; from < total; from += TILE) {
      if (from + t < total) staged[t] = box_at(boxes, image * n + kept[(i64)row * most + from + t], center_point_box);
      __syncthreads();
      int there = total - from < TILE ? total - from : TILE;
      for (int k = 0; k < there && alive; k++) alive = apart(staged[k], mine, threshold);
      __syncthreads();
    }
    if (alive) staged[t] = mine;
    for (int word = 0; word < TILE / 32; word++) masks[t][word] = 0;
    u32 ballot = __ballot_sync(0xffffffffu, alive);
    if ((t & 31) == 0) open[t >> 5] = ballot;
    __syncthreads();
    if (alive)
      for (int k = t + 1; k < TILE; k++)
        if ((open[k >> 5] >> (k & 31) & 1) && !apart(mine, staged[k], threshold)) masks[t][k >> 5] |= 1u << (k & 31);
    __syncthreads();
    if (t < 32) {  // one warp decides, a word of candidates in each of its first lanes
      u32 left = t < TILE / 32 ? open[t] : 0;
      int count = 0;
      while (total + count < room) {
        u32 having = __ballot_sync(0xffffffffu, left != 0);
        if (!having) break;
        int word = __ffs(having) - 1;
        int next = word * 32 + __ffs(__shfl_sync(0xffffffffu, left, word)) - 1;
        if (t < TILE / 32) left &= ~masks[next][t];
        if (t == word) left &= ~(1u << (next & 31));
        if (t == 0) chosen[count] = next;
        count++;
      }
      if (t == 0) found = count;
    }
    __syncthreads();
    // The candidate's number is known to its own thread: it finds its place among those chosen, which are in order.
    int low = 0, high = found;
    while (low < high) {
      int middle = (low + high) / 2;
      if (chosen[middle] < t) low = middle + 1; else high = middle;
    }
    if (low < found && chosen[low] == t) kept[(i64)row * most + total + low] = number;
    total += found;
    __syncthreads();
  }
  if (t == 0) counts[row] = total;
}

// By one block: counts become offsets.
extern "C" __global__ void nms_offsets(int* counts, i64* offsets, int rows, i64* total) {
  i64 carry = 0;
  for (int base = 0; base < rows; base += blockDim.x) {
    int i = base + threadIdx.x;
    i64 whole, before = block_exclusive(i < rows ? (i64)counts[i] : (i64)0, (i64)0, Plus(), whole);
    if (i < rows) offsets[i] = carry + before;
    carry += whole;
  }
  if (threadIdx.x == 0) *total = carry;
}

// triples: image, class and box of each.
extern "C" __global__ void nms_write(const int* kept, const int* counts, const i64* offsets, int rows, int classes, int most,
                                     i64* triples) {
  for (int row = blockIdx.x; row < rows; row += gridDim.x)
    for (int i = threadIdx.x; i < counts[row]; i += blockDim.x) {
      i64* to = triples + (offsets[row] + i) * 3;
      to[0] = row / classes;
      to[1] = row % classes;
      to[2] = kept[(i64)row * most + i];
    }
}
