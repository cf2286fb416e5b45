// Slices gathered by a list of numbers whose length only the device knows.
#include "types.cuh"

// y [outer, most, inner], of which `total` of `most` are filled, from x [outer, n, inner]. The grid is one-dimensional.
extern "C" __global__ void gather_chosen(const MI_T* x, const MI_NUMBER* chosen, const i64* total, MI_T* y, index_t outer,
                                         index_t n, index_t most, index_t inner) {
  index_t found = (index_t)*total, line = found * inner;
  for (index_t i = mi_first(); i < outer * line; i += mi_step()) {
    index_t lead = i / line, rest = i - lead * line, place = rest / inner;
    y[lead * most * inner + rest] = x[(lead * n + chosen[place]) * inner + rest - place * inner];
  }
}
