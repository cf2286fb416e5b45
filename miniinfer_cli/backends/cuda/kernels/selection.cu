// Elements chosen by contents, in order: NonZero, Compress, and a part of Unique.
#include "compaction.cuh"

// An element counts when it has one of the bits of `mask`: all of them but a float's sign.
struct IsSet {
  const MI_T* x;
  MI_T mask;
  MI_DEVICE bool operator()(index_t i) const { return (x[i] & mask) != 0; }
};

extern "C" __global__ void count_set(const MI_T* x, MI_T mask, index_t count, index_t* counts) {
  count_selected(count, counts, IsSet{x, mask});
}

// coordinates [rank, count]: those of the elements that are set, one after the other in each row.
extern "C" __global__ void write_coordinates(const MI_T* x, MI_T mask, index_t count, const index_t* offsets,
                                             Indices<MI_RANK> shape, i64* coordinates) {
  visit_compacted(count, offsets, IsSet{x, mask}, [=](index_t i, bool selected, index_t place) {
    if (!selected) return;
    index_t rest = i;
#pragma unroll
    for (int axis = MI_RANK - 1; axis >= 0; axis--) {
      index_t higher = axis ? rest / shape.d[axis] : 0;
      coordinates[(i64)axis * count + place] = rest - higher * shape.d[axis];
      rest = higher;
    }
  });
}

// chosen: the numbers of the elements that are set.
extern "C" __global__ void write_numbers(const MI_T* x, MI_T mask, index_t count, const index_t* offsets, index_t* chosen) {
  visit_compacted(count, offsets, IsSet{x, mask}, [=](index_t i, bool selected, index_t place) {
    if (selected) chosen[place] = i;
  });
}

// ranks: for each element that is set, how many are before it.
extern "C" __global__ void write_ranks(const MI_T* x, MI_T mask, index_t count, const index_t* offsets, index_t* ranks) {
  visit_compacted(count, offsets, IsSet{x, mask}, [=](index_t i, bool selected, index_t place) {
    if (selected) ranks[i] = place;
  });
}
