// GatherElements and GatherND: slices from where index tensors point, in units of a slice.
#include "places.cuh"

// y[p, inner] = x[place of p, inner].
extern "C" __global__ void gather_at(const MI_T* __restrict__ x, const MI_I* __restrict__ indices, MI_T* __restrict__ y,
                                     index_t count, index_t inner, Dividers<1> by_inner, MI_PLACES) {
  move_all<MI_T>(
      count,
      [&](index_t i) {
        index_t p = divide(i, inner, by_inner);
        return x[place_of<true>(p, indices, sizes, by, strides, extent, stride) * inner + (i - p * inner)];
      },
      [&](index_t i, MI_T value) { y[i] = value; });
}
