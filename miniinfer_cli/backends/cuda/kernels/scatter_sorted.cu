// Combining by index when any number of updates can share a place: their positions are sorted by place, in `order`, and the
// first of each place takes the others in turn. The place `outside` is none.
#include "combining.cuh"
#include "division.cuh"

extern "C" __global__ void scatter_sorted(const index_t* __restrict__ places, const i64* __restrict__ order,
                                          const MI_T* __restrict__ updates, MI_T* __restrict__ y, index_t count, index_t inner,
                                          Dividers<1> by_inner, index_t n_updates, index_t outside) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t first = divide(i, inner, by_inner), e = i - first * inner, place = places[first];
    if (place == outside || (first > 0 && places[first - 1] == place)) continue;
    MI_T* at = y + place * inner + e;
    computed<MI_T> value = widen(*at);
    for (index_t j = first; j < n_updates && places[j] == place; j++)
      value = combine(value, widen(updates[(index_t)order[j] * inner + e]));
    *at = narrow<MI_T>(value);
  }
}
