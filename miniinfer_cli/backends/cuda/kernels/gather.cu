// Gather: slices along an axis, in units of a slice.
#include "places.cuh"

// y[outer, index, inner] = x[outer, indices[index], inner]; sizes: of the indices, and of inner.
extern "C" __global__ void gather(const MI_T* __restrict__ x, const MI_I* __restrict__ indices, MI_T* __restrict__ y,
                                  index_t count, index_t size, Indices<2> sizes, Dividers<2> by) {
  move_all<MI_T>(
      count,
      [&](index_t i) {
        index_t slice = divide(i, sizes.d[1], by, 1), outer = divide(slice, sizes.d[0], by, 0);
        index_t at = clamped(indices[slice - outer * sizes.d[0]], size);
        return x[(outer * size + at) * sizes.d[1] + (i - slice * sizes.d[1])];
      },
      [&](index_t i, MI_T value) { y[i] = value; });
}
