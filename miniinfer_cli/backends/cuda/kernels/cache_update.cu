// TensorScatter: entries written into a cache along an axis, from each sample's own index on.
#include "copying.cuh"

// y[sample, outer, starts[sample] + t, inner] = update[sample, outer, t, inner]; sizes: outer, entries of the update, inner.
// `starts` is null for 0 everywhere. Entries past the cache's `size` wrap around if `circular`, and are left out if not.
extern "C" __global__ void cache_update(const MI_T* __restrict__ update, const i64* __restrict__ starts, MI_T* __restrict__ y,
                                        index_t count, index_t size, int circular, Indices<3> sizes, Dividers<3> by) {
  move_all<MI_T>(
      count, [&](index_t i) { return update[i]; },
      [&](index_t i, MI_T value) {
        index_t entry = divide(i, sizes.d[2], by, 2), line = divide(entry, sizes.d[1], by, 1);
        i64 at = (starts ? starts[divide(line, sizes.d[0], by, 0)] : 0) + (entry - line * sizes.d[1]);
        if (circular) {
          at %= size;
          at = at < 0 ? at + size : at;
        }
        if (at >= 0 && at < size) y[(line * size + (index_t)at) * sizes.d[2] + (i - entry * sizes.d[2])] = value;
      });
}
