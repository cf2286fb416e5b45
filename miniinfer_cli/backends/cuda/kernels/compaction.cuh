// Keeping the order of what is selected: blocks count, one block adds the counts up, and the blocks write at their offsets.
#pragma once
#include "scanning.cuh"

#define COMPACTED 4096  // elements of a block
#define COMPACTED_BLOCK 256
#define COMPACTED_EACH (COMPACTED / COMPACTED_BLOCK)

struct Plus { template <class C> MI_DEVICE C operator()(C a, C b) const { return a + b; } };

// The elements of a warp lie together; lane l has l, l + 32, ... of them.
MI_DEVICE index_t compacted_first() {
  return (index_t)blockIdx.x * COMPACTED + (threadIdx.x >> 5) * (32 * COMPACTED_EACH) + (threadIdx.x & 31);
}

// counts[block] = how many elements of the block select(i) holds for.
template <class Select> MI_DEVICE void count_selected(index_t count, index_t* counts, Select select) {
  index_t first = compacted_first();
  int mine = 0, total;
#pragma unroll
  for (int k = 0; k < COMPACTED_EACH; k++) mine += first + 32 * k < count && select(first + 32 * k);
  block_exclusive(mine, 0, Plus(), total);
  if (threadIdx.x == 0) counts[blockIdx.x] = total;
}

// visit(i, selected, place) for every element: `place` is the number of elements selected before it.
template <class Select, class Visit>
MI_DEVICE void visit_compacted(index_t count, const index_t* offsets, Select select, Visit visit) {
  index_t first = compacted_first();
  unsigned votes[COMPACTED_EACH];
  int of_warp = 0, total, lane = threadIdx.x & 31;
#pragma unroll
  for (int k = 0; k < COMPACTED_EACH; k++) {
    votes[k] = __ballot_sync(0xffffffffu, first + 32 * k < count && select(first + 32 * k));
    of_warp += __popc(votes[k]);
  }
  int before = block_exclusive(lane == 31 ? of_warp : 0, 0, Plus(), total);  // the same in all lanes of a warp
  index_t place = offsets[blockIdx.x] + before;
#pragma unroll
  for (int k = 0; k < COMPACTED_EACH; k++) {
    index_t i = first + 32 * k;
    if (i < count) visit(i, (votes[k] >> lane & 1) != 0, place + __popc(votes[k] & ((1u << lane) - 1)));
    place += __popc(votes[k]);
  }
}

// By one block: counts become what comes before each; their sum goes to those of the totals that are given.
MI_DEVICE void scan_to_offsets(index_t* counts, int blocks, i64* total0, i64* total1, i64* total2) {
  index_t carry = 0;
  for (int base = 0; base < blocks; base += blockDim.x) {
    int i = base + threadIdx.x;
    index_t whole, before = block_exclusive(i < blocks ? counts[i] : (index_t)0, (index_t)0, Plus(), whole);
    if (i < blocks) counts[i] = carry + before;
    carry += whole;
  }
  if (threadIdx.x) return;
  if (total0) *total0 = carry;
  if (total1) *total1 = carry;
  if (total2) *total2 = carry;
}
