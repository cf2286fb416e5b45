// Trilu.
#include "copying.cuh"

// The triangle of each matrix from diagonal k (read at k_at unless that is null) on, zero elsewhere. Units of MI_WIDTH
// elements; sizes are rows, and units in a row.
extern "C" __global__ void trilu(const Pack<MI_T, MI_WIDTH>* __restrict__ x, Pack<MI_T, MI_WIDTH>* __restrict__ y,
                                 const i64* __restrict__ k_at, i64 k, int upper, index_t count, Indices<2> sizes, Dividers<2> by) {
  typedef Pack<MI_T, MI_WIDTH> Unit;
  i64 diagonal = k_at ? *k_at : k;
  move_all<Unit>(
      count,
      [&](index_t i) {
        index_t line = divide(i, sizes.d[1], by, 1), matrix = divide(line, sizes.d[0], by, 0);
        i64 offset = (i64)(i - line * sizes.d[1]) * MI_WIDTH - (line - matrix * sizes.d[0]);  // of the first from the diagonal
        Unit unit = {};
        if (upper ? offset + MI_WIDTH - 1 >= diagonal : offset <= diagonal) {
          unit = x[i];
#pragma unroll
          for (int v = 0; v < MI_WIDTH; v++)
            if (upper ? offset + v < diagonal : offset + v > diagonal) unit.d[v] = MI_T{};
        }
        return unit;
      },
      [&](index_t i, Unit unit) { y[i] = unit; });
}
