// OneHot: values[1] where the class is the one of the index, values[0] elsewhere.
#include "copying.cuh"
#include "conversions.cuh"

// The class that an index names, negative ones counted from the end.
MI_DEVICE i64 named(MI_I index, i64 depth) {
  i64 at = convert<i64>(widen(index));
  return at < 0 ? at + depth : at;
}

// y[outer, class, inner]; sizes: units of MI_WIDTH classes, and inner, which is 1 where the width is more.
extern "C" __global__ void one_hot(const MI_I* __restrict__ indices, const MI_T* __restrict__ values,
                                   Pack<MI_T, MI_WIDTH>* __restrict__ y, index_t count, i64 depth, Indices<2> sizes,
                                   Dividers<2> by) {
  typedef Pack<MI_T, MI_WIDTH> Unit;
  MI_T off = values[0], on = values[1];
  move_all<Unit>(
      count,
      [&](index_t i) {
        index_t line = divide(i, sizes.d[1], by, 1), outer = divide(line, sizes.d[0], by, 0);
        i64 hot = named(indices[outer * sizes.d[1] + (i - line * sizes.d[1])], depth);
        i64 first = (i64)(line - outer * sizes.d[0]) * MI_WIDTH;
        Unit unit;
#pragma unroll
        for (int v = 0; v < MI_WIDTH; v++) unit.d[v] = first + v == hot ? on : off;
        return unit;
      },
      [&](index_t i, Unit unit) { y[i] = unit; });
}
