// Strided copies: Slice, Expand, Tile, pieces of tensors, and the Transposes that keep runs of elements together.
#include "copying.cuh"

// y[target strides] = x[source strides] for count positions; MI_DENSE: y is row-major.
extern "C" __global__ void copy(const MI_T* __restrict__ x, MI_T* __restrict__ y, index_t count, Indices<MI_RANK> sizes,
                                Dividers<MI_RANK> by, Indices<MI_RANK> source, Indices<MI_RANK> target) {
  move_all<MI_T>(
      count, [&](index_t i) { return x[offset_of(i, sizes, by, source)]; },
      [&](index_t i, MI_T value) { y[MI_DENSE ? i : offset_of(i, sizes, by, target)] = value; });
}

// The same where each element of x fills MI_WIDTH neighbours of y.
extern "C" __global__ void spread(const MI_T* __restrict__ x, Pack<MI_T, MI_WIDTH>* __restrict__ y, index_t count,
                                  Indices<MI_RANK> sizes, Dividers<MI_RANK> by, Indices<MI_RANK> source,
                                  Indices<MI_RANK> target) {
  move_all<MI_T>(
      count, [&](index_t i) { return x[offset_of(i, sizes, by, source)]; },
      [&](index_t i, MI_T value) {
        Pack<MI_T, MI_WIDTH> pack;
#pragma unroll
        for (int v = 0; v < MI_WIDTH; v++) pack.d[v] = value;
        y[MI_DENSE ? i : offset_of(i, sizes, by, target)] = pack;
      });
}
