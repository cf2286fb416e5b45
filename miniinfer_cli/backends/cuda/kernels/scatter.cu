// Writing by index (MI_REDUCTION 0), and combining with what is there. y holds a copy of the data before. An update's position p
// has `inner` elements. Where several updates have one place, the result is that of doing them in order.
#include "places.cuh"
#if MI_REDUCTION
#include "combining.cuh"
#endif

// No two updates have one place: either none of them can, or the host has looked at the indices.
extern "C" __global__ void scatter(const MI_I* __restrict__ indices, const MI_T* __restrict__ updates, MI_T* __restrict__ y,
                                   index_t count, index_t inner, Dividers<1> by_inner, MI_PLACES) {
  move_all<MI_T>(
      count, [&](index_t i) { return updates[i]; },
      [&](index_t i, MI_T update) {
        index_t p = divide(i, inner, by_inner), place = MI_PLACE(p);
        if (place < 0) return;
        MI_T* at = y + place * inner + (i - p * inner);
#if MI_REDUCTION == 0
        *at = update;
#else
        *at = narrow<MI_T>(combine(widen(*at), widen(update)));
#endif
      });
}

// Updates can share a place only with others of their line: `line_size` positions, `line_step` apart. The first of those with
// one place does the work of all; without a reduction the last does, and the others nothing.
extern "C" __global__ void scatter_lines(index_t line_size, index_t line_step, const MI_I* __restrict__ indices,
                                         const MI_T* __restrict__ updates, MI_T* __restrict__ y, index_t count, index_t inner,
                                         Dividers<1> by_inner, MI_PLACES) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t p = divide(i, inner, by_inner), e = i - p * inner, place = MI_PLACE(p);
    if (place < 0) continue;
    index_t number = p / line_step % line_size, line = p - number * line_step;
    bool mine = true;
#if MI_REDUCTION == 0
    for (index_t k = number + 1; mine && k < line_size; k++) mine = MI_PLACE(line + k * line_step) != place;
    if (mine) y[place * inner + e] = updates[i];
#else
    for (index_t k = 0; mine && k < number; k++) mine = MI_PLACE(line + k * line_step) != place;
    if (!mine) continue;
    MI_T* at = y + place * inner + e;
    computed<MI_T> value = combine(widen(*at), widen(updates[i]));
    for (index_t k = number + 1; k < line_size; k++) {
      index_t q = line + k * line_step;
      if (MI_PLACE(q) == place) value = combine(value, widen(updates[q * inner + e]));
    }
    *at = narrow<MI_T>(value);
#endif
  }
}

#if MI_REDUCTION == 0
// Any number of updates in one place: the last, which scatter_claim has found, writes.
extern "C" __global__ void scatter_claimed(const index_t* __restrict__ last, const MI_I* __restrict__ indices,
                                           const MI_T* __restrict__ updates, MI_T* __restrict__ y, index_t count, index_t inner,
                                           Dividers<1> by_inner, MI_PLACES) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t p = divide(i, inner, by_inner), place = MI_PLACE(p);
    if (place >= 0 && last[place] == p) y[place * inner + (i - p * inner)] = updates[i];
  }
}
#endif
